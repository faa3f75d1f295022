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

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.tables import OWN_STYLE_ANSWERS, PAIRS
from safevid_core.descriptions.tracks import if_trained_on
from safevid_core.estimates.budget import BUDGET
from safevid_core.models.llm import ChatAnswer
from safevid_core.models.teacher import spend_info
from safevid_core.models.video_chat import VideoQuestion, model_files
from safevid_core.models.video_model import shared_video_chat, video_model_hash, video_model_identity
from safevid_core.preferences.checks import fault, words_in_common
from safevid_core.settings import OwnStyleSettings, Settings, VideoModel
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import ExpectedRows, Forecast, Needs, Plan, Questions, Stage, Tools
from safevid_core.storage.lake import frame_hash, settings_hash
from safevid_core.storage.media import MediaIndex

_PAIR_COLUMNS = (
    "pair_id", "scene", "media_sha256", "start_s", "end_s", "expectation", "prompt", "chosen",
    "rejected",
)  # fmt: skip


def plan_own_style_answers(tools: Tools, scene: str) -> Plan:
    """Plan the chosen answer of every pair of a scene as the policy before alignment would say it.

    Raises:
        CheckpointError: If the policy cannot be loaded.
    """
    own, policy = tools.settings.preferences.own_style, _policy(tools.settings)
    pairs = tools.lake.scan(PAIRS, [scene]).select(_PAIR_COLUMNS).sort("pair_id").collect()

    def questions() -> list[VideoQuestion]:
        rows = pairs.iter_rows(named=True)
        return [question for pair in rows for question in _questions(tools.lake.media, pair, own)]

    def make(pair_ids: Sequence[str]) -> StageRows:
        chat = shared_video_chat(policy, tools.gateway)
        answers = chat.answer_many(questions(), asset=OWN_STYLE_ANSWERS.name)
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
        "pairs": frame_hash(pairs),
        "policy": video_model_hash(policy),
        "own_style": settings_hash(own),
    }
    asked = Questions(
        policy,
        own.samples * pairs.height,
        lambda: shared_video_chat(policy, tools.gateway).keys(questions()),
    )
    return Plan(inputs, pairs["pair_id"].to_list(), make, (asked,))


def _policy(settings: Settings) -> VideoModel:
    """The policy before alignment, at the temperature at which its answers are sampled."""
    temperature = settings.preferences.own_style.temperature
    return settings.alignment.base.model_copy(update={"temperature": temperature})


def _forecast(tools: Tools, scene: str, rows: ExpectedRows) -> Forecast:
    pairs = rows(PAIRS.name, scene)
    asked = tools.settings.preferences.own_style.samples * pairs
    return Forecast(pairs, (Questions(_policy(tools.settings), asked),))


STAGE = Stage(
    OWN_STYLE_ANSWERS,
    "preferences",
    "The chosen responses as the policy before alignment would say them: for an ablation.",
    plan_own_style_answers,
    reads=(PAIRS.name,),
    partitions=BY_SCENE,
    wanted=if_trained_on("own_style"),
    forecast=_forecast,
    watches=lambda settings: model_files(settings.alignment.base),
    needs=Needs(("pytorch",), pool="video_model"),
    asks=True,
    before=(BUDGET,),
)


def _questions(media: MediaIndex, pair: Mapping[str, Any], own: OwnStyleSettings) -> list[VideoQuestion]:
    request = own.request.replace("{chosen}", pair["chosen"]).replace("{prompt}", pair["prompt"])
    return [
        VideoQuestion(
            request,
            media.file(pair["media_sha256"]),
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
