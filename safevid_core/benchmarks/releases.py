"""Releases of benchmarks: known by the hash of their items, never edited, never compared with each other.

The table of a benchmark made here holds the release in use. Every release is kept beside it, under its
hash, and stays in use whatever becomes of the corpus: another one is drawn only where the settings ask for
it in `evaluation.releases`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import BENCHMARK_RELEASES, Table
from safevid_core.datasets.successors import benchmark_release_id
from safevid_core.settings import NEW_RELEASE
from safevid_core.stages.stage import Plan, Tools
from safevid_core.storage.lake import (
    WHOLE,
    Lake,
    Manifest,
    audit_partition,
    check_conservation,
    stage_fingerprint,
)
from safevid_core.storage.seals import refuse, seals_of_partition

# In place of a release's hash: draw one from the corpus as it is now.
_RELEASE = "release"  # the input that names the release, beside what it was drawn from


def as_release(table: Table, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The items by id, each with the release that they are together."""
    ordered = sorted(({**item} for item in items), key=lambda item: str(item["item_id"]))
    release = benchmark_release_id(table, ordered)
    return [{**item, "release": release} for item in ordered]


def plan_release(tools: Tools, table: Table, draw: Plan) -> Plan:
    """The plan of the release that the settings name; without a name of the one in use, else of a draw.

    Args:
        draw: What a draw would be made from, and how: items as of :func:`as_release`, an outcome for each
            plan id, and what there is to say of them.

    Raises:
        BenchmarkError: If the settings name a release that the lake does not have.
        LakeError: If a kept release is not as it was committed.
    """
    lake, named = tools.lake, tools.settings.evaluation.releases.items()
    wanted = next((release for benchmark, release in named if benchmark == table.name), None)
    in_use = keep_release(lake, table)
    release = in_use if wanted is None else wanted
    if release is not None and release != NEW_RELEASE:
        return plan_kept_release(lake, table, release, draw.inputs)

    def on_fresh() -> None:
        keep_release(lake, table)

    return replace(draw, on_fresh=on_fresh)


def stays_in_use(tools: Tools, table: Table) -> bool:
    """Whether a release was drawn and the settings ask for no new one."""
    named = {str(name): release for name, release in tools.settings.evaluation.releases.items()}
    return bool(kept_releases(tools.lake, table)) and named.get(table.name) != NEW_RELEASE


def refuse_unanswered(benchmark: str, spent: Mapping[str, Any]) -> None:
    """Stop a draw in which questions went unanswered: a release is for ever.

    Args:
        spent: As of :func:`safevid_core.models.teacher.spend_info`.

    Raises:
        BenchmarkError: With their number.
    """
    if spent["unanswered"]:
        raise BenchmarkError(
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
        BenchmarkError: If the lake does not have it.
        LakeError: If it is not as it was committed.
        WithdrawnError: If it holds items about withdrawn clips. Its successor is another release.
    """
    partition = _partition(table, release)
    manifest = lake.manifest(BENCHMARK_RELEASES.name, partition)
    if manifest is None:
        kept = ", ".join(kept_releases(lake, table)) or "none"
        raise BenchmarkError(
            f"{table.name} has no release {release!r} in this lake (it has: {kept}); set "
            f"evaluation.releases.{table.name} to one of them, or to {NEW_RELEASE}"
        )
    refuse(seals_of_partition(lake, BENCHMARK_RELEASES.name, partition), f"release {release} of {table.name}")
    audit_partition(lake, BENCHMARK_RELEASES, partition)
    missing = set(table.schema) - set(lake.read(BENCHMARK_RELEASES, partition).columns)
    if missing:
        raise BenchmarkError(
            f"{table.name}: release {release} was drawn by an earlier version, whose items have no "
            f"{', '.join(sorted(missing)[:3])}; it is kept and cannot be asked: set "
            f"evaluation.releases.{table.name} to {NEW_RELEASE}, or use the version that drew it"
        )
    outcomes = [tuple(row) for row in lake.outcomes(BENCHMARK_RELEASES.name, partition).iter_rows()]
    return StageRows(lake.read(BENCHMARK_RELEASES, partition), outcomes, manifest.info)


def plan_kept_release(
    lake: Lake, table: Table, release: str, drawn_from: Mapping[str, str] | None = None
) -> Plan:
    """The plan by which a kept release is the one in use; it tells which inputs of the draw have changed.

    Args:
        drawn_from: What a draw would depend on now. Defaults to what was known when the table was committed.
    """
    current = lake.manifest(table.name, WHOLE)
    now = dict(drawn_from if drawn_from is not None else current.inputs if current else {})
    now.pop(_RELEASE, None)
    as_drawn = current is not None and current.inputs == now and current.info.get("release") == release
    kept = read_release(lake, table, release)

    def make(plan_ids: Sequence[str]) -> StageRows:
        return StageRows(kept.rows, kept.outcomes, {**kept.info, **_changes(lake, table, release, now)})

    ids = [plan_id for plan_id, _, _ in kept.outcomes]
    return Plan({**now, _RELEASE: release}, ids, make, pinned=as_drawn)


def use_release(lake: Lake, table: Table, release: str) -> Manifest:
    """Make a kept release the one in use; it tells which inputs of the draw have changed since.

    Raises:
        BenchmarkError: If the lake has no such release.
        LakeError: If it is not as it was committed.
    """
    current = lake.manifest(table.name, WHOLE)
    plan = plan_kept_release(lake, table, release)
    if plan.pinned and current is not None:
        return current
    rows = plan.make(plan.units)
    check_conservation(table, rows, plan.units)
    fingerprint = stage_fingerprint(lake, table, plan.inputs)
    return lake.commit(table, WHOLE, rows, fingerprint, plan.inputs)


def release_of(lake: Lake, asset: str, partition: str) -> str | None:
    """The release that answers or verdicts are of; None where their record does not say."""
    manifest = lake.manifest(asset, partition)
    return None if manifest is None else manifest.inputs.get(_RELEASE)


def refuse_other_release(benchmark: str, releases: Mapping[str, str | None]) -> None:
    """Stop where things that are to be compared are of different releases; an unknown one is let pass.

    Args:
        releases: What is compared, in words -> its release.

    Raises:
        BenchmarkError: Naming two of them, and both releases.
    """
    known = [(what, release) for what, release in releases.items() if release is not None]
    for what, release in known[1:]:
        first, other = known[0]
        if release != other:
            raise BenchmarkError(
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
        f"evaluation.releases.{table.name} to {NEW_RELEASE} for one drawn from the corpus as it is now"
    )
    return {"changed_since": changed, "corpus_changed": note if changed else ""}
