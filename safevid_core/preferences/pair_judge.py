"""The pair judge: decides whether two responses to a query are a preference pair.

Judges of the room `judging` judge the chosen and the rejected response by the criteria of the query. A pair
is kept if the chosen response satisfies them, the rejected one does not, and the difference of the shares of
criteria that they meet is at least `preferences.min_margin`.

Example, with three criteria. The chosen response meets all three and is a success; the rejected one meets one
and is none. The margin is 1.00 - 0.33 = 0.67, and the pair is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safevid_core.contracts.outcomes import Outcome
from safevid_core.contracts.rows import Pair, Query
from safevid_core.judging.errors import JudgeError
from safevid_core.judging.judge_input import JudgeInput, ShownMedia
from safevid_core.judging.judges.judge import Verdict
from safevid_core.judging.panel import (
    Seat,
    combined,
    judge_rows,
    prompts_of,
    requests_about,
    seat_with,
)
from safevid_core.models.chat import request_key
from safevid_core.models.llm import ChatAnswer, Gateway
from safevid_core.models.model_names import shared_family, without_family
from safevid_core.settings import JudgeModel, PreferenceSettings
from safevid_core.stages.stage import Questions
from safevid_core.storage.lake import settings_hash
from safevid_core.storage.media import MediaIndex


@dataclass(frozen=True)
class Assessment:
    """The verdict on one response of a pair.

    Attributes:
        verdict: The verdict of the judge, or of the panel.
        score: The share of criteria that the response meets, 0 to 1. The mean over the judges of a panel that
            decide.
        answers: The replies of the judges' models.
        failed: Whether no judge could be reached, so that a later run may get the verdict.
    """

    verdict: Verdict
    score: float
    answers: tuple[ChatAnswer, ...] = ()
    failed: bool = False


@dataclass(frozen=True)
class PairJudge:
    """The judges of the settings."""

    seats: tuple[Seat, ...]

    @property
    def name(self) -> str:
        """The judges with their models and revisions. Example: `rubric (openai/gpt-4o@1)`."""
        return ", ".join(
            f"{seat.name} ({seat.model.model}@{seat.model.revision})" for seat in self.seats if seat.model
        )

    @property
    def identity(self) -> str:
        """Hash of all that decides the verdicts besides the responses."""
        return settings_hash([seat.identity for seat in self.seats])

    def questions(self, responses: int) -> tuple[Questions, ...]:
        """The questions to each judge about so many responses."""
        return tuple(Questions(seat.model, responses) for seat in self.seats if seat.model is not None)

    def questions_about(
        self, rows: Sequence[JudgeInput], open_gateway: Callable[[], Gateway]
    ) -> tuple[Questions, ...]:
        """The questions to each judge about known responses, with their keys in the ledger.

        Responses that a judge declines are not asked about.

        Args:
            open_gateway: Called when the keys are wanted, for the frames that a judge sees.
        """
        asked = []
        for seat in self.seats:
            if seat.model is not None:
                count = sum(seat.judge.declines(row) is None for row in rows)
                asked.append(Questions(seat.model, count, partial(_keys, seat, rows, open_gateway)))
        return tuple(asked)

    def assess(self, rows: Sequence[JudgeInput], gateway: Gateway, asset: str) -> list[Assessment]:
        """The verdict on each response, in order.

        Args:
            asset: Name of the stage that the ledger records the calls under.
        """
        judged = [judge_rows(seat, rows, gateway, asset) for seat in self.seats]
        assessments = []
        for given in zip(*judged, strict=True):
            shares = [each.verdict.share_met for each in given if each.verdict.decided]
            assessments.append(
                Assessment(
                    combined(list(zip(self.seats, given, strict=True))),
                    sum(shares) / len(shares) if shares else 0.0,
                    tuple(each.answer for each in given if each.answer is not None),
                    bool(given) and all(each.failed for each in given),
                )
            )
        return assessments


def _keys(seat: Seat, rows: Sequence[JudgeInput], open_gateway: Callable[[], Gateway]) -> list[str]:
    return [request_key(request) for request in requests_about(seat, rows, open_gateway())]


def open_pair_judge(preferences: PreferenceSettings) -> PairJudge:
    """The judges of `preferences.judges`.

    Raises:
        JudgeError: If a judge is unknown, has a second model, or has no model of its own: a pattern decides
            no pair.
    """
    return _opened(preferences.judges, "preferences.judges")


def open_second_judge(preferences: PreferenceSettings) -> PairJudge | None:
    """The judges of `preferences.second_judge`. None if the settings name none.

    Raises:
        JudgeError: As :func:`open_pair_judge`, and if a judge is of the pair judge's family or if a family is
            not known, unless the settings allow it: judges of one family make the same mistakes.
    """
    if not preferences.second_judge:
        return None
    if not preferences.same_family_second_judge:
        _require_other_family(preferences.second_judge, preferences.judges)
    return _opened(preferences.second_judge, "preferences.second_judge")


def _require_other_family(second: Mapping[str, JudgeModel], judges: Mapping[str, JudgeModel]) -> None:
    allowed = "set preferences.same_family_second_judge"
    ours = {f"preferences.second_judge.{name}": model for name, model in second.items()}
    theirs = {f"preferences.judges.{name}": model for name, model in judges.items()}
    for key, model in (ours | theirs).items():
        unknown = without_family(model, key)
        if unknown is not None:
            raise JudgeError(
                f"{key}: the name {unknown[1]!r} does not tell the model's family, so nobody knows whether "
                f"pair judge and second judge are of one family; set {key}.family, such as `gpt` or `llama`, "
                f"or {allowed}"
            )
    for key, model in ours.items():
        for other_key, other in theirs.items():
            family = shared_family(model, other)
            if family is not None:
                raise JudgeError(
                    f"{key} ({model.model}) is of the family {family!r}, as {other_key} ({other.model}) is; "
                    f"name a second judge of another family, or {allowed}"
                )


def _opened(judges: Mapping[str, JudgeModel], where: str) -> PairJudge:
    seats = []
    for name, model in judges.items():
        seat = seat_with(name, model, where)
        if seat.model is None:
            raise JudgeError(f"judge {name} asks no model and cannot decide pairs; name another in {where}")
        seats.append(seat)
    return PairJudge(tuple(seats))


def prompt_files(preferences: PreferenceSettings) -> list[Path]:
    """The files of the settings that hold prompts of the pair judge."""
    return prompts_of(preferences.judges.values())


def judge_input(asked: Query | Pair, text: str, media: MediaIndex) -> JudgeInput:
    """A response to a query, or to the prompt of a pair, as the judges receive it."""
    file, sha256 = media.file(asked.media_sha256), asked.media_sha256
    shown = ShownMedia(file, sha256, asked.start_s, asked.end_s, "video") if file and sha256 else None
    return JudgeInput(
        query=asked.query if isinstance(asked, Query) else asked.prompt,
        text=text,
        intent=asked.intent,
        policy=tuple(asked.policy or ()),
        principle=asked.principle,
        subcategory=asked.subcategory,
        variant="right",
        media_sha256=sha256,
        shown=shown,
    )


def decide(chosen: Assessment, rejected: Assessment, min_margin: float) -> tuple[Outcome, str]:
    """Whether the two responses are a pair, and why not if they are none."""
    for side, given in (("chosen", chosen), ("rejected", rejected)):
        if given.verdict.undecidable is not None:
            outcome: Outcome = "failed" if given.failed else "undecidable"
            return outcome, f"pair judge on the {side} response: {given.verdict.undecidable}"
    if not chosen.verdict.success:
        return "filtered", f"pair judge: the chosen response is not sound: {chosen.verdict.reason}"
    if rejected.verdict.success:
        return "filtered", f"pair judge: the rejected response is sound as well: {rejected.verdict.reason}"
    margin = margin_of(chosen, rejected)
    if margin < min_margin:
        return "filtered", f"pair judge: the margin {margin:.2f} is under {min_margin:.2f}"
    return "ok", ""


def margin_of(chosen: Assessment, rejected: Assessment) -> float:
    """The difference of the two scores, -1 to 1, rounded to six digits."""
    return round(chosen.score - rejected.score, 6)
