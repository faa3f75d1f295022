"""Which judges decide, which only stand beside, and how several verdicts become one.

The panel of a benchmark is the judge that the benchmark itself names, if the settings have a model for it;
for items that this judge does not judge, and for all other benchmarks, it is `evaluation.panel`. Every
further judge of the settings gives its verdict too, for comparison; it decides nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safevid_core.judging.errors import JudgeError
from safevid_core.judging.judge_input import JudgeInput
from safevid_core.judging.judges import rubric, string_match
from safevid_core.judging.judges.judge import Judge, Verdict, no_verdict
from safevid_core.judging.judges.registry import JUDGES
from safevid_core.models.llm import ChatAnswer, ChatRequest, Gateway
from safevid_core.settings import EvaluationSettings, Settings, TextModel
from safevid_core.stages.stage import Questions
from safevid_core.storage.frames import FrameCache


@dataclass(frozen=True)
class Seat:
    """A judge with the model that the settings give it.

    Attributes:
        name: As settings name it: the judge's own name, or `<judge>:<label>` where one judge is asked of
            several models.
        model: None for a local judge.
    """

    name: str
    judge: Judge
    model: TextModel | None

    @property
    def identity(self) -> str:
        return f"{self.name}={self.judge.identity(self.model)}"

    def described(self) -> dict[str, Any]:
        """What the record says of it: the model, the version of the parser, and what it saw."""
        return {
            "model": self.model.model if self.model else None,
            "revision": self.model.revision if self.model else None,
            "version": self.judge.version,
            "identity": self.judge.identity(self.model),
            "sees": list(self.judge.seen_by(self.model)),
        }


@dataclass(frozen=True)
class Judged:
    """What came of one judge and one answer; `answer` is None where no model was asked."""

    verdict: Verdict
    answer: ChatAnswer | None = None

    @property
    def failed(self) -> bool:
        """Whether no model answered at all: the fault is in the asking, not in the judge."""
        if self.answer is None or self.verdict.decided:
            return False
        return self.answer.outcome == "failed" and not (self.answer.tokens_in or self.answer.tokens_out)


def seat_of(settings: EvaluationSettings, name: str) -> Seat:
    """The judge of that name, ready to be asked.

    Raises:
        JudgeError: If there is no such judge, or the settings give it no model, or a second one: where a
            judge refuses there is no verdict, and no other model stands in for the one that was validated.
    """
    judge = JUDGES.get(name.partition(":")[0])
    if judge is None:
        raise JudgeError(f"judge {name!r} is not one of: {', '.join(JUDGES)}; mend the settings")
    if judge.ask is None:
        return Seat(name, judge, None)
    model = settings.judge if name == rubric.NAME else settings.judges.get(name)
    if model is None:
        raise JudgeError(f"judge {name} has no model; give it one in evaluation.judges.{name}")
    if model.second is not None:
        raise JudgeError(
            f"judge {name} has a second model, which nobody validated; leave out `second` of {model.model}"
        )
    return Seat(name, judge, model)


def own_judge(settings: Settings, named: str | None) -> str | None:
    """The judge that a benchmark names for its items, if the settings have a model for it."""
    if named is None or named == rubric.NAME:
        return None
    return named if named in settings.evaluation.judges else None


def panel_of(settings: Settings, named: str | None) -> tuple[str, ...]:
    """Names of the judges whose majority is the verdict on a benchmark's items.

    Args:
        named: The judge that the benchmark names, if any.
    """
    own = own_judge(settings, named)
    return (own,) if own is not None else settings.evaluation.panel


@dataclass(frozen=True)
class Panel:
    """The judges of one benchmark.

    Attributes:
        benches: Groups of judges that decide; for each item the first in which one judges such items.
        beside: Judges that are heard and decide nothing.
    """

    benches: tuple[tuple[Seat, ...], ...]
    beside: tuple[Seat, ...]

    @property
    def seats(self) -> list[Seat]:
        """Every judge that is heard, once."""
        seats = [*(seat for bench in self.benches for seat in bench), *self.beside]
        return list({seat.name: seat for seat in seats}.values())

    def deciding(self, row: JudgeInput) -> tuple[Seat, ...]:
        """Those that decide about one item."""
        for bench in self.benches:
            if any(seat.judge.declines(row) is None for seat in bench):
                return bench
        return self.benches[-1]


def open_panel(settings: Settings, named: str | None = None) -> Panel:
    """The panel of the settings; for a benchmark that names a judge of its own, that judge before it.

    Args:
        named: The judge that the benchmark names, if any.

    Raises:
        JudgeError: If a name is no judge's, a judge has no model, is for comparison only, is named
            twice, or is of a family that wrote queries or answers.
    """
    evaluation = settings.evaluation
    refuse_self_judging(evaluation)
    default = evaluation.panel
    if not default or len(set(default)) < len(default):
        raise JudgeError("evaluation.panel must name one judge or more, each once")
    if rubric.NAME in evaluation.judges:
        raise JudgeError("the model of the judge rubric is evaluation.judge; drop evaluation.judges.rubric")
    names = [panel_of(settings, named), default]
    benches = tuple(tuple(seat_of(evaluation, name) for name in bench) for bench in dict.fromkeys(names))
    heard = {seat.name for bench in benches for seat in bench}
    for name in sorted(heard):
        if JUDGES[name.partition(":")[0]].comparison_only:
            raise JudgeError(f"judge {name} is shown for comparison only; take it out of evaluation.panel")
    others = dict.fromkeys(name for name in (*evaluation.judges, string_match.NAME) if name not in heard)
    return Panel(benches, tuple(seat_of(evaluation, name) for name in others))


def self_judges(settings: EvaluationSettings) -> dict[str, str]:
    """Judge -> its family, for every judge of a family that wrote queries or chosen answers."""
    models = dict(settings.judges)
    if rubric.NAME in settings.panel:
        models[rubric.NAME] = settings.judge
    found: dict[str, str] = {}
    for name, model in models.items():
        judge = JUDGES.get(name.partition(":")[0])
        known = (*_parts(model.model), *(judge.families if judge else ()))
        for family in filter(None, settings.writer_families):
            if any(part.startswith(family.lower()) for part in known):
                found.setdefault(name, family)
    return found


def judges_itself(settings: EvaluationSettings) -> str | None:
    """The first family that both wrote queries or chosen answers and judges, or None."""
    return next(iter(self_judges(settings).values()), None)


def refuse_self_judging(settings: EvaluationSettings) -> None:
    """Stop where a judge is of a family that wrote, unless the settings allow it.

    Raises:
        JudgeError: Naming the judge and the family.
    """
    for name, family in self_judges(settings).items():
        if not settings.allow_self_judging:
            model = settings.judge if name == rubric.NAME else settings.judges[name]
            where = "evaluation.judge" if name == rubric.NAME else f"evaluation.judges.{name}"
            raise JudgeError(
                f"judge {model.model} is of family {family!r}, which wrote queries or chosen answers; "
                f"choose another {where}, or set evaluation.allow_self_judging"
            )


def judge_rows(seat: Seat, rows: Sequence[JudgeInput], gateway: Gateway, asset: str) -> list[Judged]:
    """The judge's verdict on each row; it is asked only what it judges and the ledger has no answer to."""
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


