"""How many calls each asset makes to which model, by partition: counted, or from the settings' sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
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
from safevid_core.lake import WHOLE, Lake, settings_hash
from safevid_core.models.teacher import teacher_hash
from safevid_core.preferences import responses
from safevid_core.queries import generation
from safevid_core.records import (
    AS_DESCRIBED,
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    JUDGE_VALIDATION,
    LOSSY_DESCRIPTIONS,
    LOSSY_PAIRS,
    LOSSY_QUERIES,
    OWN_STYLE_ANSWERS,
    PAIRS,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_CHALLENGE,
    VIDEO_CORPUS,
    WITHOUT_DESCRIPTIONS,
    Track,
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
        loss: What the descriptions lost that these calls are about; each loss is a plan of its own.
    """

    asset: str
    model: TextModel | VideoModel
    calls: Mapping[str, int]
    made_from: Mapping[str, str] = field(default_factory=dict)
    loss: str = ""

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
    arms = {settings.alignment.policies[name].trained_on for name in settings.alignment.trained}
    losses = [loss for loss in LOSSES if assets is not None or loss in arms]
    ways = _Plan(settings, lake).ways(losses)
    wanted = _flow(settings, arms, ways) if assets is None else [asset for asset in ways if asset in assets]
    return [planned for asset in wanted for planned in ways[asset]()]


def _flow(settings: Settings, arms: Set[str], assets: Iterable[str]) -> list[str]:
    """Those of the assets that the settings ask for: control arms and benchmarks of ours only if named."""
    if_named = {
        OWN_STYLE_ANSWERS.name: "own_style" in arms,
        WITHOUT_DESCRIPTIONS.queries.name: "without_descriptions" in arms,
        WITHOUT_DESCRIPTIONS.pairs.name: "without_descriptions" in arms,
        SAFEVIDBENCH_BASE.name: SAFEVIDBENCH_BASE.name in settings.evaluation.benchmarks,
        SAFEVIDBENCH_CHALLENGE.name: SAFEVIDBENCH_CHALLENGE.name in settings.evaluation.benchmarks,
    }
    return [asset for asset in assets if if_named.get(asset, True)]


class _Plan:
    """Counts the calls of each asset, as far as what it is made from is there."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._settings = settings
        self._lake = lake
        self._scenes = [scene.id for scene in load_scenes().scenes]

    def ways(self, losses: Sequence[str]) -> dict[str, Callable[[], Iterable[Planned]]]:
        """Asset -> what plans it, in the order of the flow, the lossy ones for these losses."""
        describers = {
            candidate_table(name).name: lambda name=name: self._candidates(name)
            for name in self._settings.descriptions.describers
        }
        without, lost = WITHOUT_DESCRIPTIONS, [lossy(loss) for loss in losses]
        return {
            **describers,
            AS_DESCRIBED.descriptions.name: lambda: self._descriptions(AS_DESCRIBED),
            AS_DESCRIBED.queries.name: lambda: self._queries(AS_DESCRIBED),
            AS_DESCRIBED.pairs.name: lambda: self._pairs(AS_DESCRIBED),
            OWN_STYLE_ANSWERS.name: self._own_style,
            without.queries.name: lambda: self._queries(without),
            without.pairs.name: lambda: self._pairs(without),
            LOSSY_DESCRIPTIONS.name: lambda: [
                planned
                for track in lost
                if track.loss in RECONCILED_AGAIN
                for planned in self._descriptions(track)
            ],
            LOSSY_QUERIES.name: lambda: [planned for track in lost for planned in self._queries(track)],
            LOSSY_PAIRS.name: lambda: [planned for track in lost for planned in self._pairs(track)],
            SAFEVIDBENCH_BASE.name: self._base,
            SAFEVIDBENCH_CHALLENGE.name: self._challenge,
            BENCHMARK_RESPONSES.name: self._answers,
            BENCHMARK_SCORES.name: self._verdicts,
            JUDGE_VALIDATION.name: self._validation,
        }

    # ------------------------------------------------------------------------- descriptions and data

    def _candidates(self, describer: str) -> Iterator[Planned]:
        model = self._settings.descriptions.describers[describer]
        clips = {scene: clips for scene, (clips, _) in self._clips.items()}
        made_from = _video_inputs("model", model)
        if made_from:
            made_from["prompt"] = settings_hash(self._settings.descriptions.prompt)
        yield Planned(candidate_table(describer).name, model, clips, made_from)

    def _descriptions(self, track: Track) -> Iterator[Planned]:
        model = self._settings.descriptions.reconciler
        clips = {track.partition(scene): clips for scene, (clips, _) in self._clips.items()}
        made_from = {"reconciler": teacher_hash(model, reconciliation.TASK)}
        yield Planned(track.descriptions.name, model, clips, made_from, track.loss)

    def _queries(self, track: Track) -> Iterator[Planned]:
        task = generation.TASK if track.described else generation.TASK_WITHOUT_DESCRIPTION
        made_from = generation.query_inputs(self._settings, self._taxonomy, task)
        cells = {track.partition(scene): self._cells(track, scene) for scene in self._scenes}
        yield Planned(track.queries.name, self._settings.queries.asker, cells, made_from, track.loss)

    def _pairs(self, track: Track) -> Iterator[Planned]:
        task = responses.TASK if track.described else responses.TASK_WITHOUT_DESCRIPTION
        asked = {track.partition(scene): self._asked(track, scene) for scene in self._scenes}
        responder = self._settings.preferences.responder
        made_from = {"responder": teacher_hash(responder, task)}
        yield Planned(track.pairs.name, responder, asked, made_from, track.loss)
        unaligned = responses.unaligned_model(self._settings.preferences)
        yield Planned(track.pairs.name, unaligned, asked, _video_inputs("unaligned", unaligned), track.loss)

    def _own_style(self) -> Iterator[Planned]:
        samples = self._settings.preferences.own_style.samples
        queries = {scene: self._asked(AS_DESCRIBED, scene) for scene in self._scenes}
        pairs = {scene: samples * self._rows(PAIRS.name, scene, n) for scene, n in queries.items()}
        yield Planned(OWN_STYLE_ANSWERS.name, self._settings.alignment.base, pairs)

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

    def _asked(self, track: Track, scene: str) -> int:
        """Queries of a scene: as they are, or as many as are planned."""
        return self._rows(track.queries.name, track.partition(scene), self._cells(track, scene))

    def _cells(self, track: Track, scene: str) -> int:
        """Cells of a scene's plan: as asked, as planned from the descriptions, or as the settings want."""
        partition = track.partition(scene)
        asked = self._lake.manifest(track.queries.name, partition)
        if asked is not None:
            return sum(asked.outcomes.values())
        if self._lake.manifest(track.descriptions.name, partition) is None:
            return self._clips[scene][1] * self._settings.queries.subcategories_per_clip
        described = self._lake.scan(track.descriptions, [partition]).filter(pl.col("split") == "train")
        clips = described.collect()
        if not track.described:
            clips = clips.with_columns(pl.lit(None, pl.String).alias("text"))
        return len(generation.plan_queries(clips, self._settings, self._taxonomy, "train"))

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
