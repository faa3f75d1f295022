"""How many calls each asset makes to which model, by partition: counted, or from the settings' sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import polars as pl

from safevid_core.descriptions import reconciliation
from safevid_core.descriptions.lossy import RECONCILED_AGAIN, reconciled_by
from safevid_core.descriptions.reconciliation import Testimony, read_testimony
from safevid_core.descriptions.synthesis import clips_to_describe, video_model_hash
from safevid_core.evaluation.benchmarks import safevidbench_base, safevidbench_challenge
from safevid_core.evaluation.judge_validation import load_suite
from safevid_core.evaluation.judges.panel import Panel, open_panel
from safevid_core.evaluation.responses import read_items
from safevid_core.evaluation.scores import answers_to_judge, panel_identity
from safevid_core.evaluation.systems import system_of
from safevid_core.lake import WHOLE, Lake, Manifest, frame_hash, settings_hash, to_be_asked_again
from safevid_core.models.chat import ChatRequest, request_key
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

# The request keys among some that the ledger answers.
Answered = Callable[[Set[str]], Set[str]]


@dataclass(frozen=True)
class Planned:
    """Calls of one asset to one model.

    Attributes:
        calls: By partition of the lake, those that are made included.
        made_from: The inputs of a partition's stage, by name, without which it is made again: what is asked,
            of whom, and about which rows. None for a model of one's own, and for what stays as it is.
        loss: What the descriptions lost that these calls are about; each loss is a plan of its own.
        not_answered: Of the questions that a partition would be asked now, how many the ledger does not
            answer; None while what it is made from is not there.
    """

    asset: str
    model: TextModel | VideoModel
    calls: Mapping[str, int]
    made_from: Callable[[str], Mapping[str, str]] | None = None
    loss: str = ""
    not_answered: Callable[[str, Answered], int | None] | None = None

    def calls_now(self, lake: Lake, answered: Answered, partitions: Sequence[str] | None = None) -> int:
        """Calls of the partitions (all by default) that are not committed, or would be made again now.

        Of a partition to be made again only the questions count that have no answer yet, where they can be
        told. What the ledger answers besides only makes it less.
        """
        named = (part for part in self.calls if partitions is None or part in partitions)
        return sum(self._calls_of(part, lake, answered) for part in named)

    def _calls_of(self, partition: str, lake: Lake, answered: Answered) -> int:
        manifest = lake.manifest(self.asset, partition)
        if manifest is None:
            return self.calls[partition]
        if self._is_made(manifest):
            return min(to_be_asked_again(lake, manifest), self.calls[partition])
        left = self.not_answered(partition, answered) if self.not_answered else None
        return self.calls[partition] if left is None else left

    def _is_made(self, manifest: Manifest) -> bool:
        """Whether nothing has changed of what a committed partition is known to be made from."""
        inputs = self.made_from(manifest.partition) if self.made_from else {}
        return all(manifest.inputs.get(name, value) == value for name, value in inputs.items())


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
        table = candidate_table(describer)
        if model.served_at is None:
            yield Planned(table.name, model, clips)
            return

        def made_from(scene: str) -> dict[str, str]:
            return {
                "clips": frame_hash(clips_to_describe(self._lake, scene)),
                "model": video_model_hash(model),
                "prompt": settings_hash(self._settings.descriptions.prompt),
            }

        yield Planned(table.name, model, clips, made_from)

    def _descriptions(self, track: Track) -> Iterator[Planned]:
        model = self._settings.descriptions.reconciler
        clips = {track.partition(scene): clips for scene, (clips, _) in self._clips.items()}
        settings = reconciled_by(self._settings, track.loss)

        @lru_cache(maxsize=1)
        def testimony(partition: str) -> Testimony:
            return read_testimony(settings, self._lake, track.scene(partition))

        def made_from(partition: str) -> dict[str, str]:
            return {**testimony(partition).inputs, "reconciler": teacher_hash(model, reconciliation.TASK)}

        def not_answered(partition: str, answered: Answered) -> int | None:
            tables = [candidate_table(name) for name in settings.descriptions.describers]
            if any(self._lake.manifest(table.name, track.scene(partition)) is None for table in tables):
                return None
            return _without_answer(testimony(partition).requests(model), answered)

        yield Planned(track.descriptions.name, model, clips, made_from, track.loss, not_answered)

    def _queries(self, track: Track) -> Iterator[Planned]:
        task = generation.TASK if track.described else generation.TASK_WITHOUT_DESCRIPTION
        beside = generation.query_inputs(self._settings, self._taxonomy, task)
        cells = {track.partition(scene): self._cells(track, scene) for scene in self._scenes}

        @lru_cache(maxsize=1)
        def clips(partition: str) -> pl.DataFrame:
            return generation.training_clips(self._lake, partition, track)

        def made_from(partition: str) -> dict[str, str]:
            return {"descriptions": frame_hash(clips(partition)), **beside}

        def not_answered(partition: str, answered: Answered) -> int | None:
            if self._lake.manifest(track.descriptions.name, partition) is None:
                return None
            return self._cells_without_answer(track, partition, clips(partition), answered)

        asker = self._settings.queries.asker
        yield Planned(track.queries.name, asker, cells, made_from, track.loss, not_answered)

    def _cells_without_answer(
        self, track: Track, partition: str, clips: pl.DataFrame, answered: Answered
    ) -> int:
        """Cells of their own, and those that mirror one: all where that one's answer is still to come."""
        descriptions = dict(clips.select("clip_id", "text").iter_rows())
        plan = generation.plan_queries(clips, self._settings, self._taxonomy, "train")
        asker = self._settings.queries.asker

        def key(cell: generation.PlanCell, text: str | None = None) -> str:
            description = descriptions[cell.clip_id]
            return request_key(generation.cell_request(cell, description, text, asker, self._taxonomy))

        own = {cell.plan_id: key(cell) for cell in plan if cell.mirrored_from is None}
        known = answered(set(own.values()))
        kept = self._lake.scan(track.queries, [partition]).select("plan_id", "query").collect()
        texts = dict(kept.iter_rows())
        to_come, mirrored = 0, set()
        for cell in plan:
            if cell.mirrored_from is None:
                continue
            if own[cell.mirrored_from] not in known:
                to_come += 1
            elif cell.mirrored_from in texts:  # what was not kept is not mirrored
                mirrored.add(key(cell, texts[cell.mirrored_from]))
        return len(set(own.values()) - known) + to_come + len(mirrored - answered(mirrored))

    def _pairs(self, track: Track) -> Iterator[Planned]:
        task = responses.TASK if track.described else responses.TASK_WITHOUT_DESCRIPTION
        asked = {track.partition(scene): self._asked(track, scene) for scene in self._scenes}
        preferences = self._settings.preferences
        unaligned = responses.unaligned_model(preferences)

        @lru_cache(maxsize=1)
        def queries(partition: str) -> pl.DataFrame:
            return responses.queries_to_answer(self._lake, partition, track)

        @cache
        def of_queries(partition: str) -> str:
            return frame_hash(queries(partition))

        def chosen_from(partition: str) -> dict[str, str]:
            beside = responses.chosen_inputs(preferences, task, self._taxonomy)
            return {"queries": of_queries(partition), **beside}

        def rejected_from(partition: str) -> dict[str, str]:
            return {"queries": of_queries(partition), **responses.rejected_inputs(preferences)}

        def not_answered(partition: str, answered: Answered) -> int | None:
            if self._lake.manifest(track.queries.name, partition) is None:
                return None
            rows = queries(partition).iter_rows(named=True)
            asked = (responses.chosen_request(query, task, preferences, self._taxonomy) for query in rows)
            return _without_answer(asked, answered)

        responder, is_own = preferences.responder, unaligned.served_at is None
        yield Planned(track.pairs.name, responder, asked, chosen_from, track.loss, not_answered)
        yield Planned(track.pairs.name, unaligned, asked, None if is_own else rejected_from, track.loss)

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
        clips = generation.training_clips(self._lake, partition, track)
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
            made_from = self._judged_from(panel)
            calls = {
                f"{system}|{benchmark}": self._answers_of(system, benchmark)
                for system in self._settings.systems
            }
            for judge in _judges(panel):
                yield Planned(BENCHMARK_SCORES.name, judge, calls, made_from)

    def _judged_from(self, panel: Panel) -> Callable[[str], dict[str, str]]:
        judges = panel_identity(panel)

        @cache  # for every judge of the panel
        def made_from(partition: str) -> dict[str, str]:
            benchmark = partition.partition("|")[2]
            needed = ((BENCHMARK_RESPONSES.name, partition), (benchmark_table(benchmark).name, WHOLE))
            manifests = [self._lake.manifest(*each) for each in needed]
            if any(manifest is None or not manifest.rows for manifest in manifests):
                return {"judges": judges}
            answers = answers_to_judge(self._lake, partition, read_items(self._lake, benchmark))
            return {"responses": frame_hash(answers), "judges": judges}

        return made_from

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
            yield Planned(JUDGE_VALIDATION.name, judge, {WHOLE: len(load_suite())}, lambda _: made_from)

    def _rows(self, asset: str, partition: str, otherwise: int) -> int:
        """Rows of a committed partition, else what is expected of it."""
        manifest = self._lake.manifest(asset, partition)
        return otherwise if manifest is None else manifest.rows


def _without_answer(questions: Iterable[ChatRequest], answered: Answered) -> int:
    keys = {request_key(question) for question in questions}
    return len(keys - answered(keys))


def _judges(panel: Panel) -> list[TextModel]:
    return [seat.model for seat in panel.seats if seat.model is not None]
