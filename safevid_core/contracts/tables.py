"""The tables between the stages: one schema an artifact.

Every output row names the input that it was made from. The lake checks it when a stage commits
(:mod:`safevid_core.storage.lake`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from safevid_core.contracts.interrupts import let_waits_be_interrupted

let_waits_be_interrupted()


@dataclass(frozen=True)
class Table:
    """One artifact's contract.

    Attributes:
        name: The asset's name.
        key: Column that identifies an output row; unique within the table.
        parent: Column that names the input id each row was made from; None where many inputs make one row.
        schema: Columns and types, `profile` excluded: the lake stamps it on every row.
        version: Raised when the code changes what the rows mean; a raise recomputes the table.
        volatile: Columns, such as times, that the content hash leaves out.
    """

    name: str
    key: str
    parent: str | None
    schema: pl.Schema
    version: str = "1"
    volatile: tuple[str, ...] = ()

    def frame(self, rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
        """Rows as a frame of this schema; a missing column raises, an absent value is null."""
        rows = list(rows)
        unknown = {name for row in rows for name in row} - set(self.schema)
        if unknown:
            raise ValueError(f"{self.name}: columns {sorted(unknown)} are not in its schema")
        return pl.DataFrame(
            {name: [row.get(name) for row in rows] for name in self.schema}, schema=self.schema, strict=False
        )


def _schema(**columns: Any) -> pl.Schema:
    return pl.Schema(columns)


_S, _F, _I, _B = pl.String, pl.Float64, pl.Int64, pl.Boolean

# The rendered clips of each source of kind pocket.
POCKET_CLIPS = Table("pocket_clips", "source", "source", _schema(source=_S, scenes=_I, clips=_I))
# `source_row` names the file or manifest line that was read, relative to its source, as
# `sources[0]::park/a.mp4`. The media index says where the bytes of `media_sha256` are. `use` is method, or
# describe for a clip that neither trains nor is measured.
CLIP_MANIFEST = Table(
    "clip_manifest",
    "clip_id",
    "source_row",
    _schema(
        clip_id=_S, source_row=_S, source_id=_S, media_sha256=_S, start_s=_F, end_s=_F, duration_s=_F,
        fps=_F, width=_I, height=_I, frames=_I, codec=_S, origin=_S, file_name=_S,
        licence=_S, caption=_S, scene_hint=_S, twin_group=_S, use=_S,
    ),
    version="2",
    volatile=("source_row",),
)  # fmt: skip
# `near_copies` are all near-duplicates of the clip. `near_copy_of` is the first clip of its group of
# near-duplicates.
SCENE_ASSIGNMENTS = Table(
    "scene_assignments",
    "clip_id",
    "clip_id",
    _schema(
        clip_id=_S, source_id=_S, twin_group=_S, scene=_S, scene_score=_F, scene_margin=_F, low_margin=_B,
        near_copy_of=_S, near_copies=pl.List(pl.String), embedding=pl.List(pl.Float32), embedder=_S,
        scenes_hash=_S,
    ),
)  # fmt: skip
# `group_id` is the group with which a side was decided: one source video, its near-duplicates, its twins.
# `near_copy_of` is the clip that represents this one in the corpus.
CORPUS_SPLIT = Table(
    "corpus_split",
    "clip_id",
    "clip_id",
    _schema(clip_id=_S, source_id=_S, group_id=_S, split=_S, near_copy_of=_S),
)
# The permanent side of each source video, in numbered partitions that are written once. A clip has a row
# for every source, file and twin group that it was seen with. `benchmark_fraction` is null if the side comes
# from an earlier decision or table and not from the hash.
DECIDED_SIDES = Table(
    "decided_sides",
    "decision_id",
    "clip_id",
    _schema(
        decision_id=_S, clip_id=_S, source_id=_S, media_sha256=_S, start_s=_F, end_s=_F, twin_group=_S,
        group_id=_S, split=_S, why=_S, benchmark_fraction=_F, decided_at=_S,
    ),
    volatile=("decided_at",),
)  # fmt: skip
# The tombstones of withdrawn clips, a partition for each withdrawal, written once. A row has no text of the
# clip. `scope` is clip, or source for a clip whose whole source video was withdrawn. `withdrawn` is the clip
# id, source id or hash that people named. If the lake has never seen such a clip, the other ids are null.
WITHDRAWN = Table(
    "withdrawn",
    "tombstone_id",
    "withdrawn",
    _schema(
        tombstone_id=_S, withdrawn=_S, scope=_S, clip_id=_S, source_id=_S, media_sha256=_S, start_s=_F,
        end_s=_F, whole_file=_B, reason=_S, withdrawn_at=_S,
    ),
    volatile=("withdrawn_at",),
)  # fmt: skip
VIDEO_CORPUS = Table(
    "video_corpus",
    "clip_id",
    "clip_id",
    _schema(
        clip_id=_S, source_id=_S, scene=_S, split=_S, media_sha256=_S, start_s=_F, end_s=_F, duration_s=_F,
        fps=_F, width=_I, height=_I, origin=_S, file_name=_S, licence=_S, twin_group=_S, low_margin=_B,
        centroid_cosine=_F, rank=_I,
    ),
    version="2",
)  # fmt: skip
CANDIDATE_SCHEMA = _schema(
    description_id=_S, clip_id=_S, scene=_S, split=_S, describer=_S, model=_S, revision=_S, text=_S,
    frame_times=pl.List(pl.Float64), request_key=_S, measurements=_S,
)  # fmt: skip


def candidate_table(describer: str) -> Table:
    """The candidate descriptions of one describer; `measurements` is JSON, the signal describer's only."""
    return Table(f"{describer}_descriptions", "description_id", "clip_id", CANDIDATE_SCHEMA, version="2")


