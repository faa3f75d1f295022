"""Imports a filled sheet as a new release. Each item records who kept or edited it, when and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safevid_core.benchmarks.releases import as_release, commit_release, read_release, use_release
from safevid_core.benchmarks.safevidbench_base import item_of
from safevid_core.benchmarks.safevidbench_challenge import NAME, described, options_of
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import BENCHMARK_RELEASES, SAFEVIDBENCH_CHALLENGE
from safevid_core.queries.candidates import normalised
from safevid_core.review.challenge.sheet import Entry, read_sheet
from safevid_core.review.errors import ReviewError
from safevid_core.review.sheets import problem_line, row_of_problem
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake, check_conservation
from safevid_core.systems.responses import read_items
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy


@dataclass
class Imported:
    """The result of an import.

    Attributes:
        parent: The reviewed release.
        release: The new release. None if no row of the sheet could be used.
        in_use: Whether the new release is now in use.
        counts: Number of items that were kept, edited and dropped, and of rows without a verdict (`open`).
        problems: One line for each row that was not used.
    """

    parent: str
    release: str | None = None
    in_use: bool = False
    counts: dict[str, int] = field(default_factory=lambda: {"keep": 0, "edit": 0, "drop": 0, "open": 0})
    problems: list[str] = field(default_factory=list)


def import_review(settings: Settings, lake: Lake, path: Path, release: str | None = None) -> Imported:
    """Make a new release by applying the sheet to a reviewed one.

    The new release comes into use unless the settings name a release. The reviewed release stays unchanged.
    Rows that cannot be used are left out and listed in `problems`.

    Args:
        release: The reviewed release. Defaults to the one in use.

    Raises:
        BenchmarkError: If there is no such release.
        ReviewError: If the file is not a review sheet, or no item is left.
    """
    if release is None:
        release = str(read_items(lake, NAME)["release"][0])
    parent = read_release(lake, SAFEVIDBENCH_CHALLENGE, release)
    sheet = read_sheet(path)
    review = _Review(release, parent)
    for entry in sheet.entries:
        review.take(entry)
    imported = review.imported
    imported.counts["open"] = sheet.open
    imported.problems = sorted(sheet.problems + imported.problems, key=row_of_problem)
    if not any(imported.counts[action] for action in ("keep", "edit", "drop")):
        return imported
    if not review.items:
        raise ReviewError(f"review sheet {path} drops every item of release {release}; none would be left")
    imported.release = _commit(lake, review, load_taxonomy(settings))
    if NAME not in settings.evaluation.releases:
        use_release(lake, SAFEVIDBENCH_CHALLENGE, imported.release)
        imported.in_use = True
    return imported


class _Review:
    """The items and outcomes of a release while the entries of a sheet are applied to them."""

    def __init__(self, release: str, parent: StageRows) -> None:
        self.items = {item["item_id"]: item for item in parent.rows.drop("profile").to_dicts()}
        self.outcomes: dict[str, tuple[Outcome, str]] = {
            plan_id: (outcome, reason) for plan_id, outcome, reason in parent.outcomes
        }
        self.info = parent.info
        self.imported = Imported(release)
        self._texts = {(item["clip_id"], normalised(item["query"])) for item in self.items.values()}

    def take(self, entry: Entry) -> None:
        """Apply one entry. If that is not possible, add a line to the problems."""
        item = self.items.get(entry.item_id)
        if item is None:
            problem = (
                f"no item of release {self.imported.parent} has this id; edited and dropped ones are gone"
            )
        else:
            problem = self._drop(item, entry) if entry.action == "drop" else self._keep(item, entry)
        if problem:
            self.imported.problems.append(problem_line(entry.row, entry.item_id, problem))
        else:
            self.imported.counts[entry.action] += 1

    def _drop(self, item: Mapping[str, Any], entry: Entry) -> str:
        reason = f"dropped in review by {entry.reviewer} on {entry.date}: {entry.reason}"
        self.outcomes[item["plan_id"]] = ("filtered", reason)
        del self.items[entry.item_id]
        return ""

    def _keep(self, item: dict[str, Any], entry: Entry) -> str:
        options = options_of(item)
        lineage = self._lineage(item, entry)
        if options["review"] and options["review"][-1] == lineage:
            return "this entry was imported before"
        query = entry.query or item["query"]
        if entry.query is not None:
            if query == item["query"]:
                return "edited_query is the query as it was; say keep"
            key = (item["clip_id"], normalised(query))
            if key in self._texts and normalised(item["query"]) != normalised(query):
                return "the clip is asked the same by another item; edit it otherwise, or say drop"
            self._texts.add(key)
        options["review"].append(lineage)
        text = json.dumps(options, ensure_ascii=False, sort_keys=True)
        known = {name: value for name, value in item.items() if name not in ("item_id", "benchmark")}
        edited = item_of(NAME, {**known, "query": query, "options": text})
        del self.items[entry.item_id]
        self.items[edited["item_id"]] = edited
        return ""

    def _lineage(self, item: Mapping[str, Any], entry: Entry) -> dict[str, str]:
        return {
            "verdict": entry.action,
            "reviewer": entry.reviewer,
            "date": entry.date,
            "reason": entry.reason,
            "original_query": item["query"],
            "original_item": entry.item_id,
        }


def _commit(lake: Lake, review: _Review, taxonomy: Taxonomy) -> str:
    """Commit the reviewed items as a release. Returns its hash."""
    items = as_release(SAFEVIDBENCH_CHALLENGE, list(review.items.values()))
    release = str(items[0]["release"])
    outcomes = [(plan_id, *outcome) for plan_id, outcome in review.outcomes.items()]
    size = int(review.info["size"])
    info = {
        **review.info,
        **described(items, size, taxonomy),
        "release": release,
        "reviewed_release": review.imported.parent,
    }
    stage = StageRows(SAFEVIDBENCH_CHALLENGE.frame(items), outcomes, info)
    check_conservation(BENCHMARK_RELEASES, stage, list(review.outcomes))
    manifest = lake.manifest(BENCHMARK_RELEASES.name, f"{NAME}@{review.imported.parent}")
    commit_release(lake, SAFEVIDBENCH_CHALLENGE, release, stage, manifest.inputs if manifest else {})
    return release
