"""Parsing of JSON answers. It works on stored text and asks no model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, ModelWrapValidatorHandler, PrivateAttr, ValidationError, model_validator

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


@dataclass(frozen=True)
class Misfit:
    """An item of a list that does not fit the schema of its list.

    Attributes:
        given: The item as it was given.
        reason: What is wrong with it, in one line. Example: "strength: Field required".
    """

    given: Any
    reason: str


def told_of_misfits(misfits: Sequence[Misfit], what: str, most: int = 3) -> str:
    """What is wrong with the first misfits, in one line. Empty if there are none.

    Args:
        what: Whose item it is, in words. Example: "a candidate of the asker".
        most: How many are told. Defaults to 3.
    """
    lines = [f"{what} cannot be read: {each.reason}" for each in misfits[:most]]
    if len(misfits) > most:
        lines.append(f"{len(misfits) - most} more cannot be read")
    return "; ".join(lines)


class ItemByItem(BaseModel):
    """An answer with lists that are read item by item: a bad item does not spoil the others.

    If no item of a list fits, the answer does not fit. Nothing of a bad item is guessed: it is left out of
    its list and stands in `misfits`. Example: of two ratings, `"strength": 4.5` spoils the first; the list
    then holds the second one.
    """

    read_by_item: ClassVar[tuple[str, ...]]
    """The fields that are lists of models and are read so."""

    _misfits: tuple[Misfit, ...] = PrivateAttr(())

    @property
    def misfits(self) -> tuple[Misfit, ...]:
        """The items that do not fit, in order."""
        return self._misfits

    @model_validator(mode="wrap")
    @classmethod
    def _read_items(cls, given: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        misfits: list[Misfit] = []
        if isinstance(given, dict):
            given = dict(given)
            for name in cls.read_by_item:
                if isinstance(given.get(name), list):
                    (schema,) = get_args(cls.model_fields[name].annotation)
                    given[name], bad = _read_each(schema, name, given[name])
                    misfits += bad
        found = read(given)
        found._misfits = tuple(misfits)
        return found


def _read_each(schema: type[BaseModel], name: str, given: list[Any]) -> tuple[list[BaseModel], list[Misfit]]:
    """The items that fit, and those that do not.

    Raises:
        ValueError: If there are items and none fits. The message describes the first one's error.
    """
    fitting: list[BaseModel] = []
    misfits: list[Misfit] = []
    for each in given:
        try:
            fitting.append(schema.model_validate(each))
        except ValidationError as error:
            misfits.append(Misfit(each, _worst_of(error, "the item")))
    if misfits and not fitting:
        raise ValueError(f"no item of {name} fits; the first: {misfits[0].reason}")
    return fitting, misfits


def _worst_of(error: ValidationError, whole: str) -> str:
    """Where the first error is and what is wrong there, in one line. `whole` names the place of no field."""
    worst = error.errors()[0]
    where = ".".join(str(part) for part in worst["loc"]) or whole
    return " ".join(f"{where}: {worst['msg']}".split())


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
            wrong = _worst_of(error, "the object")
    if any(each != fitting[0] for each in fitting):
        raise UnreadableAnswer(f"it holds {len(fitting)} objects that differ; give one")
    if not fitting:
        raise UnreadableAnswer(wrong)
    if broken:
        raise UnreadableAnswer("it holds an object that is no JSON beside one that is; give one")
    return fitting[0]


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
