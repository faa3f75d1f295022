"""How many calls each asset makes to which model, by partition: counted, or from the settings' sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import polars as pl

from safevid_core.descriptions import reconciliation
from safevid_core.descriptions.lossy import RECONCILED_AGAIN
from safevid_core.descriptions.synthesis import video_model_hash
from safevid_core.evaluation.benchmarks import safevidbench_base, safevidbench_challenge
from safevid_core.evaluation.judge_validation import load_suite
from safevid_core.evaluation.judges.panel import Panel, open_panel
from safevid_core.evaluation.scores import panel_identity
from safevid_core.evaluation.systems import system_of
from safevid_core.lake import WHOLE, Lake
from safevid_core.models.teacher import teacher_hash
from safevid_core.preferences import responses
from safevid_core.queries import generation
from safevid_core.records import (
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    DESCRIPTIONS,
    JUDGE_VALIDATION,
    LOSSY_DESCRIPTIONS,
    LOSSY_PAIRS,
    LOSSY_QUERIES,
    OWN_STYLE_ANSWERS,
    PAIRS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    QUERIES_WITHOUT_DESCRIPTIONS,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    Table,
    benchmark_table,
    candidate_table,
    lossy,
)
from safevid_core.settings import LOSSES, Settings, TextModel, VideoModel
from safevid_core.taxonomy.taxonomy import Taxonomy, load_scenes, load_taxonomy


@dataclass(frozen=True)
class Planned:
    """Calls of one asset to one model.

    Attributes:
        calls: By partition of the lake, those that are made included.
        made_from: Inputs of a stage, by name, without which a committed partition is made again: what is
            asked, and of whom. Empty for a model that costs nothing.
    """

    asset: str
    model: TextModel | VideoModel
    calls: Mapping[str, int]
    made_from: Mapping[str, str] = field(default_factory=dict)

    def calls_now(self, lake: Lake, partitions: Sequence[str] | None = None) -> int:
        """Calls of the partitions (all by default) that are not committed, or would be made otherwise now.

        What the ledger answers besides only makes it less.
        """
        named = (part for part in self.calls if partitions is None or part in partitions)
        return sum(self.calls[part] for part in named if not self._is_made(lake, part))

    def _is_made(self, lake: Lake, partition: str) -> bool:
        manifest = lake.manifest(self.asset, partition)
        if manifest is None:
            return False
        return all(manifest.inputs.get(name, value) == value for name, value in self.made_from.items())


def plan_calls(settings: Settings, lake: Lake, assets: Sequence[str] | None = None) -> list[Planned]:
    """The calls of some assets, in the order of the flow.

    Args:
        assets: Defaults to every asset of the settings' flow that asks a model.

    Raises:
        EvaluationError: If the settings name a system or judge that does not exist.
    """
    plan = _Plan(settings, lake)
    ways = plan.ways()
    wanted = plan.flow() if assets is None else [asset for asset in ways if asset in assets]
    return [planned for asset in wanted for planned in ways[asset]()]


class _Plan:
    """Counts the calls of each asset, as far as what it is made from is there."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._settings = settings
        self._lake = lake
        self._scenes = [scene.id for scene in load_scenes().scenes]

    def ways(self) -> dict[str, Callable[[], Iterator[Planned]]]:
        """Asset -> what plans it, in the order of the flow."""
        describers = {
            candidate_table(name).name: lambda name=name: self._candidates(name)
            for name in self._settings.descriptions.describers
        }
        return {
            **describers,
            DESCRIPTIONS.name: self._descriptions,
            TAXONOMY_QUERIES.name: lambda: self._queries(TAXONOMY_QUERIES, generation.TASK),
            PAIRS.name: lambda: self._pairs(PAIRS, TAXONOMY_QUERIES, responses.TASK),
            OWN_STYLE_ANSWERS.name: self._own_style,
            QUERIES_WITHOUT_DESCRIPTIONS.name: lambda: self._queries(
                QUERIES_WITHOUT_DESCRIPTIONS, generation.TASK_WITHOUT_DESCRIPTION
            ),
            PAIRS_WITHOUT_DESCRIPTIONS.name: lambda: self._pairs(
                PAIRS_WITHOUT_DESCRIPTIONS, QUERIES_WITHOUT_DESCRIPTIONS, responses.TASK_WITHOUT_DESCRIPTION
            ),
            LOSSY_DESCRIPTIONS.name: lambda: self._over_losses(self._lossy_descriptions()),
            LOSSY_QUERIES.name: lambda: self._over_losses(self._lossy(LOSSY_QUERIES, TAXONOMY_QUERIES)),
            LOSSY_PAIRS.name: lambda: self._over_losses(self._lossy(LOSSY_PAIRS, PAIRS)),
            SAFEVIDBENCH_BASE.name: self._base,
            SAFEVIDBENCH_CHALLENGE.name: self._challenge,
            BENCHMARK_RESPONSES.name: self._answers,
            BENCHMARK_SCORES.name: self._verdicts,
            JUDGE_VALIDATION.name: self._validation,
        }

    def flow(self) -> list[str]:
        """The assets that the settings' flow makes: control arms and benchmarks of ours only if named."""
        evaluation, arms = self._settings.evaluation, self._arms
        left_out = {
            name
            for name, arm in (
                (OWN_STYLE_ANSWERS.name, "own_style"),
                (QUERIES_WITHOUT_DESCRIPTIONS.name, "without_descriptions"),
                (PAIRS_WITHOUT_DESCRIPTIONS.name, "without_descriptions"),
            )
            if arm not in arms
        }
        if not arms & set(LOSSES):
            left_out |= {LOSSY_DESCRIPTIONS.name, LOSSY_QUERIES.name, LOSSY_PAIRS.name}
        ours = {SAFEVIDBENCH_BASE.name, SAFEVIDBENCH_CHALLENGE.name}
        left_out |= ours - set(evaluation.benchmarks)
        return [asset for asset in self.ways() if asset not in left_out]

    # ------------------------------------------------------------------------- descriptions and data

    def _candidates(self, describer: str) -> Iterator[Planned]:
        model = self._settings.descriptions.describers[describer]
        clips = {scene: clips for scene, (clips, _) in self._clips.items()}
        yield Planned(candidate_table(describer).name, model, clips, _video_inputs("model", model))

    def _descriptions(self) -> Iterator[Planned]:
        model = self._settings.descriptions.reconciler
        clips = {scene: clips for scene, (clips, _) in self._clips.items()}
        made_from = {"reconciler": teacher_hash(model, reconciliation.TASK)}
        yield Planned(DESCRIPTIONS.name, model, clips, made_from)

    def _queries(self, table: Table, task: str) -> Iterator[Planned]:
        made_from = generation.query_inputs(self._settings, self._taxonomy, task)
        yield Planned(table.name, self._settings.queries.asker, self._planned_queries(table), made_from)

    def _pairs(self, table: Table, queries: Table, task: str) -> Iterator[Planned]:
        planned = self._planned_queries(queries)
        asked = {scene: self._rows(queries.name, scene, n) for scene, n in planned.items()}
        responder = self._settings.preferences.responder
        yield Planned(table.name, responder, asked, {"responder": teacher_hash(responder, task)})
        unaligned = responses.unaligned_model(self._settings.preferences)
        yield Planned(table.name, unaligned, asked, _video_inputs("unaligned", unaligned))

    def _own_style(self) -> Iterator[Planned]:
        samples = self._settings.preferences.own_style.samples
        planned = self._planned_queries(TAXONOMY_QUERIES)
        pairs = {scene: samples * self._rows(PAIRS.name, scene, n) for scene, n in planned.items()}
        yield Planned(OWN_STYLE_ANSWERS.name, self._settings.alignment.base, pairs)

    def _lossy_descriptions(self) -> Iterator[Planned]:
        for planned in self._descriptions():
            yield replace(planned, asset=LOSSY_DESCRIPTIONS.name)

    def _lossy(self, table: Table, like: Table) -> Iterator[Planned]:
        """As many calls as the method's own asset makes."""
        for planned in self.ways()[like.name]():
            yield replace(planned, asset=table.name)

    def _over_losses(self, planned: Iterator[Planned]) -> Iterator[Planned]:
        """The same calls for each loss that an arm has; for every one where none has any."""
        losses = [loss for loss in LOSSES if loss in self._arms] or list(LOSSES)
        for each in planned:
            asked = losses
            if each.asset == LOSSY_DESCRIPTIONS.name:
                asked = [loss for loss in losses if loss in RECONCILED_AGAIN]
            calls = {lossy(loss).partition(s): n for loss in asked for s, n in each.calls.items()}
            yield replace(each, calls=calls)

    @cached_property
    def _arms(self) -> set[str]:
        """What the trained policies are trained on."""
        alignment = self._settings.alignment
        return {alignment.policies[name].trained_on for name in alignment.trained}

    @cached_property
    def _taxonomy(self) -> Taxonomy:
        return load_taxonomy()

    @cached_property
    def _clips(self) -> dict[str, tuple[int, int]]:
        """Scene -> its clips, and the training clips among them."""
        if self._lake.partitions(VIDEO_CORPUS.name):
            corpus = self._lake.scan(VIDEO_CORPUS).select("scene", "split").collect()
            counts = corpus.group_by("scene").agg(pl.len(), (pl.col("split") == "train").sum().alias("train"))
            found = {scene: (int(clips), int(train)) for scene, clips, train in counts.iter_rows()}
            return {scene: found.get(scene, (0, 0)) for scene in self._scenes}
        corpus_settings = self._settings.corpus
        share = 1 - corpus_settings.benchmark_fraction
        clips = [
            (corpus_settings.target_clips + place) // len(self._scenes) for place in range(len(self._scenes))
        ]
        return {scene: (n, round(share * n)) for scene, n in zip(self._scenes, clips, strict=True)}

    def _planned_queries(self, table: Table) -> dict[str, int]:
        return {scene: self._cells(table, scene) for scene in self._scenes}

    def _cells(self, table: Table, scene: str) -> int:
        """Cells of a scene's plan: as asked, as planned from the descriptions, or as the settings want."""
        asked = self._lake.manifest(table.name, scene)
        if asked is not None:
            return sum(asked.outcomes.values())
        if self._lake.manifest(DESCRIPTIONS.name, scene) is None:
            return self._clips[scene][1] * self._settings.queries.subcategories_per_clip
        described = self._lake.scan(DESCRIPTIONS, [scene]).filter(pl.col("split") == "train").collect()
        if table is QUERIES_WITHOUT_DESCRIPTIONS:
            described = described.with_columns(pl.lit(None, pl.String).alias("text"))
        return len(generation.plan_queries(described, self._settings, self._taxonomy, "train"))

    # ------------------------------------------------------------------------------------ measuring

    def _base(self) -> Iterator[Planned]:
        """A release is drawn once, and stays whatever becomes of what it was drawn from."""
        most = self._settings.evaluation.max_items
        descriptions = safevidbench_base.held_out_descriptions(self._lake)
        calls = safevidbench_base.ASKED_FOR_ONE * most
        if descriptions.height:
            plan = generation.plan_queries(descriptions, self._settings, self._taxonomy, "held_out")
            calls = len(safevidbench_base.enough_cells(plan, descriptions, self._taxonomy, most))
        yield Planned(SAFEVIDBENCH_BASE.name, self._settings.queries.asker, {WHOLE: calls})

    def _challenge(self) -> Iterator[Planned]:
        """As many as its first round asks: if the panel fails on most of them, there is no other."""
        challenge = self._settings.evaluation.challenge
        calls = {WHOLE: safevidbench_challenge.ASKED_FOR_ONE * challenge.size}
        yield Planned(SAFEVIDBENCH_CHALLENGE.name, self._settings.queries.asker, calls)
        for model in challenge.panel:
            yield Planned(SAFEVIDBENCH_CHALLENGE.name, model, calls)
        judged = {WHOLE: len(challenge.panel) * calls[WHOLE]}
        for judge in _judges(open_panel(self._settings, SAFEVIDBENCH_CHALLENGE.name)):
            yield Planned(SAFEVIDBENCH_CHALLENGE.name, judge, judged)

    def _answers(self) -> Iterator[Planned]:
        calls = {
            f"{system}|{benchmark}": self._answers_of(system, benchmark)
            for benchmark in self._settings.evaluation.benchmarks
            for system in self._settings.systems
            if not system_of(self._settings, system).is_function
        }
        yield Planned(BENCHMARK_RESPONSES.name, self._settings.alignment.base, calls)

    def _verdicts(self) -> Iterator[Planned]:
        """By every judge that is heard and is a model."""
        for benchmark in self._settings.evaluation.benchmarks:
            panel = open_panel(self._settings, benchmark)
            made_from = {"judges": panel_identity(panel)}
            calls = {
                f"{system}|{benchmark}": self._answers_of(system, benchmark)
                for system in self._settings.systems
            }
            for judge in _judges(panel):
                yield Planned(BENCHMARK_SCORES.name, judge, calls, made_from)

    def _answers_of(self, system: str, benchmark: str) -> int:
        """Every item once a seed, and those of the modality test with three more kinds of video."""
        evaluation = self._settings.evaluation
        items = self._rows(benchmark_table(benchmark).name, WHOLE, evaluation.max_items)
        own = benchmark == SAFEVIDBENCH_BASE.name
        calls = items + (3 * min(evaluation.modality_items, items) if own else 0)
        who = system_of(self._settings, system)
        seeds = len(self._settings.alignment.policies[who.policy].seeds) if who.data_scale > 0 else 1
        return self._rows(BENCHMARK_RESPONSES.name, f"{system}|{benchmark}", seeds * calls)

    def _validation(self) -> Iterator[Planned]:
        panel = open_panel(self._settings)
        made_from = {"judges": panel_identity(panel)}
        for judge in _judges(panel):
            yield Planned(JUDGE_VALIDATION.name, judge, {WHOLE: len(load_suite())}, made_from)

    def _rows(self, asset: str, partition: str, otherwise: int) -> int:
        """Rows of a committed partition, else what is expected of it."""
        manifest = self._lake.manifest(asset, partition)
        return otherwise if manifest is None else manifest.rows


def _judges(panel: Panel) -> list[TextModel]:
    return [seat.model for seat in panel.seats if seat.model is not None]


def _video_inputs(name: str, model: VideoModel) -> dict[str, str]:
    return {} if model.served_at is None else {name: video_model_hash(model)}
