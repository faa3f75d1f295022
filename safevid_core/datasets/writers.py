"""Who wrote what in a release: each role with its models, how they decode, and their prompts."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from safevid_core.contracts.markdown import markdown_table
from safevid_core.descriptions import reconciliation
from safevid_core.judging.judges.judge import prompt_of
from safevid_core.preferences import responses
from safevid_core.preferences.pair_judge import PairJudge, open_pair_judge, open_second_judge
from safevid_core.queries import prompts
from safevid_core.settings import Settings, TextModel, VideoModel

_OPEN = "–"


@dataclass(frozen=True)
class Writer:
    """How the models of a role are asked, by the settings.

    Attributes:
        temperature: Sampling temperature; 0 is greedy.
        most_tokens: Limit of a reply.
        prompts: Name -> text.
    """

    role: str
    temperature: str
    most_tokens: str
    prompts: Mapping[str, str]


def writers_of(settings: Settings) -> tuple[Writer, ...]:
    """How the models of every role are asked."""
    return tuple(_writers(settings))


def _writers(settings: Settings) -> Iterator[Writer]:
    descriptions, queries, preferences = settings.descriptions, settings.queries, settings.preferences
    for name, describer in descriptions.describers.items():
        yield _video(f"describer {name}", describer, {"description": descriptions.prompt})
    yield _text("reconciler", descriptions.reconciler, {"reconciliation": reconciliation.TASK})
    yield _text("asker", queries.asker, {"walk": prompts.WALK, "candidates": prompts.CANDIDATES})
    yield _text("rater", queries.rater, {"ratings": prompts.RATE, "blind ratings": prompts.RATE_BLIND})
    yield _text("responder", preferences.responder, {"safe response": responses.TASK})
    systems = {"comply": preferences.comply_prompt, "refuse": preferences.refuse_prompt}
    unaligned = responses.unaligned_model(preferences)
    yield _video("unaligned model", unaligned, {name: each for name, each in systems.items() if each})
    yield _judge("pair judge", open_pair_judge(preferences))
    second = open_second_judge(preferences)
    if second is not None:
        yield _judge("second judge", second)


def _text(role: str, model: TextModel, told: Mapping[str, str]) -> Writer:
    return Writer(role, f"{model.temperature:g}", str(model.max_tokens), told)


def _video(role: str, model: VideoModel, told: Mapping[str, str]) -> Writer:
    return Writer(role, f"{model.temperature:g}", str(model.max_new_tokens), told)


def _judge(role: str, judge: PairJudge) -> Writer:
    models = [(seat.name, seat.judge.prompt, seat.model) for seat in judge.seats if seat.model is not None]
    return Writer(
        role,
        ", ".join(f"{model.temperature:g}" for _, _, model in models),
        ", ".join(str(model.max_tokens) for _, _, model in models),
        {name: prompt_of(model, prompt) for name, prompt, model in models},
    )


def who_wrote_what(models: Mapping[str, Sequence[str]], writers: Sequence[Writer]) -> str:
    """The text of the card's section: a table of the roles, and every prompt, folded.

    Args:
        models: Role -> models with their revisions, as the rows name them.
        writers: How they are asked, by the settings. A role without an entry was asked by others.
    """
    of_role = {writer.role: writer for writer in writers}
    rows = [_row(role, names, of_role.get(role)) for role, names in models.items()]
    heads = ("role", "model and revision", "temperature", "most tokens", "prompts")
    of_text: dict[str, list[str]] = defaultdict(list)
    for writer in writers:
        for name, text in writer.prompts.items() if writer.role in models else ():
            of_text[text].append(f"{writer.role} ({name})")
    told = [_folded(asked, text) for text, asked in of_text.items()]
    return "\n\n".join([markdown_table(heads, rows), *told])


def _row(role: str, names: Sequence[str], writer: Writer | None) -> tuple[str, ...]:
    listed = ", ".join(names) or "none"
    if writer is None:
        return role, listed, _OPEN, _OPEN, _OPEN
    given = ", ".join(f"{name} (`{_hash(text)}`)" for name, text in writer.prompts.items())
    return role, listed, writer.temperature, writer.most_tokens, given or "none"


def _folded(asked: Sequence[str], text: str) -> str:
    """A prompt that opens at a click, in a fence that is longer than any in the prompt."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return (
        f"<details><summary>Prompt <code>{_hash(text)}</code>: {', '.join(asked)}</summary>\n\n"
        f"{fence}text\n{text}\n{fence}\n\n</details>"
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
