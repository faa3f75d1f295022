"""Releases of benchmarks: known by the hash of their items, never edited, never compared with each other.

The table of a benchmark made here holds the release in use. Every release is kept beside it, under its
hash, and stays in use whatever becomes of the corpus: another one is drawn only where the settings ask for
it in `evaluation.releases`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from safevid_core.evaluation.systems import EvaluationError
from safevid_core.lake import WHOLE, Lake, StageReport, audit_partition, frame_hash, run_stage
from safevid_core.records import BENCHMARK_RELEASES, DESCRIPTIONS, StageRows, Table
from safevid_core.settings import Settings

# In place of a release's hash: draw one from the corpus as it is now.
NEW = "new"
# Where a file lies and which call wrote a query do not make another release.
_NOT_IN_RELEASE = ("release", "path", "request_key")
_RELEASE = "release"  # the input that names the release, beside what it was drawn from


def as_release(table: Table, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items by id, each with the release that they are together."""
    ordered = sorted(({**item} for item in items), key=lambda item: str(item["item_id"]))
    release = frame_hash(table.frame(ordered).drop(_NOT_IN_RELEASE))[:16]
    return [{**item, "release": release} for item in ordered]


def make_release(
    settings: Settings,
    lake: Lake,
    table: Table,
    drawn_from: Mapping[str, str],
    plan_ids: Sequence[str],
    draw: Callable[[], StageRows],
) -> StageReport:
    """Commit the release that the settings name; without a name the one in use, drawn if there is none.

    Args:
        drawn_from: What a draw depends on, by name, as hashes.
        plan_ids: The ids that a draw must account for.
        draw: Items as of :func:`as_release`, an outcome for each plan id, and what there is to say of them.

    Raises:
        EvaluationError: If the settings name a release that the lake does not have.
        LakeError: If a draw does not conserve its rows, or a kept release is not as it was committed.
    """
    named = settings.evaluation.releases.items()
    wanted = next((release for benchmark, release in named if benchmark == table.name), None)
    in_use = keep_release(lake, table)
    release = in_use if wanted is None else wanted
    if release is not None and release != NEW:
        return use_release(lake, table, release, drawn_from)
    report = run_stage(lake, table, WHOLE, drawn_from, plan_ids, draw)
    keep_release(lake, table)
    return report


def refuse_unanswered(benchmark: str, spent: Mapping[str, Any]) -> None:
    """Stop a draw in which questions went unanswered: a release is for ever.

    Args:
        spent: As of :func:`safevid_core.models.teacher.spend_info`.

    Raises:
        EvaluationError: With their number.
    """
    if spent["unanswered"]:
        raise EvaluationError(
            f"{benchmark}: {spent['unanswered']} questions found no model that answers, so nothing is drawn; "
            "the answers so far are in the ledger; see the models' providers and run again"
        )


def keep_release(lake: Lake, table: Table) -> str | None:
    """Keep the release in use under its hash, unless that was done before; None where none is in use."""
    manifest = lake.manifest(table.name, WHOLE)
    if manifest is None or manifest.rows == 0:
        return None
    items = lake.read(table, WHOLE)
    if not set(table.schema) <= set(items.columns):
        return None  # items of an earlier version of the table, which nobody can ask any more
    release = str(items["release"][0])
    outcomes = [tuple(row) for row in lake.outcomes(table.name, WHOLE).iter_rows()]
    commit_release(
        lake, table, release, StageRows(items, outcomes, manifest.info), manifest.inputs, manifest.seconds
    )
    return release


def commit_release(
    lake: Lake,
    table: Table,
    release: str,
    stage: StageRows,
    drawn_from: Mapping[str, str],
    seconds: float = 0.0,
) -> None:
    """Write a release under its hash; one that is there already is left as it is."""
    partition = _partition(table, release)
    if lake.manifest(BENCHMARK_RELEASES.name, partition) is None:
        lake.commit(BENCHMARK_RELEASES, partition, stage, release, drawn_from, seconds)


def kept_releases(lake: Lake, table: Table) -> list[str]:
    """Hashes of the benchmark's releases in this lake, the oldest first."""
    found = []
    for partition in lake.partitions(BENCHMARK_RELEASES.name):
        name, _, release = partition.rpartition("@")
        manifest = lake.manifest(BENCHMARK_RELEASES.name, partition)
        if name == table.name and manifest is not None:
            found.append((manifest.committed_at, release))
    return [release for _, release in sorted(found)]


