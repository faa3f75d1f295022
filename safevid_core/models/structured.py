"""Reading JSON answers: a step of its own over stored text, which never asks again by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

_OPENING = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder()
Schema = TypeVar("Schema", bound=BaseModel)


class UnreadableAnswer(ValueError):
    """A text that does not hold what was asked for; the message says what is wrong with it."""


def read_as(schema: type[Schema], text: str) -> Schema:
    """The first JSON value in a text that fits the schema.

    Raises:
        UnreadableAnswer: If none does.
    """
    try:
        return schema.model_validate_json(text)  # most answers are the object and nothing else
    except ValidationError:
        wrong = "no JSON object found"
    for found in json_values(text):
        try:
            return schema.model_validate_json(found)
        except ValidationError as error:
            worst = error.errors()[0]
            where = ".".join(str(part) for part in worst["loc"]) or "the object"
            wrong = f"{where}: {worst['msg']}"
    raise UnreadableAnswer(wrong)


def json_values(text: str) -> Iterator[str]:
    """The JSON objects and arrays of a text in order, whatever prose or code fence surrounds them."""
    at = 0
    while (match := _OPENING.search(text, at)) is not None:
        try:
            _, at = _DECODER.raw_decode(text, match.start())
        except ValueError:
            at = match.end()
        except RecursionError:  # brackets without end; what follows is no better
            return
        else:
            yield text[match.start() : at]