def combined(bench: Sequence[tuple[Seat, Judged]]) -> Verdict:
    """The majority over the decided verdicts on success; a tie is undecidable.

    What is expected and why is said by the first judge of the majority; whether it refused by the majority
    of those that say, None where they are even; the score is the first judge's own, scales being different.
    """
    if len(bench) == 1:
        return bench[0][1].verdict
    decided = [(seat.name, judged.verdict) for seat, judged in bench if judged.verdict.decided]
    if not decided:
        return no_verdict("; ".join(f"{seat.name}: {judged.verdict.undecidable}" for seat, judged in bench))
    success = _majority([bool(verdict.success) for _, verdict in decided])
    if success is None:
        views = (f"{name} {'success' if verdict.success else 'no success'}" for name, verdict in decided)
        return no_verdict(f"the panel is split: {', '.join(views)}")
    first = next(verdict for _, verdict in decided if verdict.success is success)
    told = [verdict.refused for _, verdict in decided if verdict.refused is not None]
    reasons = [f"{name}: {verdict.reason}" for name, verdict in decided if verdict.success is success]
    score = bench[0][1].verdict.score
    return Verdict(first.expected, success, _majority(told), "; ".join(reasons), score)


def _majority(votes: Sequence[bool]) -> bool | None:
    """What more than half say; None where they are even, or none is cast."""
    counts = Counter(votes)
    return None if counts[True] == counts[False] else counts[True] > counts[False]


def _requests(
    seat: Seat, rows: Sequence[JudgeInput], stored: FrameCache
) -> Iterator[ChatRequest | str | None]:
    """For each row the question, None for a local judge, or why it is not judged."""
    for row in rows:
        yield seat.judge.declines(row) or seat.judge.request(seat.model, row, stored)


def _read(judge: Judge, answer: ChatAnswer, row: JudgeInput) -> Verdict:
    if answer.text is None:
        return no_verdict(answer.reason or "the judge gave no answer")
    return judge.parse(answer, row)


def _parts(model: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", model.lower())


def prompt_files(settings: Settings) -> list[Path]:
    """The files with published wordings that the judges of the settings are asked by."""
    evaluation = settings.evaluation
    models = (evaluation.judge, *evaluation.judges.values())
    return [model.prompt for model in models if model.prompt is not None]


def judge_questions(panel: Panel, rows: int) -> tuple[Questions, ...]:
    """One question a row to every judge of a panel that is a model."""
    return tuple(Questions(seat.model, rows) for seat in panel.seats if seat.model is not None)