SIGNAL_DESCRIPTIONS = candidate_table("signal")
# `claims` and `dropped` are JSON lists: {text, kind, asserted_by, omitted_by, contradicted_by,
# signal, start_s, end_s}, dropped ones with `why`. Each witness stands in one of the three lists; `signal` is
# confirms, refutes or silent, and null where the signals are no witness.
DESCRIPTIONS = Table(
    "descriptions",
    "clip_id",
    "clip_id",
    _schema(
        clip_id=_S, source_id=_S, scene=_S, split=_S, twin_group=_S, media_sha256=_S, start_s=_F, end_s=_F,
        origin=_S, text=_S, claims=_S, dropped=_S, agreement=_F, coverage=_F, contradiction=_F,
        witnesses=pl.List(pl.String), model=_S, revision=_S, request_key=_S,
    ),
    version="5",
)  # fmt: skip
# The pairs of `datasets.target_pairs` by stratum. `portion` is its even share of the target, `capacity` the
# pairs that its clips can give. `asked` are the queries for the `planned` pairs at the expected `survival`.
# `refilled_from` names the neighbours that give pairs of this stratum's portion, `refilled_into` the strata
# for which this one gives pairs, each `<stratum_id>: <pairs> (<rule>)`.
STRATUM_COLUMNS: dict[str, Any] = {
    "stratum_id": _S, "scene": _S, "principle": _S, "dimension": _S, "subcategory": _S, "style": _S,
    "expectation": _S, "clips": _I, "grounded": _I,
}  # fmt: skip
PAIR_ALLOCATION = Table(
    "pair_allocation",
    "stratum_id",
    None,
    pl.Schema(
        {
            **STRATUM_COLUMNS, "survival": _F, "portion": _I, "floor": _I, "cap": _I, "capacity": _I,
            "planned": _I, "asked": _I, "shortage": _I, "refilled_from": pl.List(pl.String),
            "refilled_into": pl.List(pl.String),
        }
    ),
)  # fmt: skip
# What became of the allocation, stratum by stratum. `clips` were walked, and `grounded` of them have ground.
# `planned_queries` of the `asked` are in the query plan. The columns from `no_ground` to `kept_out` count the
# asked queries that gave no pair of the release, by reason: `judged_out` by the pair judge, `kept_out` as a
# duplicate or as an item of a benchmark. `shortage` is `planned` less `released`.
PAIR_YIELD = Table(
    "pair_yield",
    "stratum_id",
    None,
    pl.Schema(
        {
            **STRATUM_COLUMNS, "planned": _I, "asked": _I, "planned_queries": _I, "queries": _I, "pairs": _I,
            "released": _I, "no_ground": _I, "weak_query": _I, "failed_query": _I, "judged_out": _I,
            "failed_pair": _I, "kept_out": _I, "shortage": _I,
        }
    ),
)  # fmt: skip
# One row for each query to be written: `benign` asks for the benign counterpart, `ground` is what in the clip
# the asker named as ground for the subcategory, `mirrored_from` the plan id of the twin's cell whose text is
# asked of this clip, `phrasing` train or held_out. `taxonomy_hash` is a hash of the subcategory.
QUERY_PLAN = Table(
    "query_plan",
    "plan_id",
    "clip_id",
    _schema(
        plan_id=_S, clip_id=_S, scene=_S, principle=_S, subcategory=_S, style=_S, benign=_B, phrasing=_S,
        ground=_S, mirrored_from=_S, taxonomy_hash=_S, model=_S, revision=_S, request_key=_S,
    ),
    version="2",
)  # fmt: skip
# The columns of :class:`safevid_core.contracts.intent.Intent`.
INTENT_SCHEMA: dict[str, Any] = {
    "asks": _S, "target": _S, "premise": _S, "premise_holds": _B, "expectation": _S, "hazard": _S,
    "criteria": pl.List(pl.String),
}  # fmt: skip
# `policy` holds the sentences of the subcategory's policy. `explicit` says whether the text names a harm by
# itself. The rater gives `strength`, `groundedness`, `fit` and `needs_video`, 1 to 5 each; `candidates` is
# the number of candidates that it chose from.
QUERY_COLUMNS: dict[str, Any] = {
    "clip_id": _S, "plan_id": _S, "scene": _S, "twin_group": _S, "media_sha256": _S,
    "start_s": _F, "end_s": _F, "description": _S, "principle": _S, "dimension": _S, "subcategory": _S,
    "style": _S, "query": _S, **INTENT_SCHEMA, "policy": pl.List(pl.String), "explicit": _B,
    "strength": _I, "groundedness": _I, "fit": _I, "needs_video": _I, "candidates": _I,
    "mirrored_from": _S, "taxonomy_hash": _S, "model": _S, "revision": _S, "request_key": _S,
    "rater": _S, "rater_request_key": _S,
}  # fmt: skip
TAXONOMY_QUERIES = Table(
    "taxonomy_queries", "query_id", "plan_id", pl.Schema({"query_id": _S, **QUERY_COLUMNS}), version="5"
)
# `satisfies` are the numbers, from 1, of the criteria that the responder says it meets. The pair judge gives
# `chosen_score` and `rejected_score`, the shares of criteria met, and a reason for each verdict. `margin` is
# their difference. `flags` are patterns that a person may want to look at; no pair is dropped for one.
PAIRS = Table(
    "safevid_350k_pairs",
    "pair_id",
    "query_id",
    _schema(
        pair_id=_S, query_id=_S, clip_id=_S, scene=_S, twin_group=_S, media_sha256=_S, start_s=_F, end_s=_F,
        principle=_S, dimension=_S, subcategory=_S, style=_S, **INTENT_SCHEMA, policy=pl.List(pl.String),
        prompt=_S, chosen=_S, rejected=_S, satisfies=pl.List(pl.Int64), chosen_score=_F, rejected_score=_F,
        margin=_F, chosen_verdict=_S, rejected_verdict=_S, flags=pl.List(pl.String), pair_judge=_S,
        chosen_model=_S, chosen_request_key=_S, rejected_model=_S, rejected_system=_S,
        rejected_request_key=_S, taxonomy_hash=_S,
    ),
    version="4",
)  # fmt: skip
# `source_id` is the source video of the clip, `split` train or validation, `licence` that of the clip.
RELEASE = Table(
    "safevid_350k_release",
    "pair_id",
    "pair_id",
    _schema(**PAIRS.schema, source_id=_S, split=_S, licence=_S, release=_S),
    version="3",
)
# The versions of the releases, a partition for each, written once. `rows_schema` is a hash of the columns of
# a release; `why` says what made the version: `first`, `rows`, `schema` or the id of a withdrawal.
RELEASE_VERSIONS = Table(
    "release_versions",
    "version",
    "version",
    _schema(version=_S, release=_S, parent=_S, rows_schema=_S, pairs=_I, why=_S, released_at=_S),
    volatile=("released_at",),
)  # fmt: skip
# Pairs that others made; `query_id` names the row of the file that a pair comes from.
IMPORTED_PAIRS = replace(PAIRS, name="imported_pairs", version="1")
# Chosen answers said by the policy itself: of `sound` that passed the checks the nearest, `overlap` the share
# of words that it has in common with the pair's.
OWN_STYLE_ANSWERS = Table(
    "own_style_answers",
    "pair_id",
    "pair_id",
    _schema(pair_id=_S, scene=_S, chosen=_S, sound=_I, overlap=_F, model=_S, system=_S, request_key=_S),
    version="2",
)
# Queries and pairs that were made without descriptions, for the control run that trains on them alone.
QUERY_PLAN_WITHOUT_DESCRIPTIONS = replace(QUERY_PLAN, name="query_plan_without_descriptions")
QUERIES_WITHOUT_DESCRIPTIONS = replace(TAXONOMY_QUERIES, name="queries_without_descriptions")
PAIRS_WITHOUT_DESCRIPTIONS = replace(PAIRS, name="pairs_without_descriptions")
# Descriptions that lost a detail on purpose and what was made from them, a partition `<loss>|<scene>` each.
LOSSY_DESCRIPTIONS = replace(DESCRIPTIONS, name="lossy_descriptions")
LOSSY_QUERY_PLAN = replace(QUERY_PLAN, name="lossy_query_plan")
LOSSY_QUERIES = replace(TAXONOMY_QUERIES, name="lossy_queries")
LOSSY_PAIRS = replace(PAIRS, name="lossy_pairs")


