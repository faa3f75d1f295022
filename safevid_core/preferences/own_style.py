"""Chosen answers in the policy's own style: for the arm that asks how much of a gain is the responder's.

The policy before alignment is asked for the chosen answer under a system prompt that asks for care, several
times, with the video. Of the answers that pass the checks of a pair, the one with most words in common with
the chosen answer takes its place. So the style is the policy's and the content as near as it gets: the checks
compare strings, and a wrong detail can slip through. A pair without a sound answer is left out.

The request is a setting. A policy that can restate a text is given the chosen answer to restate; one that is
too small for that is asked the query alone, and the choice among its answers does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safevid_core.descriptions.synthesis import shared_video_chat, video_model_hash, video_model_identity
from safevid_core.lake import Lake, StageReport, frame_hash, run_stage, settings_hash
from safevid_core.models.llm import ChatAnswer, Gateway
from safevid_core.models.teacher import spend_info
from safevid_core.models.video_chat import VideoQuestion
from safevid_core.preferences.checks import fault, words_in_common
from safevid_core.records import OWN_STYLE_ANSWERS, PAIRS, Outcome, StageRows
from safevid_core.settings import OwnStyleSettings, Settings, VideoModel

_PAIR_COLUMNS = (
    "pair_id", "scene", "path", "media_sha256", "start_s", "end_s", "expectation", "prompt", "chosen",
    "rejected",
)  # fmt: skip


def make_own_style_answers(settings: Settings, lake: Lake, scene: str, gateway: Gateway) -> StageReport:
    """The chosen answer of every pair of a scene as the policy before alignment would say it.

    Raises:
        CheckpointError: If the policy cannot be loaded.
    """
    own = settings.preferences.own_style
    policy = settings.alignment.base.model_copy(update={"temperature": own.temperature})
    pairs = lake.scan(PAIRS, [scene]).select(_PAIR_COLUMNS).sort("pair_id").collect()

    def compute() -> StageRows:
        questions = [question for pair in pairs.iter_rows(named=True) for question in _questions(pair, own)]
        answers = shared_video_chat(policy, gateway).answer_many(questions, asset=OWN_STYLE_ANSWERS.name)
        rows: list[dict[str, Any]] = []
        outcomes: list[tuple[str, Outcome, str]] = []
        for number, pair in enumerate(pairs.iter_rows(named=True)):
            given = answers[number * own.samples : (number + 1) * own.samples]
            outcome, reason = _outcome(pair, given)
            outcomes.append((pair["pair_id"], outcome, reason))
            if outcome == "ok":
                rows.append(_row(pair, given, policy, own))
        return StageRows(OWN_STYLE_ANSWERS.frame(rows), outcomes, spend_info(answers))

    inputs = {
        "pairs": frame_hash(pairs.drop("path")),
        "policy": video_model_hash(policy),
        "own_style": settings_hash(own),
    }
    return run_stage(lake, OWN_STYLE_ANSWERS, scene, inputs, pairs["pair_id"].to_list(), compute)


def _questions(pair: Mapping[str, Any], own: OwnStyleSettings) -> list[VideoQuestion]:
    request = own.request.replace("{chosen}", pair["chosen"]).replace("{prompt}", pair["prompt"])
    return [
        VideoQuestion(
            request,
            pair["path"],
            pair["media_sha256"],
            pair["start_s"] or 0.0,
            pair["end_s"],
            system=own.system_prompt,
            sample_index=number,
        )
        for number in range(own.samples)
    ]


def _sound(pair: Mapping[str, Any], answers: Sequence[ChatAnswer]) -> list[ChatAnswer]:
    """The answers that could be the pair's chosen one, the nearest to it first."""
    whole = [each for each in answers if each.text is not None and not each.cut]
    sound = [each for each in whole if _fault(pair, each.text or "") is None]
    return sorted(sound, key=lambda each: -words_in_common(each.text or "", pair["chosen"]))


def _fault(pair: Mapping[str, Any], text: str) -> str | None:
    return fault(pair["expectation"], text, pair["rejected"])


def _outcome(pair: Mapping[str, Any], answers: Sequence[ChatAnswer]) -> tuple[Outcome, str]:
    if _sound(pair, answers):
        return "ok", ""
    texts = [each.text for each in answers if each.text is not None and not each.cut]
    if not texts:
        failed = answers[0]
        if failed.cut:
            return "filtered", "own answer: cut off at its limit of tokens; raise max_new_tokens"
        return failed.outcome, f"own answer: {failed.reason}"
    return "filtered", f"none of {len(texts)} own answers is sound; of the first, {_fault(pair, texts[0])}"


def _row(
    pair: Mapping[str, Any], answers: Sequence[ChatAnswer], policy: VideoModel, own: OwnStyleSettings
) -> dict[str, Any]:
    sound = _sound(pair, answers)
    text = (sound[0].text or "").strip()
    return {
        "pair_id": pair["pair_id"],
        "scene": pair["scene"],
        "chosen": text,
        "sound": len(sound),
        "overlap": words_in_common(text, pair["chosen"]),
        "model": f"{policy.path.rsplit('/', 1)[-1]}@{video_model_identity(policy)}",
        "system": own.system_prompt,
        "request_key": sound[0].request_key,
    }
