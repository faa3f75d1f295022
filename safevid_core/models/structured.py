"""Reading JSON answers: a step of its own over stored text, which never asks again by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

_OPENING = re.compile(r"[{\[]")


def _told_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. One that names a key twice is broken: a value may be quoted without escapes."""
    told = dict(pairs)
    if len(told) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return told


_DECODER = json.JSONDecoder(object_pairs_hook=_told_once)
Schema = TypeVar("Schema", bound=BaseModel)


class UnreadableAnswer(ValueError):
    """A text that does not hold what was asked for; the message says what is wrong with it."""


def read_as(schema: type[Schema], text: str) -> Schema:
    """The JSON value in a text that fits the schema.

    Raises:
        UnreadableAnswer: If none does, or if several do and differ: one of them may be a draft, or quoted. So
            may one beside broken JSON that names a field of the schema.
    """
    wrong, broken = "no JSON object found", False
    fitting: list[Schema] = []
    for found, is_whole in json_regions(text):
        if not is_whole:
            broken |= any(f'"{name}"' in found for name in schema.model_fields)
            continue
        try:
            fitting.append(schema.model_validate_json(found))
        except ValidationError as error:
            worst = error.errors()[0]
            where = ".".join(str(part) for part in worst["loc"]) or "the object"
            wrong = f"{where}: {worst['msg']}"
    if any(each != fitting[0] for each in fitting):
        raise UnreadableAnswer(f"it holds {len(fitting)} objects that differ; give one")
    if not fitting:
        raise UnreadableAnswer(wrong)
    if broken:
        raise UnreadableAnswer("it holds an object that is no JSON beside one that is; give one")
    return fitting[0]


def json_values(text: str) -> Iterator[str]:
    """The JSON objects and arrays of a text in order, whatever prose or code fence surrounds them.

    What is inside a broken object is no value of the text: it is a part of what was meant, or a quotation.
    """
    for found, is_whole in json_regions(text):
        if is_whole:
            yield found


def json_regions(text: str) -> Iterator[tuple[str, bool]]:
    """Each outermost object or array of a text, and whether it is JSON; a broken one to its last bracket."""
    at = 0
    while (match := _OPENING.search(text, at)) is not None:
        try:
            _, at = _DECODER.raw_decode(text, match.start())
        except ValueError:
            at = _end_of_broken(text, match.start())
            yield text[match.start() : at], False
        except RecursionError:  # brackets without end; what follows is no better
            return
        else:
            yield text[match.start() : at], True


def _end_of_broken(text: str, start: int) -> int:
    """Where a bracket that opens at `start` is closed, or the text's end if it never is.

    Brackets within quotation marks do not count, as far as the marks go by pairs.
    """
    depth, quoted, escaped = 0, False, False
    for place in range(start, len(text)):
        sign = text[place]
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif sign == '"':
            quoted = not quoted
        elif not quoted and sign in "{[":
            depth += 1
        elif not quoted and sign in "}]":
            depth -= 1
            if depth == 0:
                return place + 1
    return len(text)