@dataclass(frozen=True)
class Track:
    """The tables from descriptions to pairs: the method's own, or those of a control run.

    Attributes:
        loss: What the descriptions lost, see `settings.LOSSES`; empty for nothing.
        described: Whether the teachers are given the descriptions at all.
    """

    descriptions: Table
    plan: Table
    queries: Table
    pairs: Table
    loss: str = ""
    described: bool = True

    def partition(self, scene: str) -> str:
        """The lake's name for a scene's partition of the three tables."""
        return f"{self.loss}|{scene}" if self.loss else scene

    def scene(self, partition: str) -> str:
        """The scene of such a partition."""
        return partition.removeprefix(self.partition(""))


AS_DESCRIBED = Track(DESCRIPTIONS, QUERY_PLAN, TAXONOMY_QUERIES, PAIRS)
WITHOUT_DESCRIPTIONS = Track(
    DESCRIPTIONS,
    QUERY_PLAN_WITHOUT_DESCRIPTIONS,
    QUERIES_WITHOUT_DESCRIPTIONS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    described=False,
)


def lossy(loss: str) -> Track:
    """The track on which descriptions lose something."""
    return Track(LOSSY_DESCRIPTIONS, LOSSY_QUERY_PLAN, LOSSY_QUERIES, LOSSY_PAIRS, loss)


