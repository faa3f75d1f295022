"""Queries in four steps, as published (section 3.1 of the paper).

1. The asker walks the taxonomy for each clip (:mod:`safevid_core.queries.plan`).
2. It writes several candidates for each cell of the plan (:mod:`safevid_core.queries.candidates`).
3. A second model, the rater, rates them (:mod:`safevid_core.queries.rating`).
4. The best candidate is kept (:mod:`safevid_core.queries.asking`). The text of a kept implicit query is also
   asked of the clip's twins, with an intent of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from functools import cache, partial

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.rows import DescribedClip, rows_of
from safevid_core.descriptions.tracks import TrackOf, stages_of_tracks
from safevid_core.estimates.budget import BUDGET
from safevid_core.models.refusals import FEW_REFUSALS, refusal_info
from safevid_core.models.rehearsal import Rehearsal
from safevid_core.models.teacher import teacher_hash
from safevid_core.queries.asking import Asking, ask_queries
from safevid_core.queries.candidates import (
    task_of,
)
from safevid_core.queries.cells import PlanCell
from safevid_core.queries.plan import read_plan, training_clips
from safevid_core.queries.prompts import RATE, RATE_BLIND
from safevid_core.queries.rating import (
    require_other_family,
)
from safevid_core.queries.styles import style_definitions
from safevid_core.settings import Settings, TextModel
from safevid_core.stages.stage import ExpectedRows, Forecast, Plan, Questions, Tools
from safevid_core.storage.lake import frame_hash, settings_hash
from safevid_core.taxonomy.taxonomy import Taxonomy, load_taxonomy

_RATINGS_A_CELL = 2


def plan_taxonomy_queries(track_of: TrackOf, tools: Tools, partition: str) -> Plan:
    """Plan the queries of a committed query plan.

    Args:
        track_of: Tells from which descriptions a partition's queries are made, and where the rows go.

    Raises:
        RaterError: If the rater is of the asker's family.
    """
    settings, lake, track = tools.settings, tools.lake, track_of(partition)
    taxonomy = load_taxonomy(settings)
    require_other_family(settings.queries)
    frame = training_clips(lake, partition, track)
    clips = rows_of(frame, DescribedClip)
    cells = read_plan(lake, track.plan, partition)

    def make(plan_ids: Sequence[str]) -> StageRows:
        asked = ask_queries(cells, clips, settings, taxonomy, tools.gateway, asset=track.queries.name)
        refused = refusal_info(asked.outcomes, {cell.plan_id: cell.subcategory for cell in cells})
        return StageRows(track.queries.frame(asked.rows), asked.outcomes, asked.info | refused)

    inputs = {
        "descriptions": frame_hash(frame),
        "plan": plan_hash(cells),
        **query_inputs(settings, taxonomy, described=track.described),
    }

    asked = questions_of(cells, clips, settings, taxonomy)
    return Plan(inputs, [cell.plan_id for cell in cells], make, asked)


def plan_hash(cells: Sequence[PlanCell]) -> str:
    """Hash of the cells, for the inputs of a stage."""
    return settings_hash([(cell.plan_id, cell.ground) for cell in cells])


def query_inputs(settings: Settings, taxonomy: Taxonomy, *, described: bool = True) -> dict[str, str]:
    """Everything on which queries depend beside the plan and the descriptions, for a stage's inputs."""
    queries = settings.queries
    least = (queries.min_strength, queries.min_groundedness, queries.min_fit, queries.min_needs_video)
    definitions = style_definitions(queries)
    return {
        "asker": teacher_hash(queries.asker, task_of(described)),
        "rater": teacher_hash(queries.rater, RATE + RATE_BLIND),
        "queries": settings_hash(queries.candidates, definitions, *least),
        "taxonomy": taxonomy.hash,
    }


def questions_of(
    cells: Sequence[PlanCell], clips: Sequence[DescribedClip], settings: Settings, taxonomy: Taxonomy
) -> tuple[Questions, Questions]:
    """The questions of a plan to the asker and to the rater.

    The stage is rehearsed with the answers that the ledger has. A cell whose candidates are not written yet
    counts two questions to the rater. A mirrored cell counts three questions until it is known whether the
    query of the twin is kept.
    """
    queries = settings.queries

    @cache
    def rehearsed() -> tuple[Rehearsal, int, int]:
        with closing(Rehearsal(settings)) as rehearsal:
            asking = Asking(clips, queries, taxonomy, rehearsal, "")
            asking.ask_all(cells)
        unrated, unasked = asking.left_open
        return rehearsal, unasked, _RATINGS_A_CELL * (unrated + unasked)

    def keys_of(model: TextModel) -> Callable[[], Collection[str]]:
        return lambda: rehearsed()[0].keys[model]

    return (
        Questions(queries.asker, len(cells), keys_of(queries.asker), lambda answered: ((), rehearsed()[1])),
        Questions(
            queries.rater,
            _RATINGS_A_CELL * len(cells),
            keys_of(queries.rater) if queries.rater != queries.asker else lambda: (),
            lambda answered: ((), rehearsed()[2]),
        ),
    )


# ----------------------------------------------------------------------------------------- the stages


def _forecast(plan: str, tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    """A query for each cell of the plan."""
    queries, cells = tools.settings.queries, rows(plan, partition)
    return Forecast(
        cells, (Questions(queries.asker, cells), Questions(queries.rater, _RATINGS_A_CELL * cells))
    )


STAGES = stages_of_tracks(
    lambda track: track.queries,
    "queries",
    (
        "Queries on the training clips of a scene: the best of several candidates, rated by a second model.",
        "Queries on the same clips by a teacher that is told nothing of them: for an ablation.",
        "Queries from descriptions that lost a detail: for ablations.",
    ),
    plan_taxonomy_queries,
    reads=lambda track: (track.plan.name, track.descriptions.name),
    forecast=lambda track: partial(_forecast, track.plan.name),
    asks=True,
    gates=(BUDGET,),
    checks=(FEW_REFUSALS,),
)
