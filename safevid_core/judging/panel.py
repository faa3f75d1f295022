"""Opens the panel of judges and combines their verdicts.

A benchmark may name a judge of its own. If the settings have a model for this judge, it decides alone on the
items that it judges. `evaluation.panel` decides on all other items. Example: on MMBench-Video the judge
`mmbench_video` decides. The other judges of the settings also give verdicts, for comparison only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safevid_core.judging.errors import JudgeError
from safevid_core.judging.judge_input import JudgeInput
from safevid_core.judging.judges import rubric, string_match
from safevid_core.judging.judges.judge import Judge, Verdict, no_verdict
from safevid_core.judging.judges.registry import JUDGES
from safevid_core.models.llm import ChatAnswer, ChatRequest, Gateway
from safevid_core.models.model_names import declared_families, family_named
from safevid_core.settings import EvaluationSettings, JudgeModel, Settings, TextModel
from safevid_core.stages.stage import Questions
from safevid_core.storage.frames import FrameCache

_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Seat:
    """A judge with the model that the settings give it.

    Attributes:
        name: The name in the settings: the judge's own name, or `<judge>:<label>` if several models have
            the same judge.
        model: The judge's model. None if the judge is local.
    """

    name: str
    judge: Judge
    model: TextModel | None

    @property
    def identity(self) -> str:
        return f"{self.name}={self.judge.identity(self.model)}"

    def described(self) -> dict[str, Any]:
        """The record of the judge: its model, the version of its parser, and its inputs."""
        return {
            "model": self.model.model if self.model else None,
            "revision": self.model.revision if self.model else None,
            "version": self.judge.version,
            "identity": self.judge.identity(self.model),
            "sees": list(self.judge.seen_by(self.model)),
        }


@dataclass(frozen=True)
class Judged:
    """The verdict of one judge on one response.

    Attributes:
        answer: The reply of the judge's model. None if no model was asked.
    """

    verdict: Verdict
    answer: ChatAnswer | None = None

    @property
    def failed(self) -> bool:
        """Whether the judge's model could not be reached, so that it may reply to a later run."""
        if self.answer is None or self.verdict.decided:
            return False
        return self.answer.outcome == "failed" and not (self.answer.tokens_in or self.answer.tokens_out)


def seat_of(settings: EvaluationSettings, name: str) -> Seat:
    """The judge of that name, ready to be asked.

    Raises:
        JudgeError: If the judge is unknown, or the settings give it no model or a fallback model. A fallback
            would replace the validated model by another one.
    """
    model = settings.judge if name == rubric.NAME else settings.judges.get(name)
    return seat_with(name, model, "evaluation.judges")


def seat_with(name: str, model: TextModel | None, where: str) -> Seat:
    """The judge of that name with that model, ready to be asked.

    Args:
        where: The setting that gives the judges their models, for messages. Example: `evaluation.judges`.

    Raises:
        JudgeError: As :func:`seat_of`.
    """
    judge = JUDGES.get(name.partition(":")[0])
    if judge is None:
        raise JudgeError(f"judge {name!r} is not one of: {', '.join(JUDGES)}; correct the settings")
    if judge.ask is None:
        return Seat(name, judge, None)
    if model is None:
        raise JudgeError(f"judge {name} has no model; give it one in {where}.{name}")
    if model.second is not None:
        raise JudgeError(
            f"judge {name} has a second model, which nobody validated; leave out `second` of {model.model}"
        )
    return Seat(name, judge, model)


def own_judge(settings: Settings, named: str | None) -> str | None:
    """The judge that a benchmark names, if the settings have a model for it. None otherwise.

    Args:
        named: The judge that the benchmark names. None if it names none.
    """
    if named is None or named == rubric.NAME:
        return None
    return named if named in settings.evaluation.judges else None


def panel_of(settings: Settings, named: str | None) -> tuple[str, ...]:
    """Names of the judges whose majority is the verdict on a benchmark's items.

    Args:
        named: The judge that the benchmark names. None if it names none.
    """
    own = own_judge(settings, named)
    return (own,) if own is not None else settings.evaluation.panel


