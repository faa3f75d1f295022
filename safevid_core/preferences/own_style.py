"""Chosen answers in the policy's own style. They show how much of a gain the responder's style explains.

The policy before alignment is asked for the chosen answer under a system prompt that asks for care, several
times, with the video. Of the answers that the pair judge finds sound, the one with most words in common with
the chosen answer takes its place. So the style is the policy's and the content as near as it gets. A pair
without a sound answer is left out.

The request is a setting. A policy that can restate a text is given the chosen answer to restate; one that is
too small for that is asked the query alone, and the choice among its answers does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import Pair, rows_of
from safevid_core.contracts.tables import OWN_STYLE_ANSWERS, PAIRS
from safevid_core.descriptions.tracks import if_trained_on
from safevid_core.estimates.budget import BUDGET
from safevid_core.judging.judges.judge import Verdict
from safevid_core.models.llm import ChatAnswer
from safevid_core.models.teacher import spend_info
from safevid_core.models.video_chat import VideoQuestion, model_files
from safevid_core.models.video_model import shared_video_chat, video_model_hash, video_model_identity
from safevid_core.preferences.facts import fact_against, same_words, words_in_common
from safevid_core.preferences.pair_judge import (
    Assessment,
    PairJudge,
    decide,
    judge_input,
    open_pair_judge,
    prompt_files,
)
from safevid_core.settings import OwnStyleSettings, Settings, VideoModel
from safevid_core.stages.partitions import BY_SCENE
from safevid_core.stages.stage import ExpectedRows, Forecast, Needs, Plan, Questions, Stage, Tools
from safevid_core.storage.lake import frame_hash, settings_hash
from safevid_core.storage.media import MediaIndex

_PAIR_COLUMNS = (
    "pair_id", "scene", "media_sha256", "start_s", "end_s", *INTENT_COLUMNS, "policy", "principle",
    "subcategory", "prompt", "chosen", "rejected", "rejected_score",
)  # fmt: skip


def plan_own_style_answers(tools: Tools, scene: str) -> Plan:
    """Plan the chosen answer of every pair of a scene as the policy before alignment would say it.

    Raises:
        CheckpointError: If the policy cannot be loaded.
        JudgeError: If the pair judge cannot be opened.
    """
    preferences = tools.settings.preferences
    own, policy, judge = preferences.own_style, _policy(tools.settings), open_pair_judge(preferences)
    min_margin = preferences.min_margin
    frame = tools.lake.scan(PAIRS, [scene]).sort("pair_id").collect()
    pairs = rows_of(frame, Pair)

    def questions() -> list[VideoQuestion]:
        return [question for pair in pairs for question in _questions(tools.lake.media, pair, own)]

    def make(pair_ids: Sequence[str]) -> StageRows:
        chat = shared_video_chat(policy, tools.gateway)
        answers = chat.answer_many(questions(), asset=OWN_STYLE_ANSWERS.name)
        given = [answers[start : start + own.samples] for start in range(0, len(answers), own.samples)]
        samples = [_usable(pair, some) for pair, some in zip(pairs, given, strict=True)]
        judged = iter(_assessed(judge, pairs, samples, tools))
        rows: list[dict[str, Any]] = []
        outcomes: list[tuple[str, Outcome, str]] = []
        replies: list[ChatAnswer] = []
        for pair, some, usable in zip(pairs, given, samples, strict=True):
            verdicts = [next(judged) for _ in usable]
            replies += [reply for each in verdicts for reply in each.answers]
            rejected = Assessment(Verdict(success=False), pair.rejected_score or 0.0)
            sound = [
                answer
                for answer, each in zip(usable, verdicts, strict=True)
                if decide(each, rejected, min_margin)[0] == "ok"
            ]
            why = None if sound else _why_none(some, verdicts)
            outcomes.append((pair.pair_id, *(why or ("ok", ""))))
            if sound:
                rows.append(_row(pair, sound, policy, own))
        return StageRows(OWN_STYLE_ANSWERS.frame(rows), outcomes, spend_info(answers, replies))

    inputs = {
        "pairs": frame_hash(frame.select(_PAIR_COLUMNS)),
        "policy": video_model_hash(policy),
        "own_style": settings_hash(own),
        "pair_judge": settings_hash(judge.identity, min_margin),
    }
    asked = Questions(
        policy,
        own.samples * len(pairs),
        lambda: shared_video_chat(policy, tools.gateway).keys(questions()),
    )
    judging = judge.questions(own.samples * len(pairs))
    return Plan(inputs, [pair.pair_id for pair in pairs], make, (asked, *judging))


def _policy(settings: Settings) -> VideoModel:
    """The policy before alignment, at the temperature at which its answers are sampled."""
    temperature = settings.preferences.own_style.temperature
    return settings.alignment.base.model_copy(update={"temperature": temperature})


def _forecast(tools: Tools, scene: str, rows: ExpectedRows) -> Forecast:
    pairs = rows(PAIRS.name, scene)
    asked = tools.settings.preferences.own_style.samples * pairs
    judging = open_pair_judge(tools.settings.preferences).questions(asked)
    return Forecast(pairs, (Questions(_policy(tools.settings), asked), *judging))


STAGE = Stage(
    OWN_STYLE_ANSWERS,
    "preferences",
    "The chosen responses as the policy before alignment would say them: for an ablation.",
    plan_own_style_answers,
    reads=(PAIRS.name,),
    partitions=BY_SCENE,
    wanted=if_trained_on("own_style"),
    forecast=_forecast,
    watches=lambda settings: [*model_files(settings.alignment.base), *prompt_files(settings.preferences)],
    needs=Needs(("pytorch",), pool="video_model"),
    asks=True,
    gates=(BUDGET,),
)


def _questions(media: MediaIndex, pair: Pair, own: OwnStyleSettings) -> list[VideoQuestion]:
    request = own.request.replace("{chosen}", pair.chosen).replace("{prompt}", pair.prompt)
    return [
        VideoQuestion(
            request,
            media.file(pair.media_sha256),
            pair.media_sha256,
            pair.start_s or 0.0,
            pair.end_s,
            system=own.system_prompt,
            sample_index=number,
        )
        for number in range(own.samples)
    ]


def _usable(pair: Pair, answers: Sequence[ChatAnswer]) -> list[ChatAnswer]:
    """The different answers that no fact excludes, the nearest to the pair's chosen response first."""
    whole = {
        each.text: each
        for each in reversed(answers)
        if each.text is not None and fact_against(each.text, cut=each.cut) is None
    }
    different = [each for text, each in whole.items() if not same_words(text, pair.rejected)]
    return sorted(different, key=lambda each: -words_in_common(each.text or "", pair.chosen))


