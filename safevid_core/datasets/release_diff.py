"""What a release adds, drops and changes against another one, and why.

Pairs are matched by id, then by their query, then by clip, subcategory, style and expectation. A pair that is
matched with one of another id is *changed*: the same query with another response, or a query that was
written anew. The reason is read from the rows, from what both releases keep out, from the hashes of the
subcategories in both records, and from the lake: tombstones, and outcomes of the pairs' stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.contracts.tables import PAIRS, RELEASE
from safevid_core.corpus.withdrawn import read_withdrawn
from safevid_core.datasets.kept_releases import release_folder
from safevid_core.datasets.release_folder import (
    ReleaseRecord,
    read_kept_out,
    read_record,
    rows_in,
)
from safevid_core.storage.lake import Lake
from safevid_core.storage.release_folders import LINES, RECORD

_SLOT = ["clip_id", "subcategory", "style", "expectation"]
# Columns that are compared, each with the reason that a difference in it gives. The first counts.
_REASONS = {
    "taxonomy_hash": "taxonomy: the subcategory was edited",
    "policy": "taxonomy: the subcategory was edited",
    "chosen_model": "model: another responder",
    "rejected_model": "model: another unaligned model",
    "rejected_system": "prompt: another system prompt of the unaligned model",
    "pair_judge": "model: another pair judge",
    "prompt": "query: it was written anew",
    "criteria": "query: its criteria were written anew",
    "chosen_request_key": "prompt: the responder was asked otherwise",
    "rejected_request_key": "prompt: the unaligned model was asked otherwise",
    "chosen": "response: the responder answered otherwise",
    "rejected": "response: the unaligned model answered otherwise",
    "margin": "filter: the pair judge scores it otherwise",
    "split": "settings: another split",
    "licence": "corpus: another licence",
    "source_id": "corpus: another source video",
}
# A query that the clip's twin took over from a clip that was withdrawn since.
_OF_WITHDRAWN = "clip: its query came from a withdrawn clip"
_KEYS = ("chosen_request_key", "rejected_request_key")
_CHANGES = ("added", "dropped", "changed")
_SCHEMA = pl.Schema(
    dict.fromkeys(
        ("change", "reason", "pair_id", "before", "query_id", "clip_id", "subcategory", "detail"), pl.String
    )
)


@dataclass(frozen=True)
class ReleaseDiff:
    """The differences between two releases.

    Attributes:
        before: Record of the first release.
        after: Record of the second release.
        same: Number of pairs that are in both with the same rows.
        rows: The others: `change` (added, dropped or changed), `reason`, `pair_id`, `before` (the id of the
            pair that a changed one replaces), `query_id`, `clip_id`, `subcategory`, `detail`.
        settings: Name -> values before and after, for settings and models that differ.
    """

    before: ReleaseRecord
    after: ReleaseRecord
    same: int
    rows: pl.DataFrame
    settings: Mapping[str, tuple[Any, Any]]

    @property
    def counts(self) -> dict[str, int]:
        return {change: self.rows.filter(change=change).height for change in _CHANGES}

    @property
    def reasons(self) -> list[tuple[str, str, int]]:
        """Change, reason and number of pairs, the most frequent reason of each change first."""
        order = pl.col("change").replace_strict({name: place for place, name in enumerate(_CHANGES)})
        found = self.rows.group_by("change", "reason").len()
        return found.sort(order, -pl.col("len").cast(pl.Int64), "reason").rows()

    def as_dict(self) -> dict[str, Any]:
        return {
            "before": _named(self.before),
            "after": _named(self.after),
            "same": self.same,
            **self.counts,
            "reasons": [
                {"change": change, "reason": reason, "pairs": pairs} for change, reason, pairs in self.reasons
            ],
            "settings": {name: list(values) for name, values in self.settings.items()},
            "pairs": self.rows.to_dicts(),
        }


def diff_releases(lake: Lake, before: str, after: str) -> ReleaseDiff:
    """Compare two releases.

    Args:
        before: A version, an id or its beginning, an address in the lake, or the path of a release folder.
        after: The same.

    Raises:
        ReleaseMissing: If the lake holds no such release.
        ReleaseUnreadable: If a folder is no release.
    """
    folders = [_folder(lake, word) for word in (before, after)]
    one, other = (_Side(lake, folder) for folder in folders)
    matched = _match(one.rows, other.rows)
    same, changed = _compared(matched, one, other)
    gone = one.rows.join(matched, left_on="pair_id", right_on="before", how="anti")
    new = other.rows.join(matched, on="pair_id", how="anti")
    parts = [
        pl.DataFrame(schema=_SCHEMA),
        _added(new, one, other),
        _dropped(lake, gone, one, other),
        changed,
    ]
    rows = pl.concat([part.select(_SCHEMA.names()) for part in parts])
    order = pl.col("change").replace_strict({name: place for place, name in enumerate(_CHANGES)})
    return ReleaseDiff(
        one.record, other.record, same, rows.sort(order, "reason", "pair_id"), _settings(one, other)
    )


class _Side:
    """A release with what the comparison reads; a text is there as a hash."""

    def __init__(self, lake: Lake, folder: Path) -> None:
        self.record = read_record(folder)
        manifest = lake.manifest(RELEASE.name)
        path = None if manifest is None else manifest.info.get("path")
        self.is_current = path is not None and lake.local_directory(path) == folder
        rows = rows_in(folder)
        texts = ("prompt", "chosen", "rejected")
        hashed = [pl.col(name).hash().cast(pl.String) for name in texts]
        lists = [pl.col(name).list.join("\x00").hash().cast(pl.String) for name in ("policy", "criteria")]
        self.rows = rows.select(
            "pair_id", "query_id", *_SLOT, "media_sha256", "start_s", "end_s",
            *(name for name in _REASONS if name not in (*texts, "policy", "criteria")), *hashed, *lists,
        )  # fmt: skip
        self.kept_out = read_kept_out(folder)
        self.clips = set(self.rows["clip_id"]) | set(self.kept_out["clip_id"])


def _folder(lake: Lake, word: str) -> Path:
    path = Path(word)
    is_release = (path / RECORD).is_file() or (path / LINES).is_file()
    return path if is_release else release_folder(lake, word)


def _match(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Ids of the pairs that belong together: `before` and `pair_id`."""
    found = []
    for on in (["pair_id"], ["query_id"], _SLOT):
        left, right = (rows.filter(pl.len().over(on) == 1).drop_nulls(on) for rows in (one, other))
        left = left.select(pl.col("pair_id").alias("before"), *on)
        pairs = left.join(right, on=on).select("before", "pair_id")
        found.append(pairs)
        one = one.join(pairs, left_on="pair_id", right_on="before", how="anti")
        other = other.join(pairs, on="pair_id", how="anti")
    return pl.concat(found)