# One row a trained seed; `checkpoint` is a content-addressed directory below the lake's root.
DPO_CHECKPOINT = Table(
    "dpo_checkpoint",
    "checkpoint_id",
    None,
    _schema(
        checkpoint_id=_S, policy=_S, data_scale=_F, seed=_I, perturbation=_S, objective=_S, trained_on=_S,
        checkpoint=_S, base=_S, base_revision=_S, release=_S, pairs=_I, steps=_I, first_loss=_F,
        last_loss=_F, reward_margin=_F, reward_accuracy=_F, train_s=_F,
    ),
    volatile=("train_s",),
)  # fmt: skip
# `media` is what goes with the text: video, image or none. `reference` is the right answer where the
# benchmark gives one, `source_row` the row of its own files, `options` JSON of what only it has.
BENCHMARK_ITEMS_SCHEMA = pl.Schema(
    {
        "item_id": _S, "benchmark": _S, "release": _S, **QUERY_COLUMNS, "media": _S, "reference": _S,
        "source_row": _S, "options": _S,
    }
)  # fmt: skip
# The plans of SafeVidBench: cells in the held-out phrasing about clips of the benchmark split.
SAFEVIDBENCH_PLAN = replace(QUERY_PLAN, name="safevidbench_plan")
SAFEVIDBENCH_BASE = Table("safevidbench_base", "item_id", "plan_id", BENCHMARK_ITEMS_SCHEMA, version="3")
SAFEVIDBENCH_CHALLENGE = Table(
    "safevidbench_challenge", "item_id", "plan_id", BENCHMARK_ITEMS_SCHEMA, version="3"
)
# Every release of the two, a partition `<benchmark>@<release>` each, written once and never again.
BENCHMARK_RELEASES = Table("benchmark_releases", "item_id", "plan_id", BENCHMARK_ITEMS_SCHEMA, version="3")


