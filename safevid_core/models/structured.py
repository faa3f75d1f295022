"""Parsing of JSON answers. It works on stored text and asks no model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

_OPENING = re.compile(r"[{\[]")


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. A repeated key is an error, because it may come from an unescaped quotation."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is repeated in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object_without_repeats)
Schema = TypeVar("Schema", bound=BaseModel)


class UnreadableAnswer(ValueError):
    """The text does not fit the schema. The message describes the error."""


def read_as(schema: type[Schema], text: str) -> Schema:
    """Return the JSON value in a text that fits the schema.

    Args:
        schema: A pydantic model.
        text: The answer, with or without prose around the JSON.

    Raises:
        UnreadableAnswer: If no value fits, if several fit and differ, or if there is also broken JSON that
            names a field of the schema. In the last two cases one value may be a draft or a quotation.
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
    """Yield the JSON objects and arrays of a text in order. Prose and code fences are skipped.

    Values inside a broken object are skipped too, because they are parts of it.
    """
    for found, is_whole in json_regions(text):
        if is_whole:
            yield found


def json_regions(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each outermost object or array of a text, and whether it is valid JSON.

    A broken one ends at its closing bracket, or at the end of the text.
    """
    at = 0
    while (match := _OPENING.search(text, at)) is not None:
        try:
            _, at = _DECODER.raw_decode(text, match.start())
        except ValueError:
            at = _end_of_broken(text, match.start())
            yield text[match.start() : at], False
        except RecursionError:  # the text has thousands of opening brackets
            return
        else:
            yield text[match.start() : at], True


def _end_of_broken(text: str, start: int) -> int:
    """Return the index after the bracket that closes the one at `start`. The text's length if none does.

    Brackets between a pair of quotation marks do not count.
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
