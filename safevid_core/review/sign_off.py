"""Reads the files in which people sign for checkpoints and audits.

The file is a YAML list with one entry for each sign-off. Unknown keys are errors, and nothing is executed::

    - checkpoint: 3f0c1e2ab45d67890c1d   # a `checkpoint_id` of `dpo_checkpoint`
      name: Ada Example
      date: 2026-11-24
      note: read the forty responses on which the judges differ
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from safevid_core.review.errors import ReviewError

FILE_NAME = "sign_off.yaml"

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Signature(BaseModel):
    """Who signed, and when."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Words
    date: datetime.date
    note: str = ""


class SignOff(Signature):
    """One person's sign-off that a checkpoint may be used.

    Attributes:
        checkpoint: A `checkpoint_id` of `dpo_checkpoint`.
    """

    checkpoint: Words


Signed = TypeVar("Signed", bound=Signature)


def read_sign_offs(path: Path) -> list[SignOff]:
    """The sign-offs of checkpoints in a file; see :func:`read_signed`."""
    return read_signed(path, SignOff)


def read_signed(path: Path, kind: type[Signed]) -> list[Signed]:
    """The sign-offs of a file, in its order. Empty if the file does not exist.

    Args:
        kind: Model of one entry.

    Raises:
        ReviewError: If the file cannot be read, or an entry lacks a key, has an unknown key or a value of
            the wrong type.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    # PyYAML raises a ValueError for an impossible date and a RecursionError for deep nesting.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ReviewError(f"sign-off file {path} cannot be read: {reason}; correct the YAML") from None
    if not isinstance(entries, list | None):
        raise ReviewError(f"sign-off file {path} must hold a list of sign-offs, each with {_keys(kind)}")
    return [_read(path, kind, number, entry) for number, entry in enumerate(entries or [], start=1)]


def _read(path: Path, kind: type[Signed], number: int, entry: object) -> Signed:
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"sign-off file {path}, entry {number}"
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            raise ReviewError(f"{where}: unknown key {key!r}; it has {_keys(kind)}") from None
        if not key:
            raise ReviewError(f"{where} is no mapping; it has {_keys(kind)}") from None
        raise ReviewError(f"{where}: {key}: {first['msg'].lower()}") from None


def _keys(kind: type[BaseModel]) -> str:
    return ", ".join(kind.model_fields)
