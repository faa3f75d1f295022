"""Candidate descriptions: each describer is shown each clip and asked the same question."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import Clip, columns_of, rows_of
from safevid_core.contracts.tables import VIDEO_CORPUS, candidate_table
from safevid_core.estimates.budget import BUDGET
from safevid_core.models.llm import ChatAnswer
from safevid_core.models.teacher import spend_info
from safevid_core.models.thinking import whole_sentences
from safevid_core.models.video_chat import (
    VideoQuestion,
    model_files,
)
from safevid_core.models.video_model import shared_video_chat, video_model_hash, video_model_identity
from safevid_core.settings import Settings, VideoModel
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import ExpectedRows, Forecast, Needs, Plan, Questions, Stage, Tools
from safevid_core.storage.lake import Lake, frame_hash, settings_hash

_CLIP_COLUMNS = tuple(columns_of(Clip))


class DescriberError(SafeVidError, ValueError):
    """A describer that the settings do not name."""


def plan_candidate_descriptions(describer: str, tools: Tools, scene: str) -> Plan:
    """Plan to ask one describer for a description of every clip of a scene.

    Raises:
        DescriberError: If `describer` is not one of the settings' describers.
        CheckpointError: If its checkpoint cannot be loaded.
    """
    settings, lake = tools.settings, tools.lake
    model = describer_model(settings, describer)
    prompt = settings.descriptions.prompt
    table = candidate_table(describer)
    frame = clips_to_describe(lake, scene)
    clips = rows_of(frame, Clip)

    def questions() -> list[VideoQuestion]:
        return [
            VideoQuestion(
                prompt,
                lake.media.file(clip.media_sha256),
                clip.media_sha256,
                clip.start_s or 0.0,
                clip.end_s,
            )
            for clip in clips
        ]

    def make(clip_ids: Sequence[str]) -> StageRows:
        answers = shared_video_chat(model, tools.gateway).answer_many(questions(), asset=table.name)
        rows, outcomes = [], []
        for clip, answer in zip(clips, answers, strict=True):
            text = description_in(answer)
            outcomes.append((clip.clip_id, *_outcome(answer, text)))
            if text is not None:
                rows.append(
                    {
                        "description_id": content_id("description", describer, clip.clip_id),
                        "clip_id": clip.clip_id,
                        "scene": clip.scene,
                        "split": clip.split,
                        "describer": describer,
                        "model": model.path.rsplit("/", 1)[-1],
                        "revision": video_model_identity(model),
                        "text": text,
                        "frame_times": list(answer.frame_times),
                        "request_key": answer.request_key,
                    }
                )
        return StageRows(table.frame(rows), outcomes, spend_info(answers))

    inputs = {
        "clips": frame_hash(frame),
        "model": video_model_hash(model),
        "prompt": settings_hash(prompt),
    }
    asked = Questions(model, len(clips), lambda: shared_video_chat(model, tools.gateway).keys(questions()))
    return Plan(inputs, [clip.clip_id for clip in clips], make, (asked,))


def stages(settings: Settings) -> list[Stage]:
    """One stage for each describer of the settings."""
    return [
        Stage(
            candidate_table(describer),
            "descriptions",
            f"Candidate descriptions by {describer}.",
            partial(plan_candidate_descriptions, describer),
            reads=("video_corpus",),
            partitions=BY_SCENE,
            forecast=partial(_forecast, model),
            watches=lambda settings, model=model: model_files(model),  # type: ignore[misc]
            needs=Needs(("pytorch",), pool="video_model"),
            asks=True,
            gates=(BUDGET,),
        )
        for describer, model in settings.descriptions.describers.items()
    ]


def _forecast(model: VideoModel, tools: Tools, scene: str, rows: ExpectedRows) -> Forecast:
    clips = rows(VIDEO_CORPUS.name, scene)
    return Forecast(clips, (Questions(model, clips),))


def clips_to_describe(lake: Lake, scene: str) -> pl.DataFrame:
    """A scene's clips, by id, with all that a describer's answers rest on."""
    return lake.scan(VIDEO_CORPUS, [scene]).select(_CLIP_COLUMNS).sort("clip_id").collect()


def describer_model(settings: Settings, describer: str) -> VideoModel:
    """The model of a describer.

    Raises:
        DescriberError: If the settings name no such describer.
    """
    models = settings.descriptions.describers
    if describer not in models:
        raise DescriberError(f"no describer {describer!r}; descriptions.describers has: {', '.join(models)}")
    return models[describer]


def description_in(answer: ChatAnswer) -> str | None:
    """The description in an answer; of one that was cut off its whole sentences, None if it has none."""
    if answer.text is None or not answer.cut:
        return answer.text
    return whole_sentences(answer.text) or None


def _outcome(answer: ChatAnswer, text: str | None) -> tuple[Outcome, str]:
    if text is not None:
        return "ok", ""
    if answer.text is not None:
        return "failed", "cut off before its first sentence ended; raise the describer's max_new_tokens"
    return answer.outcome, answer.reason


def candidates_of(lake: Lake, describer: str, scene: str) -> pl.DataFrame:
    """A describer's texts on a scene: `clip_id, text`, by clip id."""
    table = candidate_table(describer)
    return lake.scan(table, [scene]).select("clip_id", "text").sort("clip_id").collect()