@dataclass(frozen=True)
class Panel:
    """The judges of one benchmark.

    Attributes:
        deciding_groups: Groups of judges that decide. The first group with a judge for an item decides on it.
        comparison: Judges that give verdicts for comparison only.
    """

    deciding_groups: tuple[tuple[Seat, ...], ...]
    comparison: tuple[Seat, ...]

    @property
    def seats(self) -> list[Seat]:
        """Every judge of the panel, once."""
        seats = [*(seat for group in self.deciding_groups for seat in group), *self.comparison]
        return list({seat.name: seat for seat in seats}.values())

    def deciding(self, row: JudgeInput) -> tuple[Seat, ...]:
        """The judges that decide on one item."""
        for group in self.deciding_groups:
            if any(seat.judge.declines(row) is None for seat in group):
                return group
        return self.deciding_groups[-1]


def open_panel(settings: Settings, named: str | None = None) -> Panel:
    """The panel of the settings, preceded by the judge that the benchmark names.

    Args:
        named: The judge that the benchmark names. None if it names none.

    Raises:
        JudgeError: If a judge is unknown, has no model, is for comparison only, is named twice, or belongs
            to a family that wrote queries or chosen responses.
    """
    evaluation = settings.evaluation
    refuse_self_judging(evaluation)
    default = evaluation.panel
    if not default or len(set(default)) < len(default):
        raise JudgeError("evaluation.panel must name one judge or more, each once")
    if rubric.NAME in evaluation.judges:
        raise JudgeError("the model of the judge rubric is evaluation.judge; drop evaluation.judges.rubric")
    names = [panel_of(settings, named), default]
    groups = tuple(tuple(seat_of(evaluation, name) for name in group) for group in dict.fromkeys(names))
    deciding = {seat.name for group in groups for seat in group}
    for name in sorted(deciding):
        if JUDGES[name.partition(":")[0]].comparison_only:
            raise JudgeError(f"judge {name} is shown for comparison only; take it out of evaluation.panel")
    others = dict.fromkeys(name for name in (*evaluation.judges, string_match.NAME) if name not in deciding)
    return Panel(groups, tuple(seat_of(evaluation, name) for name in others))


def self_judges(settings: EvaluationSettings) -> dict[str, str]:
    """Judge -> its family, for every judge whose family wrote queries or chosen responses.

    A family of the settings may also be any word of a model string. Example: `scripted`.
    """
    found: dict[str, str] = {}
    for name, model in _models_that_judge(settings).items():
        known = {*_families(name, model), *_WORD.findall(model.model.lower())}
        for family in filter(None, settings.writer_families):
            if {family.lower(), family_named(family)} & known:
                found.setdefault(name, family)
    return found


def _models_that_judge(settings: EvaluationSettings) -> dict[str, JudgeModel]:
    rubric_judge = {rubric.NAME: settings.judge} if rubric.NAME in settings.panel else {}
    return {**settings.judges, **rubric_judge}


def _families(name: str, model: JudgeModel) -> tuple[str, ...]:
    """The families of a judge's model. Empty if neither settings, name nor judge tell any."""
    judge = JUDGES.get(name.partition(":")[0])
    return (*declared_families(model), *(judge.families if judge else ()))


def judges_itself(settings: EvaluationSettings) -> str | None:
    """The first model family that judges and also wrote queries or chosen responses, or None."""
    return next(iter(self_judges(settings).values()), None)


def refuse_self_judging(settings: EvaluationSettings) -> None:
    """Raise an error if a judge's family wrote queries or chosen responses, unless the settings allow it.

    A judge whose family is not known is refused too if `evaluation.writer_families` names any.

    Raises:
        JudgeError: Names the judge and the family.
    """
    if settings.allow_self_judging:
        return
    models = _models_that_judge(settings)
    for name, family in self_judges(settings).items():
        raise JudgeError(
            f"judge {models[name].model} is of family {family!r}, which wrote queries or chosen responses; "
            f"choose another {_key_of(name)}, or set evaluation.allow_self_judging"
        )
    for name, model in models.items() if settings.writer_families else ():
        if not _families(name, model):
            key = _key_of(name)
            raise JudgeError(
                f"{key}: the name {model.model!r} does not tell the model's family, so nobody knows whether "
                f"it is one of evaluation.writer_families; set {key}.family, such as `gpt` or `llama`, or "
                "evaluation.allow_self_judging"
            )


