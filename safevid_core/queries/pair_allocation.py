"""The stage `pair_allocation`: the pairs of `datasets.target_pairs`, distributed over the strata of the plan.

The even portion of a stratum follows from the clips of its scene, from `queries.mix` and from
`queries.styles`. How many clips have ground for it, and how many of its queries become pairs, is expected by
the settings. In a later round (`datasets.allocation.round`) the table `pair_yield` tells both, as measured.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import PAIR_ALLOCATION, PAIR_YIELD, QUERY_PLAN, VIDEO_CORPUS
from safevid_core.corpus.selection import expected_clips
from safevid_core.queries.allocation import Allocation, allocate
from safevid_core.queries.allocation_program import AllocationError, Problem, Stratum
from safevid_core.queries.styles import IMPLICIT
from safevid_core.settings import QuerySettings, Settings
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake, frame_hash, settings_hash
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy

# (subcategory, style, benign) -> queries to be asked in a scene.
Asked = Mapping[tuple[str, str, bool], int]

# The input of a query plan that names what the allocation asks in its scene.
ALLOCATED = "allocation"
_MEASURED = "measured"
_PRIOR = 20.0  # queries of the next wider group that a measured share is averaged with
_LEAST_SURVIVAL = 0.05


def plan_pair_allocation(tools: Tools, partition: str) -> Plan:
    """Plan to allocate the target.

    A committed allocation stays while only the measured shares change, so that a run does not change its own
    plan.

    Raises:
        AllocationError: If there is no target.
    """
    settings, lake = tools.settings, tools.lake
    if settings.datasets.target_pairs is None:
        raise AllocationError(
            "datasets.target_pairs is not set, so that there is nothing to allocate; set it"
        )
    clips, measured = _clips(tools), _measured(lake)
    inputs = _inputs(settings, clips, measured)

    def make(scenes: Sequence[str]) -> StageRows:
        problem, found = _solved(settings, clips, measured, inputs)
        outcomes: list[tuple[str, Outcome, str]] = [
            (scene, "ok", "") if clips[scene] else (scene, "filtered", "the scene has no training clip")
            for scene in scenes
        ]
        return StageRows(_frame(problem, found), outcomes, _info(problem, found, settings))

    return Plan(inputs, list(clips), make, pinned=_stands(lake, inputs))


def asked_in(lake: Lake, scene: str) -> Asked:
    """The queries that the committed allocation asks in a scene.

    Raises:
        AllocationError: If no allocation is committed.
    """
    if lake.manifest(PAIR_ALLOCATION.name) is None:
        raise AllocationError("pair_allocation is not made yet; make it with `safevid run pair_allocation`")
    rows = (
        lake.scan(PAIR_ALLOCATION)
        .filter((pl.col("scene") == scene) & (pl.col("asked") > 0))
        .select(
            "subcategory",
            "style",
            (pl.col("principle") == "harmless") & (pl.col("expectation") == "answer"),
            "asked",
        )
        .collect()
    )
    return {(subcategory, style, benign): asked for subcategory, style, benign, asked in rows.iter_rows()}


def asked_hash(settings: Settings, asked: Asked) -> str:
    """Names the queries that are asked in a scene: the input :data:`ALLOCATED` of its query plan."""
    most = settings.datasets.allocation.queries_per_clip
    return settings_hash(sorted([*key, number] for key, number in asked.items()), most)


def scenes_of_other_plans(tools: Tools) -> list[str]:
    """Scenes whose committed query plan was made without the committed allocation, or for another one."""
    lake, found = tools.lake, []
    for scene in BY_SCENE.names(tools.settings):
        plan = lake.manifest(QUERY_PLAN.name, scene)
        if plan is None or not plan.rows:
            continue
        current = asked_hash(tools.settings, asked_in(lake, scene))
        if "walked" not in plan.info or plan.inputs.get(ALLOCATED, current) != current:
            found.append(scene)
    return found


def plans_to_be_made(tools: Tools) -> str:
    """Why an estimate does not price the target yet. Empty if it does, or if there is none.

    The stages after `query_plan` are counted from the committed plans. Plans for another target, or for none,
    say nothing about this one.
    """
    if tools.settings.datasets.target_pairs is None:
        return ""
    computed = _computed(tools)
    planned = (tools.lake.manifest(QUERY_PLAN.name, scene) for scene in BY_SCENE.names(tools.settings))
    others = sum(each is not None and each.rows > 0 for each in planned)
    if computed is None:
        others = len(scenes_of_other_plans(tools))
    if not others:
        return ""
    queries = sum(expected_queries(tools, scene) for scene in BY_SCENE.names(tools.settings))
    return (
        f"the query plans of {others} scenes are not of this target, and the stages after query_plan are "
        f"counted from them; the target needs {queries:,} queries; `safevid run query_plan --upstream` plans "
        "them"
    )


def expected_queries(tools: Tools, scene: str) -> int:
    """The queries that the allocation asks in a scene. If it is not committed, it is computed now.

    Raises:
        AllocationError: If the target cannot be met, and `datasets.shortage` says to refuse it.
    """
    computed = _computed(tools)
    if computed is None:
        return sum(asked_in(tools.lake, scene).values())
    problem, found = computed
    return sum(
        int(asked)
        for stratum, asked in zip(problem.strata, found.asked, strict=True)
        if stratum.scene == scene
    )


def expected_problems(tools: Tools) -> list[str]:
    """Why the target cannot be met, one line for each constraint. Empty if it can, or if there is none.

    Raises:
        AllocationError: If the target cannot be met, and `datasets.shortage` says to refuse it.
    """
    if tools.settings.datasets.target_pairs is None:
        return []
    computed, manifest = _computed(tools), tools.lake.manifest(PAIR_ALLOCATION.name)
    if computed is not None:
        return list(computed[1].problems)
    return [] if manifest is None else list(manifest.info["problems"])


def _computed(tools: Tools) -> tuple[Problem, Allocation] | None:
    """The allocation that a run would make. None if it is committed."""
    lake, clips = tools.lake, _clips(tools)
    measured = _measured(lake)
    inputs = _inputs(tools.settings, clips, measured)
    return None if _stands(lake, inputs) else _solved(tools.settings, clips, measured, inputs)


# The inputs of the last allocation, and the allocation. An estimate asks for it once for each scene.
_last: dict[tuple[tuple[str, str], ...], tuple[Problem, Allocation]] = {}


def _solved(
    settings: Settings, clips: Mapping[str, int], measured: pl.DataFrame, inputs: Mapping[str, str]
) -> tuple[Problem, Allocation]:
    """The allocation of these inputs. It is computed once.

    Raises:
        AllocationError: If the target cannot be met, and `datasets.shortage` says to refuse it.
    """
    key = tuple(inputs.items())
    if key not in _last:
        problem = problem_of(settings, load_taxonomy(settings), clips, measured)
        _last.clear()
        _last[key] = problem, allocate(problem)
    problem, found = _last[key]
    if found.problems and settings.datasets.shortage == "refuse":
        raise AllocationError(
            f"{'; '.join(found.problems)}. Change these settings, or set datasets.shortage to report"
        )
    return problem, found


def _clips(tools: Tools) -> dict[str, int]:
    """Scene -> number of its training clips, or an upper bound if its corpus is not committed."""
    return {scene: expected_clips(tools, scene)[1] for scene in BY_SCENE.names(tools.settings)}


def _measured(lake: Lake) -> pl.DataFrame:
    """What an earlier round gave: a row for each stratum. Empty if there was none."""
    columns = ("stratum_id", "clips", "grounded", "planned_queries", "released")
    return lake.scan(PAIR_YIELD).select(columns).sort("stratum_id").collect()


def _inputs(settings: Settings, clips: Mapping[str, int], measured: pl.DataFrame) -> dict[str, str]:
    queries, datasets = settings.queries, settings.datasets
    return {
        "clips": settings_hash(dict(clips)),
        "allocation": settings_hash(datasets.target_pairs, datasets.allocation, datasets.shortage),
        "queries": settings_hash(queries.mix, queries.styles),
        "taxonomy": load_taxonomy(settings).hash,
        _MEASURED: frame_hash(measured),
    }


def _stands(lake: Lake, inputs: Mapping[str, str]) -> bool:
    """Whether the committed allocation is the one of these inputs, whatever was measured since."""
    manifest = lake.manifest(PAIR_ALLOCATION.name, WHOLE)
    return manifest is not None and all(
        manifest.inputs.get(name) == value for name, value in inputs.items() if name != _MEASURED
    )


# -------------------------------------------------------------------------------------------- the problem


class _Kind(NamedTuple):
    """Strata of one principle, style and expectation, with their share of the target."""

    principle: str
    style: str
    expectation: str
    share: float


def problem_of(
    settings: Settings, taxonomy: Taxonomy, clips: Mapping[str, int], measured: pl.DataFrame
) -> Problem:
    """The allocation that the settings ask for.

    Args:
        clips: Scene -> number of training clips.
        measured: Rows of `pair_yield`. Empty if nothing was measured.
    """
    allocation, target = settings.datasets.allocation, settings.datasets.target_pairs
    assert target is not None
    kinds = list(_kinds(settings.queries, taxonomy, allocation.benign_share))
    every = sum(clips.values())
    strata, shares = [], []
    for scene, number in clips.items():
        for kind in kinds:
            some = taxonomy.of_principle(kind.principle)
            for each in some if number else ():
                strata.append(
                    Stratum(scene, kind.principle, each.dimension, each.id, kind.style, kind.expectation)
                )
                shares.append(kind.share / len(some) * number / every)
    seen = {row[0]: row[1:] for row in measured.iter_rows()}
    grounded = [_grounded(stratum, clips[stratum.scene], seen, settings) for stratum in strata]
    survival = _survival(strata, seen, allocation.survival)
    return Problem.of(target, strata, shares, grounded, survival, clips, allocation)


def _kinds(queries: QuerySettings, taxonomy: Taxonomy, benign: float) -> Iterable[_Kind]:
    """The principles by `queries.mix`, the styles by `queries.styles`. The shares sum to 1."""
    mix = Counter(queries.mix)
    weights = {
        "harmless": mix["implicit"] + mix["harmful"] + mix["benign"],
        "honest": mix["premise"],
        "helpful": mix["question"],
    }
    weights = {name: weight for name, weight in weights.items() if weight and taxonomy.of_principle(name)}
    if "harmless" in weights:
        implicit = mix["implicit"] / weights["harmless"]
        whole = sum(queries.styles.values())
        styles = {style: (1 - implicit) * share / whole for style, share in queries.styles.items()}
        for style, share in {IMPLICIT: implicit, **styles}.items():
            for expectation, side in (("refuse", 1 - benign), ("answer", benign)):
                if share * side > 0:
                    part = weights["harmless"] / sum(weights.values())
                    yield _Kind("harmless", style, expectation, part * share * side)
    for principle, expectation in (("honest", "correct"), ("helpful", "answer")):
        if principle in weights:
            yield _Kind(principle, "direct", expectation, weights[principle] / sum(weights.values()))


def _grounded(stratum: Stratum, clips: int, seen: Mapping[str, Any], settings: Settings) -> int:
    """The clips of a scene in which a stratum has ground: the measured share of them, or the expected one."""
    walked, grounded = seen.get(stratum.stratum_id, (0, 0))[:2]
    expected: Mapping[Any, float] = settings.datasets.allocation.ground_share
    return math.ceil((grounded / walked if walked else expected[stratum.principle]) * clips - 1e-9)


def _survival(strata: Sequence[Stratum], seen: Mapping[str, Any], expected: float) -> list[float]:
    """The expected share of each stratum's queries that become pairs of the release.

    A measured share is averaged with that of the next wider group, which counts like 20 queries: from the
    stratum to its subcategory and expectation, to its principle and expectation, to the setting. Example: a
    stratum without any query has the share of its subcategory.
    """
    queries: Counter[tuple[str, ...]] = Counter()
    released: Counter[tuple[str, ...]] = Counter()
    for stratum in strata:
        _, _, asked, made = seen.get(stratum.stratum_id, (0, 0, 0, 0))
        for group in _widening(stratum):
            queries[group] += asked
            released[group] += made
    out = []
    for stratum in strata:
        share = expected
        for group in reversed(_widening(stratum)):
            share = (released[group] + _PRIOR * share) / (queries[group] + _PRIOR)
        out.append(max(share, _LEAST_SURVIVAL))
    return out


def _widening(stratum: Stratum) -> tuple[tuple[str, ...], ...]:
    return (
        (stratum.stratum_id,),
        ("subcategory", stratum.subcategory, stratum.expectation),
        ("principle", stratum.principle, stratum.expectation),
    )


# -------------------------------------------------------------------------------------------- the table


def _frame(problem: Problem, found: Allocation) -> pl.DataFrame:
    clips = dict(problem.clips)
    taken: dict[int, list[str]] = {}
    given: dict[int, list[str]] = {}
    for refill in found.refills:
        short, neighbour = problem.strata[refill.short], problem.strata[refill.neighbour]
        taken.setdefault(refill.short, []).append(f"{neighbour.stratum_id}: {refill.pairs} ({refill.tier})")
        given.setdefault(refill.neighbour, []).append(f"{short.stratum_id}: {refill.pairs} ({refill.tier})")
    numbers = {
        "portion": found.portion, "floor": found.floor, "cap": found.cap, "capacity": found.capacity,
        "planned": found.planned, "asked": found.asked, "shortage": found.shortage,
    }  # fmt: skip
    return PAIR_ALLOCATION.frame(
        {
            "stratum_id": stratum.stratum_id,
            **stratum._asdict(),
            "clips": clips[stratum.scene],
            "grounded": problem.grounded[index],
            "survival": problem.survival[index],
            **{name: int(values[index]) for name, values in numbers.items()},
            "refilled_from": taken.get(index, []),
            "refilled_into": given.get(index, []),
        }
        for index, stratum in enumerate(problem.strata)
    )


def _info(problem: Problem, found: Allocation, settings: Settings) -> dict[str, Any]:
    clips = sum(number for _, number in problem.clips)
    harmless = [index for index, stratum in enumerate(problem.strata) if stratum.principle == "harmless"]
    benign = [index for index, stratum in enumerate(problem.strata) if stratum.benign]
    return {
        "round": settings.datasets.allocation.round,
        "target": problem.target,
        "planned": int(found.planned.sum()),
        "asked": int(found.asked.sum()),
        "shortage": int(found.shortage.sum()),
        "refilled": sum(refill.pairs for refill in found.refills),
        "clips": clips,
        "pairs_per_clip": round(float(found.planned.sum()) / clips, 2),
        "queries_per_clip": round(float(found.asked.sum()) / clips, 2),
        "benign_share": round(
            float(found.planned[benign].sum()) / max(int(found.planned[harmless].sum()), 1), 4
        ),
        "problems": list(found.problems),
    }


def if_allocated(stage: Stage, settings: Settings) -> Sequence[str]:
    """All partitions if the settings have a target, else none."""
    return () if settings.datasets.target_pairs is None else stage.partitions.names(settings)


STAGE = Stage(
    PAIR_ALLOCATION,
    "queries",
    "The pairs of the target by scene, subcategory, style and expectation, and the queries asked for them.",
    plan_pair_allocation,
    # `pair_yield` is made from this table, so it cannot be among the reads. It counts in a new round only.
    reads=(VIDEO_CORPUS.name,),
    wanted=if_allocated,
    # The clips of all scenes count, so that one scene alone does not get the whole target.
    made_from=lambda settings, partition: [(VIDEO_CORPUS.name, None)],
)