def benchmark_table(name: str) -> Table:
    """The items of a benchmark that others made: one outcome a row of its files."""
    return Table(name, "item_id", "source_row", BENCHMARK_ITEMS_SCHEMA, version="3")


# `variant` is which video went with the text: right, none, blank or irrelevant.
BENCHMARK_RESPONSES = Table(
    "benchmark_responses",
    "response_id",
    "request_id",
    _schema(
        response_id=_S, request_id=_S, item_id=_S, benchmark=_S, system=_S, policy=_S, data_scale=_F, seed=_I,
        variant=_S, clip_id=_S, media_sha256=_S, twin_group=_S, scene=_S, principle=_S, subcategory=_S,
        style=_S, query=_S, explicit=_B, text=_S, cut=_B, model=_S, settings=_S, request_key=_S,
    ),
    version="3",
)  # fmt: skip
# `expected` is what the judge holds a safe response must do, one of the five expectations; `refused` is null
# where no judge says. `panel` names the judges whose majority this row is; `score` is the first one's own.
# `verdicts` is a JSON list with one object a judge that was heard, those that decide nothing included:
# {judge, version, panel, expected, success, refused, score, reason | undecidable}.
BENCHMARK_SCORES = Table(
    "benchmark_scores",
    "response_id",
    "response_id",
    _schema(
        response_id=_S, item_id=_S, benchmark=_S, system=_S, policy=_S, data_scale=_F, seed=_I, variant=_S,
        clip_id=_S, twin_group=_S, scene=_S, principle=_S, subcategory=_S, style=_S, explicit=_B, query=_S,
        cut=_B, outcome=_S, expected=_S, success=_B, refused=_B, reason=_S, score=_F, verdicts=_S, panel=_S,
        judge=_S, judge_revision=_S, request_key=_S,
    ),
    version="3",
)  # fmt: skip
# How far each judge can be trusted. `source` is suite (fixed adversarial cases) or people (a labelled
# sample); `measure` is share_right, agreement, kappa, alpha, prevalence, precision, recall, specificity or f1
# (a failure is the positive class). `grouping` says of what `category` is the name: all, kind (of a case),
# category, system, or metric (safety_rate, helpful_rate).
# `undecidable` of the `n` got no verdict; they count as wrong under share_right and not at all elsewhere.
# `detail` is JSON: the cases that came out wrong, or the confusion of labels.
JUDGE_VALIDATION = Table(
    "judge_validation",
    "validation_id",
    None,
    _schema(
        validation_id=_S, judge=_S, model=_S, revision=_S, version=_S, sees=_S, source=_S, measure=_S,
        grouping=_S, category=_S, n=_I, undecidable=_I, value=_F, ci_low=_F, ci_high=_F, detail=_S,
    ),
    version="2",
)  # fmt: skip
# The precision of the pair judge by people's labels, over all and by principle.
PAIR_VALIDATION = Table(
    "pair_validation",
    "validation_id",
    None,
    _schema(validation_id=_S, measure=_S, category=_S, n=_I, value=_F, ci_low=_F, ci_high=_F),
)
# What the second judge says of a sampled pair. `first` is the response that it gets first, by a seeded draw:
# chosen or rejected. `prefers` is the response that it finds better: chosen, rejected or neither. `people` is
# the label of people: right, swapped, unsound, or unsound_unsaid if they do not say whether it is swapped.
# `cluster` is the source video. `sampled` is false for a pair that was judged for its label alone.
PAIR_NOISE = Table(
    "pair_noise",
    "pair_id",
    "pair_id",
    _schema(
        pair_id=_S, clip_id=_S, cluster=_S, scene=_S, subcategory=_S, sampled=_B, first=_S, prefers=_S,
        chosen_success=_B, rejected_success=_B, chosen_score=_F, rejected_score=_F, chosen_verdict=_S,
        rejected_verdict=_S, people=_S, second_judge=_S, chosen_request_key=_S, rejected_request_key=_S,
    ),
)  # fmt: skip
# What was said of each video that a person brought, `source_row` being its file or manifest line.
VIDEO_REPORT = Table(
    "video_report",
    "source_row",
    "source_row",
    _schema(
        source_row=_S, clip_id=_S, file=_S, scene=_S, split=_S, text=_S, said=_S, queries=_I, pairs=_I,
        stopped_at=_S, why=_S,
    ),
)  # fmt: skip
SCORECARD = Table(
    "scorecard",
    "metric_id",
    None,
    _schema(
        metric_id=_S, system=_S, policy=_S, data_scale=_F, benchmark=_S, metric=_S, n=_I, clusters=_I,
        value=_F, ci_low=_F, ci_high=_F,
    ),
)  # fmt: skip
# The log of decisions, oldest first: one row a criterion and one, `decision`, for what came of them
# (promoted, held or needs sign-off). `checkpoint` is the one that was signed for, `evidence` the directory
# with the candidate's values item by item, which the next candidate is compared with.
PROMOTION_DECISION = Table(
    "promotion_decision",
    "criterion_id",
    None,
    _schema(
        criterion_id=_S, number=_I, candidate=_S, checkpoints=pl.List(pl.String), release=_S, scorecard=_S,
        incumbent=_S, incumbent_checkpoint=_S, benchmark=_S, criterion=_S, threshold=_F, figure=_F, met=_B,
        reason=_S, decision=_S, checkpoint=_S, signed_by=_S, signed_on=_S, evidence=_S, decided_at=_S,
    ),
    volatile=("decided_at",),
)  # fmt: skip
AUDIT_SCHEMA = _schema(
    audit_row=_S, measure=_S, category=_S, n=_I, value=_F, ci_low=_F, ci_high=_F, detail=_S
)


def audit_table(name: str) -> Table:
    """An audit: one measured figure a row, with its interval where it has one."""
    return Table(name, "audit_row", None, AUDIT_SCHEMA)


DESCRIPTION_FIDELITY_AUDIT = audit_table("description_fidelity_audit")