def read_release(lake: Lake, table: Table, release: str) -> StageRows:
    """A kept release: its items, the outcome of each plan cell, and what there is to say of it.

    Raises:
        EvaluationError: If the lake does not have it.
        LakeError: If it is not as it was committed.
    """
    partition = _partition(table, release)
    manifest = lake.manifest(BENCHMARK_RELEASES.name, partition)
    if manifest is None:
        kept = ", ".join(kept_releases(lake, table)) or "none"
        raise EvaluationError(
            f"{table.name} has no release {release!r} in this lake (it has: {kept}); set "
            f"evaluation.releases.{table.name} to one of them, or to {NEW}"
        )
    audit_partition(lake, BENCHMARK_RELEASES, partition)
    outcomes = [tuple(row) for row in lake.outcomes(BENCHMARK_RELEASES.name, partition).iter_rows()]
    return StageRows(lake.read(BENCHMARK_RELEASES, partition), outcomes, manifest.info)


def use_release(
    lake: Lake, table: Table, release: str, drawn_from: Mapping[str, str] | None = None
) -> StageReport:
    """Make a kept release the one in use, and say what it was drawn from that is no longer so.

    Args:
        drawn_from: What a draw would depend on now. Defaults to what was known when the table was committed.
    """
    current = lake.manifest(table.name, WHOLE)
    now = dict(drawn_from if drawn_from is not None else current.inputs if current else {})
    now.pop(_RELEASE, None)
    if current is not None and current.inputs == now and current.info.get("release") == release:
        return StageReport(current, False, 0.0)
    kept = read_release(lake, table, release)

    def compute() -> StageRows:
        items = _where_they_lie(lake, kept.rows)
        return StageRows(items, kept.outcomes, {**kept.info, **_changes(lake, table, release, now)})

    ids = [plan_id for plan_id, _, _ in kept.outcomes]
    return run_stage(lake, table, WHOLE, {**now, _RELEASE: release}, ids, compute)


def release_of(lake: Lake, asset: str, partition: str) -> str | None:
    """The release that answers or verdicts are of; None where their record does not say."""
    manifest = lake.manifest(asset, partition)
    return None if manifest is None else manifest.inputs.get(_RELEASE)


def refuse_other_release(benchmark: str, releases: Mapping[str, str | None]) -> None:
    """Stop where things that are to be compared are of different releases; an unknown one is let pass.

    Args:
        releases: What is compared, in words -> its release.

    Raises:
        EvaluationError: Naming two of them, and both releases.
    """
    known = [(what, release) for what, release in releases.items() if release is not None]
    for what, release in known[1:]:
        first, other = known[0]
        if release != other:
            raise EvaluationError(
                f"{benchmark}: {first} is of release {other} and {what} of release {release}, and figures of "
                "different releases do not compare; ask and judge both on one release (materialise "
                "benchmark_responses and benchmark_scores of what is behind)"
            )


def _partition(table: Table, release: str) -> str:
    return f"{table.name}@{release}"


def _changes(lake: Lake, table: Table, release: str, now: Mapping[str, str]) -> dict[str, Any]:
    """What the release was drawn from that has another hash now."""
    manifest = lake.manifest(BENCHMARK_RELEASES.name, _partition(table, release))
    drawn_from = manifest.inputs if manifest else {}
    changed = sorted(
        name for name in {*drawn_from, *now} - {_RELEASE} if drawn_from.get(name) != now.get(name)
    )
    note = (
        f"release {release} stays as it was drawn, though its {', '.join(changed)} changed since; set "
        f"evaluation.releases.{table.name} to {NEW} for one drawn from the corpus as it is now"
    )
    return {"changed_since": changed, "corpus_changed": note if changed else ""}


def _where_they_lie(lake: Lake, items: pl.DataFrame) -> pl.DataFrame:
    """The items, the path of each clip as the corpus has it now; of a clip that left it, the last known."""
    paths = dict(lake.scan(DESCRIPTIONS).select("clip_id", "path").collect().iter_rows())
    places = [paths.get(clip_id) or path for clip_id, path in items.select("clip_id", "path").iter_rows()]
    return items.with_columns(pl.Series("path", places, dtype=pl.String))
