"""Candidate descriptions: each describer is shown each clip and asked the same question."""

from __future__ import annotations

from functools import lru_cache

import polars as pl

from safevid_core.lake import Lake, StageReport, frame_hash, run_stage, settings_hash
from safevid_core.models.llm import ChatAnswer, Gateway
from safevid_core.models.teacher import spend_info
from safevid_core.models.thinking import whole_sentences
from safevid_core.models.video_chat import VideoChat, VideoQuestion, checkpoint_identity, open_video_chat
from safevid_core.records import VIDEO_CORPUS, Outcome, StageRows, candidate_table, content_id
from safevid_core.settings import Settings, VideoModel

_CLIP_COLUMNS = ("clip_id", "scene", "split", "path", "media_sha256", "start_s", "end_s")


class DescriberError(ValueError):
    """A describer that the settings do not name."""


def make_candidate_descriptions(
    settings: Settings, lake: Lake, describer: str, scene: str, gateway: Gateway
) -> StageReport:
    """Ask one describer for a description of every clip of a scene, in one batch.

    Raises:
        DescriberError: If `describer` is not one of the settings' describers.
        CheckpointError: If its checkpoint cannot be loaded.
    """
    model = describer_model(settings, describer)
    prompt = settings.descriptions.prompt
    table = candidate_table(describer)
    clips = clips_to_describe(lake, scene)

    def compute() -> StageRows:
        chat = shared_video_chat(model, gateway)
        questions = [
            VideoQuestion(prompt, clip["path"], clip["media_sha256"], clip["start_s"], clip["end_s"])
            for clip in clips.iter_rows(named=True)
        ]
        answers = chat.answer_many(questions, asset=table.name)
        rows, outcomes = [], []
        for clip, answer in zip(clips.iter_rows(named=True), answers, strict=True):
            text = description_in(answer)
            outcomes.append((clip["clip_id"], *_outcome(answer, text)))
            if text is not None:
                rows.append(
                    {
                        "description_id": content_id("description", describer, clip["clip_id"]),
                        **{name: clip[name] for name in ("clip_id", "scene", "split")},
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
        "clips": frame_hash(clips),
        "model": video_model_hash(model),
        "prompt": settings_hash(prompt),
    }
    return run_stage(lake, table, scene, inputs, clips["clip_id"].to_list(), compute)


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


def video_model_identity(model: VideoModel) -> str:
    """What the weights are: the hash of a local checkpoint, else name and revision."""
    return f"{model.path}@{model.revision}" if model.served_at else checkpoint_identity(model)


def video_model_hash(model: VideoModel) -> str:
    """What decides a video model's answers; where it lies and how it is batched do not."""
    decides = (model.family, model.frames, model.precision, model.max_new_tokens, model.temperature)
    return settings_hash(video_model_identity(model), *decides)


def shared_video_chat(model: VideoModel, gateway: Gateway) -> VideoChat:
    """The chat with a model; the latest stays open, so that a run over all scenes loads it once."""
    return _open(model, gateway, video_model_identity(model))


# One at a time: two large checkpoints side by side would not fit on a device.
@lru_cache(maxsize=1)
def _open(model: VideoModel, gateway: Gateway, identity: str) -> VideoChat:
    return open_video_chat(model, gateway)


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