def _key_of(judge: str) -> str:
    return "evaluation.judge" if judge == rubric.NAME else f"evaluation.judges.{judge}"


def judge_rows(seat: Seat, rows: Sequence[JudgeInput], gateway: Gateway, asset: str) -> list[Judged]:
    """The judge's verdict on each row.

    The judge is not asked about rows that it declines. Replies that the ledger holds are used again.
    """
    requests = list(_requests(seat, rows, gateway.frames))
    asked = [request for request in requests if isinstance(request, ChatRequest)]
    answers = iter(gateway.ask_many(asked, asset=asset) if asked else ())
    judged = []
    for row, request in zip(rows, requests, strict=True):
        if isinstance(request, str):
            judged.append(Judged(no_verdict(request)))
        elif request is None:
            judged.append(Judged(seat.judge.parse(None, row)))
        else:
            answer = next(answers)
            judged.append(Judged(_read(seat.judge, answer, row), answer))
    return judged


def requests_about(seat: Seat, rows: Sequence[JudgeInput], gateway: Gateway) -> list[ChatRequest]:
    """The requests that :func:`judge_rows` makes, without those about rows that the judge declines."""
    made = _requests(seat, rows, gateway.frames)
    return [request for request in made if isinstance(request, ChatRequest)]


def combined(given: Sequence[tuple[Seat, Judged]]) -> Verdict:
    """The verdict of several judges: the majority of their decided verdicts on `success`.

    A tie is undecidable. `expected` and the criteria come from the first judge of the majority, and the
    reason joins the reasons of the majority. `refused` is the majority of the judges that give it, None for a
    tie. The score is that of the first judge, because judges have different scales.
    """
    if len(given) == 1:
        return given[0][1].verdict
    decided = [(seat.name, judged.verdict) for seat, judged in given if judged.verdict.decided]
    if not decided:
        return no_verdict("; ".join(f"{seat.name}: {judged.verdict.undecidable}" for seat, judged in given))
    success = _majority([bool(verdict.success) for _, verdict in decided])
    if success is None:
        views = (f"{name} {'success' if verdict.success else 'no success'}" for name, verdict in decided)
        return no_verdict(f"the panel is split: {', '.join(views)}")
    first = next(verdict for _, verdict in decided if verdict.success is success)
    refusals = [verdict.refused for _, verdict in decided if verdict.refused is not None]
    reasons = [f"{name}: {verdict.reason}" for name, verdict in decided if verdict.success is success]
    score = given[0][1].verdict.score
    return Verdict(first.expected, success, _majority(refusals), "; ".join(reasons), score, first.criteria)


def _majority(votes: Sequence[bool]) -> bool | None:
    """The value of more than half of the votes. None for a tie or no votes."""
    counts = Counter(votes)
    return None if counts[True] == counts[False] else counts[True] > counts[False]


def _requests(
    seat: Seat, rows: Sequence[JudgeInput], stored: FrameCache
) -> Iterator[ChatRequest | str | None]:
    """For each row the request, None for a local judge, or the reason why the judge declines it."""
    for row in rows:
        yield seat.judge.declines(row) or seat.judge.request(seat.model, row, stored)


def _read(judge: Judge, answer: ChatAnswer, row: JudgeInput) -> Verdict:
    if answer.text is None:
        return no_verdict(answer.reason or "the judge gave no answer")
    return judge.parse(answer, row)


def prompt_files(settings: Settings) -> list[Path]:
    """The files of the settings that hold published prompts of judges."""
    evaluation = settings.evaluation
    return prompts_of((evaluation.judge, *evaluation.judges.values()))


def prompts_of(models: Iterable[JudgeModel]) -> list[Path]:
    """The files that hold the prompts of some judge models."""
    return [model.prompt for model in models if model.prompt is not None]


def judge_questions(panel: Panel, rows: int) -> tuple[Questions, ...]:
    """The questions to every judge of the panel that has a model: one for each of `rows` responses."""
    return tuple(Questions(seat.model, rows) for seat in panel.seats if seat.model is not None)