def _compared(matched: pl.DataFrame, one: _Side, other: _Side) -> tuple[int, pl.DataFrame]:
    """The number of matched pairs with equal rows, and the others with their reasons."""
    both = (
        matched.join(other.rows, on="pair_id", how="left")
        .join(one.rows.rename({"pair_id": "before"}), on="before", how="left", suffix="_before")
        .with_columns(
            pl.col(name).ne_missing(pl.col(f"{name}_before")).alias(f"{name}_differs") for name in _REASONS
        )
    )
    # A folder of an earlier version holds no request keys.
    both = both.with_columns(
        (
            pl.col(f"{name}_differs") & pl.col(name).is_not_null() & pl.col(f"{name}_before").is_not_null()
        ).alias(f"{name}_differs")
        for name in _KEYS
    )
    if not (one.record.subcategories and other.record.subcategories):
        both = both.with_columns(taxonomy_hash_differs=pl.lit(False))
    differs = {name: pl.col(f"{name}_differs") for name in _REASONS}
    reason = pl.coalesce(pl.when(found).then(pl.lit(_REASONS[name])) for name, found in differs.items())
    names = [pl.when(found).then(pl.lit(name)) for name, found in differs.items()]
    detail = pl.concat_str(names, separator=", ", ignore_nulls=True)
    both = both.with_columns(reason=reason, detail=detail, change=pl.lit("changed"))
    both = both.with_columns(
        reason=pl.when(pl.col("reason").is_null() & (pl.col("pair_id") != pl.col("before")))
        .then(pl.lit("other: the row has another id"))
        .otherwise("reason")
    )
    changed = both.filter(pl.col("reason").is_not_null())
    return both.height - changed.height, changed


def _added(new: pl.DataFrame, one: _Side, other: _Side) -> pl.DataFrame:
    """Pairs of the second release that the first does not have, with their reasons."""
    before = dict(one.kept_out.select("pair_id", "kind").iter_rows())
    reasons = [
        ("clip: it is new", ~pl.col("clip_id").is_in(list(one.clips))),
        *_taxonomy_reasons(one, other, "new"),
        *_kept_out_reasons(before, "was kept out before"),
        ("model: another model", _by_other_models(one)),
        ("query: it is new", pl.lit(True)),
    ]
    return _with_reasons(new, "added", reasons)