def _assessed(
    judge: PairJudge, pairs: Sequence[Pair], samples: Sequence[Sequence[ChatAnswer]], tools: Tools
) -> list[Assessment]:
    """The pair judge's verdict on every usable answer of every pair."""
    rows = [
        judge_input(pair, answer.text or "", tools.lake.media)
        for pair, usable in zip(pairs, samples, strict=True)
        for answer in usable
    ]
    return judge.assess(rows, tools.gateway, OWN_STYLE_ANSWERS.name)


def _why_none(answers: Sequence[ChatAnswer], verdicts: Sequence[Assessment]) -> tuple[Outcome, str]:
    """Why no answer can take the place of the chosen response."""
    if verdicts:
        first = verdicts[0]
        if all(each.verdict.undecidable is not None for each in verdicts):
            outcome: Outcome = "failed" if all(each.failed for each in verdicts) else "undecidable"
            return outcome, f"pair judge: {first.verdict.undecidable}"
        why = first.verdict.undecidable or first.verdict.reason
        return (
            "filtered",
            f"none of {len(verdicts)} own answers is sound; the judge says of the nearest: {why}",
        )
    failed = next((each for each in answers if each.text is None), None)
    if failed is not None and failed.outcome != "ok":
        return failed.outcome, f"own answer: {failed.reason}"
    facts = [fact_against(each.text or "", cut=each.cut) for each in answers]
    why = next((each for each in facts if each), "it is the rejected response again")
    return "filtered", f"own answer: {why}"


def _row(
    pair: Pair, sound: Sequence[ChatAnswer], policy: VideoModel, own: OwnStyleSettings
) -> dict[str, Any]:
    text = (sound[0].text or "").strip()
    return {
        "pair_id": pair.pair_id,
        "scene": pair.scene,
        "chosen": text,
        "sound": len(sound),
        "overlap": words_in_common(text, pair.chosen),
        "model": f"{policy.path.rsplit('/', 1)[-1]}@{video_model_identity(policy)}",
        "system": own.system_prompt,
        "request_key": sound[0].request_key,
    }
