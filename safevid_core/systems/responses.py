"""Collects the responses of a system to the items of a benchmark.

Each item is asked with its own video. A sample of the explicitly harmful items is also asked with no video,
with a blank video, and with a video of another scene. The four requests of an item differ in the video
alone, so a difference between their responses comes from the video.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.intent import HARMFUL
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import DescribedItem, rows_of
from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    DPO_CHECKPOINT,
    SAFEVIDBENCH_BASE,
    Table,
    benchmark_table,
)
from safevid_core.estimates.budget import BUDGET
from safevid_core.models.llm import ChatAnswer, Gateway
from safevid_core.models.teacher import spend_info
from safevid_core.models.video_chat import VideoQuestion, checkpoint_identity, model_files, open_video_chat
from safevid_core.settings import BenchmarkFiles, Settings
from safevid_core.stages.partitions import BY_SYSTEM_AND_BENCHMARK
from safevid_core.stages.stage import ExpectedRows, Forecast, Needs, Plan, Questions, Stage, Tools
from safevid_core.storage.lake import WHOLE, Lake, frame_hash, settings_hash
from safevid_core.storage.media import MediaIndex
from safevid_core.systems.controls import CONTROLS
from safevid_core.systems.errors import ResponseError
from safevid_core.systems.leaks import READ_FOR_LEAKS, refuse_trained_on
from safevid_core.systems.systems import System, system_of

Variant = Literal["right", "none", "blank", "irrelevant"]
VARIANTS: tuple[Variant, ...] = ("right", "none", "blank", "irrelevant")

# Columns of an item that change neither a response nor its row.
_NOT_ASKED = (
    "request_key", "description", "model", "revision", "strength", "groundedness", "fit", "needs_video",
    "candidates", "rater", "rater_request_key", "mirrored_from",
)  # fmt: skip
_ITEM_COLUMNS = (
    "item_id", "benchmark", "clip_id", "twin_group", "scene", "principle", "subcategory", "style", "query",
    "explicit",
)  # fmt: skip
# Settings of a model that change where and how fast it responds, but not the text.
_WITHOUT_EFFECT = {"path", "revision", "batch_size", "threads", "device", "served_at", "api_key_env"}


@dataclass(frozen=True)
class BenchmarkRequest:
    """One request to a system.

    Attributes:
        variant: Which video is shown with the query.
        seed: Training seed of the adapter that responds; 0 if the system is not trained.
        shown: The item whose clip is shown. None if no clip is shown.
    """

    item: DescribedItem
    variant: Variant
    seed: int
    shown: DescribedItem | None

    @property
    def request_id(self) -> str:
        return request_id(self.item.item_id, self.variant, self.seed)


def request_id(item_id: str, variant: str, seed: int) -> str:
    """The id of a request: one item with one variant of the video and one training seed."""
    return content_id(item_id, variant, seed)


def plan_benchmark_responses(tools: Tools, partition: str) -> Plan:
    """Plan to ask a system every item of a benchmark, once for each training seed.

    Raises:
        ResponseError: If the system or the benchmark is unknown, or if a trained system has no checkpoint
            or was trained on clips of the benchmark.
    """
    settings, lake = tools.settings, tools.lake
    system, benchmark = BY_SYSTEM_AND_BENCHMARK.values(partition).values()
    who = system_of(settings, system)
    items = read_items(lake, benchmark)
    adapters = _adapters(lake, who)
    refuse_trained_on(lake, system, benchmark, items, [each for each in adapters.values() if each])
    # Only the items of SafeVidBench-Base have scenes, from which an irrelevant video can be chosen.
    own = benchmark == SAFEVIDBENCH_BASE.name
    modality = modality_items(items, settings.evaluation.modality_items if own else 0)
    requests = list(plan_requests(items, modality, list(adapters)))
    files = settings.evaluation.files.get(benchmark)

    def make(request_ids: Sequence[str]) -> StageRows:
        if who.is_function:
            return _control_rows(who, requests)
        return _model_rows(settings, lake, who, requests, adapters, tools.gateway, files)

    def keys() -> list[str]:
        found = []
        for seed, adapter in adapters.items():
            chat = open_video_chat(settings.alignment.base, tools.gateway, adapter=adapter)
            mine = (request for request in requests if request.seed == seed)
            found += chat.keys([_question(lake.media, request, files, who.system_prompt) for request in mine])
        return found

    inputs = {
        "items": frame_hash(items.drop(_NOT_ASKED)),
        "release": str(items["release"][0]),
        "image_as": files.image_as if files else "",
        "modality_items": settings_hash(modality),
        "system": _identity(settings, who, adapters, requests),
    }
    asked = () if who.is_function else (Questions(settings.alignment.base, len(requests), keys),)
    return Plan(inputs, [request.request_id for request in requests], make, asked)


def _forecast(tools: Tools, partition: str, rows: ExpectedRows) -> Forecast:
    """One request for each item and seed, and three more for each item of the modality sample."""
    settings = tools.settings
    system, benchmark = BY_SYSTEM_AND_BENCHMARK.values(partition).values()
    who, items = system_of(settings, system), rows(benchmark, WHOLE)
    if benchmark == SAFEVIDBENCH_BASE.name:
        items += 3 * min(settings.evaluation.modality_items, items)
    seeds = len(settings.alignment.policies[who.policy].seeds) if who.data_scale > 0 else 1
    asked = () if who.is_function else (Questions(settings.alignment.base, seeds * items),)
    return Forecast(seeds * items, asked)


def measured_partitions(stage: Stage, settings: Settings) -> list[str]:
    """The systems that the settings measure, on each benchmark."""
    separator = BY_SYSTEM_AND_BENCHMARK.separator
    return [
        f"{system}{separator}{benchmark}"
        for benchmark in settings.evaluation.benchmarks
        for system in settings.systems
    ]


def measuring_stage(
    settings: Settings,
    table: Table,
    description: str,
    plan: Callable[[Tools, str], Plan],
    reads: str,
    forecast: Callable[[Tools, str, ExpectedRows], Forecast],
    made_from: Callable[[Settings, str], Iterable[tuple[str, str | None]]],
    **more: Any,
) -> Stage:
    """A stage with one partition for each system and benchmark.

    The stage asks models. It reads every benchmark of the settings and the tables of `READ_FOR_LEAKS`.

    Args:
        reads: Name of the one other stage that it reads.
        made_from: The stage's field `made_from`.
        more: Further fields of the stage.
    """
    of_leaks = {DPO_CHECKPOINT.name, *READ_FOR_LEAKS}
    every = dict.fromkeys((reads, DPO_CHECKPOINT.name, *settings.evaluation.benchmarks, *READ_FOR_LEAKS))
    return Stage(
        table, "evaluation", description, plan, tuple(every), BY_SYSTEM_AND_BENCHMARK, measured_partitions,
        forecast, asks=True, optional=frozenset(of_leaks - {reads}), made_from=made_from, gates=(BUDGET,),
        **more,
    )  # fmt: skip


def asked_from(settings: Settings, partition: str) -> Iterator[tuple[str, str | None]]:
    """(table, partition) that responses are made from. The partition None means the whole table.

    These are the benchmark and, for a trained system, its checkpoint and the tables of `READ_FOR_LEAKS`.
    """
    system, benchmark = BY_SYSTEM_AND_BENCHMARK.values(partition).values()
    if benchmark in settings.evaluation.benchmarks:
        yield benchmark, WHOLE
    if system_of(settings, system).data_scale > 0:
        yield DPO_CHECKPOINT.name, system
        yield from ((name, None) for name in READ_FOR_LEAKS)


def stage(settings: Settings) -> Stage:
    """The stage `benchmark_responses`."""
    return measuring_stage(
        settings,
        BENCHMARK_RESPONSES,
        "The responses of a system, before or after alignment, or of a control, to one benchmark.",
        plan_benchmark_responses,
        DPO_CHECKPOINT.name,
        _forecast,
        asked_from,
        watches=lambda settings: model_files(settings.alignment.base),
        needs=Needs(("pytorch",), pool="video_model"),
    )


def read_items(lake: Lake, benchmark: str) -> pl.DataFrame:
    """The items of a committed benchmark, by item id.

    Raises:
        ResponseError: If no committed benchmark has this name, or it holds no item.
    """
    if lake.manifest(benchmark, WHOLE) is None:
        raise ResponseError(f"benchmark {benchmark!r} is not committed; materialise it first")
    items = lake.read(benchmark_table(benchmark)).sort("item_id")
    if items.is_empty():
        raise ResponseError(f"benchmark {benchmark} holds no item; see its outcomes for the reasons")
    return items


def modality_items(items: pl.DataFrame, most: int) -> list[str]:
    """Ids of the explicitly harmful items to ask with every variant, sorted; at most `most`.

    A second item of a clip is taken only after every clip has one.
    """
    harmful = items.filter(pl.col("explicit") & pl.col("expectation").is_in(HARMFUL))
    ranked = sorted(
        harmful.select("clip_id", "item_id").iter_rows(), key=lambda item: content_id("modality", item[1])
    )
    seen: dict[str, int] = {}
    turns: list[tuple[int, int, str]] = []
    for place, (clip_id, item_id) in enumerate(ranked):
        turn = seen[clip_id] = seen.get(clip_id, -1) + 1
        turns.append((turn, place, item_id))
    return sorted(item_id for _, _, item_id in sorted(turns)[:most])


def plan_requests(
    items: pl.DataFrame, modality: Sequence[str], seeds: Sequence[int]
) -> Iterator[BenchmarkRequest]:
    """The requests for each seed: every item with its own video, those of `modality` with all variants."""
    rows = rows_of(items, DescribedItem)
    chosen = set(modality)
    for item in rows:
        for variant in VARIANTS if item.item_id in chosen else VARIANTS[:1]:
            shown = _shown(item, variant, rows)
            if shown is None and variant == "irrelevant":
                continue
            for seed in seeds:
                yield BenchmarkRequest(item, variant, seed, shown)


def _shown(item: DescribedItem, variant: Variant, items: Sequence[DescribedItem]) -> DescribedItem | None:
    """The item whose clip is shown. None if no clip is shown or no other clip fits."""
    if variant == "right":
        return None if item.media == "none" else item
    return _other_clip(item, items) if variant == "irrelevant" else None


def _other_clip(item: DescribedItem, items: Sequence[DescribedItem]) -> DescribedItem | None:
    """The irrelevant clip for an item: another scene, another file and another twin group. None if none."""
    others = {
        other.clip_id: other
        for other in items
        if other.scene != item.scene
        and other.media_sha256 != item.media_sha256
        and (other.twin_group is None or other.twin_group != item.twin_group)
    }
    if not others:
        return None
    return min(others.values(), key=lambda other: content_id("other", item.item_id, other.clip_id))


def _adapters(lake: Lake, system: System) -> dict[int, Path | None]:
    """Seed -> the folder of its adapter. An untrained system has the seed 0 and the adapter None."""
    if system.is_function or system.data_scale == 0:
        return {0: None}
    trained = lake.read(DPO_CHECKPOINT, system.name)
    if trained.is_empty():
        raise ResponseError(f"system {system.name} has no checkpoint; materialise dpo_checkpoint first")
    checkpoints = trained.sort("seed").select("seed", "checkpoint").iter_rows()
    return {seed: lake.local_directory(checkpoint) for seed, checkpoint in checkpoints}


def _identity(
    settings: Settings,
    system: System,
    adapters: Mapping[int, Path | None],
    requests: Sequence[BenchmarkRequest],
) -> str:
    """Hash of everything that decides a system's responses besides the items.

    The hash of a function is that of all its responses.
    """
    if system.is_function:
        return settings_hash(system.name, _control_answers(system, requests))
    model = settings.alignment.base
    weights = [checkpoint_identity(model, adapter) for adapter in adapters.values()]
    sampling = model.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    return settings_hash(list(adapters), weights, sampling, system.system_prompt)


def _control_answers(system: System, requests: Sequence[BenchmarkRequest]) -> list[str | None]:
    return [CONTROLS[system.name](request.item, request.request_id) for request in requests]


def _control_rows(system: System, requests: Sequence[BenchmarkRequest]) -> StageRows:
    rows: list[dict[str, Any]] = []
    outcomes: list[tuple[str, Outcome, str]] = []
    for request, text in zip(requests, _control_answers(system, requests), strict=True):
        if text is None:
            outcomes.append((request.request_id, "filtered", f"{system.name}: the item has no description"))
        else:
            outcomes.append((request.request_id, "ok", ""))
            rows.append(_row(system, request, text, system.name, "", None))
    return StageRows(BENCHMARK_RESPONSES.frame(rows), outcomes, _info(requests) | spend_info())


def _model_rows(
    settings: Settings,
    lake: Lake,
    system: System,
    requests: Sequence[BenchmarkRequest],
    adapters: Mapping[int, Path | None],
    gateway: Gateway,
    files: BenchmarkFiles | None,
) -> StageRows:
    model = settings.alignment.base
    kept = {"frames", "dtype", "max_new_tokens", "temperature", "repetition_penalty"}
    generation = model.model_dump(mode="json", include=kept) | {"system_prompt": system.system_prompt}
    rows: list[dict[str, Any]] = []
    outcomes: list[tuple[str, Outcome, str]] = []
    answers: list[ChatAnswer] = []
    for seed, adapter in adapters.items():
        mine = [request for request in requests if request.seed == seed]
        chat = open_video_chat(model, gateway, adapter=adapter)
        given = chat.answer_many(
            [_question(lake.media, request, files, system.system_prompt) for request in mine],
            asset=BENCHMARK_RESPONSES.name,
        )
        answers += given
        adapted = lake.address_of(adapter) if adapter else None
        used = json.dumps({**generation, "adapter": adapted}, sort_keys=True)
        for request, answer in zip(mine, given, strict=True):
            outcomes.append((request.request_id, answer.outcome, answer.reason))
            if answer.outcome == "ok":
                name = Path(model.path).name
                rows.append(
                    _row(system, request, answer.text or "", name, used, answer.request_key, cut=answer.cut)
                )
    return StageRows(BENCHMARK_RESPONSES.frame(rows), outcomes, _info(requests) | spend_info(answers))


def _question(
    index: MediaIndex, request: BenchmarkRequest, files: BenchmarkFiles | None, system: str | None
) -> VideoQuestion:
    query = request.item.query
    # A blank video has the length and size of the item's own video.
    clip = request.shown or (request.item if request.variant == "blank" else None)
    if clip is None:
        return VideoQuestion(query, video="none", system=system)
    media = clip.media_sha256
    file = index.file(media)
    if clip.is_picture:
        as_image = files is not None and files.image_as == "image"
        return VideoQuestion(query, file, media, video="image" if as_image else "still", system=system)
    return VideoQuestion(
        query,
        path=file,
        media_sha256=media,
        start_s=clip.start_s or 0.0,
        end_s=clip.end_s,
        video="blank" if request.variant == "blank" else "right",
        system=system,
    )


def _row(
    system: System,
    request: BenchmarkRequest,
    text: str,
    model: str,
    used: str,
    request_key: str | None,
    cut: bool = False,
) -> dict[str, Any]:
    return {
        "response_id": content_id(system.name, request.request_id),
        "request_id": request.request_id,
        **{name: getattr(request.item, name) for name in _ITEM_COLUMNS},
        "system": system.name,
        "policy": system.policy,
        "data_scale": system.data_scale,
        "seed": request.seed,
        "variant": request.variant,
        "media_sha256": request.shown.media_sha256 if request.shown else None,
        "text": text,
        "cut": cut,
        "model": model,
        "settings": used,
        "request_key": request_key,
    }


def _info(requests: Iterable[BenchmarkRequest]) -> dict[str, Any]:
    counts = dict.fromkeys(VARIANTS, 0)
    for request in requests:
        counts[request.variant] += 1
    return {f"asked_{variant}": number for variant, number in counts.items()}