def _dropped(lake: Lake, gone: pl.DataFrame, one: _Side, other: _Side) -> pl.DataFrame:
    """Pairs of the first release that the second does not have, with their reasons."""
    withdrawn = read_withdrawn(lake).among(gone)["pair_id"]
    now = dict(other.kept_out.select("pair_id", "kind").iter_rows())
    verdicts = _verdicts(lake, gone) if other.is_current else {}
    reasons = [
        ("clip: it was withdrawn", pl.col("pair_id").is_in(withdrawn.implode())),
        *_kept_out_reasons(now, "is kept out now"),
        ("clip: it has no pair any more", ~pl.col("clip_id").is_in(list(other.clips))),
        *_taxonomy_reasons(one, other, "gone"),
        *_reasons_by(verdicts, "query_id"),
        ("model: another model", _by_other_models(other)),
        ("query: it is not made any more", pl.lit(True)),
    ]
    return _with_reasons(gone, "dropped", reasons)


def _by_other_models(side: _Side) -> pl.Expr:
    """Whether a model wrote the pair that wrote none of a release."""
    names = ("chosen_model", "rejected_model")
    return pl.any_horizontal(~pl.col(name).is_in(side.rows[name].unique().implode()) for name in names)


def _with_reasons(rows: pl.DataFrame, change: str, reasons: list[tuple[str, pl.Expr]]) -> pl.DataFrame:
    """Rows with the first reason whose condition holds."""
    nothing = pl.lit(None, pl.String)
    return rows.with_columns(
        pl.coalesce(pl.when(condition).then(pl.lit(reason)) for reason, condition in reasons).alias("reason"),
        pl.lit(change).alias("change"),
        nothing.alias("before"),
        nothing.alias("detail"),
    )


def _taxonomy_reasons(one: _Side, other: _Side, there: str) -> list[tuple[str, pl.Expr]]:
    """Reasons by the subcategory; none if a release does not say what its subcategories were."""
    old, new = one.record.subcategories, other.record.subcategories
    if not old or not new:
        return []
    only = set(new) - set(old) if there == "new" else set(old) - set(new)
    edited = [name for name in set(old) & set(new) if old[name] != new[name]]
    return [
        (f"taxonomy: the subcategory is {there}", pl.col("subcategory").is_in(list(only))),
        (_REASONS["taxonomy_hash"], pl.col("subcategory").is_in(edited)),
    ]


def _kept_out_reasons(kinds: Mapping[str, str], words: str) -> list[tuple[str, pl.Expr]]:
    return _reasons_by({pair: f"release: {words}: {kind}" for pair, kind in kinds.items()}, "pair_id")


def _reasons_by(reasons: Mapping[str, str], column: str) -> list[tuple[str, pl.Expr]]:
    """Reasons that are known by the value of a column."""
    values: dict[str, list[str]] = {}
    for value, reason in reasons.items():
        values.setdefault(reason, []).append(value)
    return [(reason, pl.col(column).is_in(some)) for reason, some in sorted(values.items())]


def _verdicts(lake: Lake, gone: pl.DataFrame) -> dict[str, str]:
    """Query -> why the pairs' stage makes no pair of it now."""
    outcomes = lake.outcomes(PAIRS.name).filter(
        (pl.col("outcome") != "ok") & pl.col("input_id").is_in(gone["query_id"].implode())
    )
    return {
        query: _OF_WITHDRAWN
        if reason.startswith("withdrawn on ")
        else f"filter: {outcome}: {reason.partition(':')[0]}"
        for query, outcome, reason in outcomes.select("input_id", "outcome", "reason").iter_rows()
    }


def _settings(one: _Side, other: _Side) -> dict[str, tuple[Any, Any]]:
    """Settings, models and the taxonomy as far as they differ."""
    found: dict[str, tuple[Any, Any]] = {}
    old, new = one.record, other.record
    for name in sorted({*old.settings, *new.settings} if old.settings and new.settings else ()):
        found[f"datasets.{name}"] = old.settings.get(name), new.settings.get(name)
    if old.taxonomy and new.taxonomy:
        found["taxonomy"] = old.taxonomy, new.taxonomy
    for name in ("chosen_model", "rejected_model", "pair_judge"):
        values = (side.rows[name].drop_nulls().unique().sort().to_list() for side in (one, other))
        found[name] = next(values), next(values)
    return {name: values for name, values in found.items() if values[0] != values[1]}


def _named(record: ReleaseRecord) -> dict[str, Any]:
    return {name: asdict(record)[name] for name in ("release", "version", "parent", "pairs", "kept_out")}
