"""A suite: responses with the right verdict on each, by which judges are validated.

The suite of the package is of real situations. A profile may name another one in `evaluation.suite`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safevid_core.contracts.intent import MAX_CRITERIA, Asks, Expectation, Intent
from safevid_core.judging.errors import JudgeError

SUITE = Path(__file__).parent / "judges" / "adversarial.yaml"


class ValidationQuery(BaseModel):
    """A query with its intent, to which the cases of a suite respond.

    Attributes:
        reference: The right answer, for judges that compare with it. None if there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = Field(min_length=1)
    principle: Literal["harmless", "honest", "helpful"]
    asks: Asks
    target: str = Field(min_length=1)
    premise: str | None = None
    premise_holds: bool | None = None
    expectation: Expectation
    hazard: str | None = None
    criteria: tuple[str, ...] = Field((), max_length=MAX_CRITERIA)
    policy: tuple[str, ...] = ()
    reference: str | None = None


class _CaseOfFile(BaseModel):
    """A case as it stands in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    kind: str = Field(min_length=1)
    query: str
    answer: str
    success: bool
    repeat: int = Field(1, ge=1, le=100_000)


@dataclass(frozen=True)
class ValidationCase:
    """One response with the right verdict on it.

    Attributes:
        kind: Group of the case, for which shares are reported. Example: a refusal followed by help.
        asked: The query with its intent.
        success: Whether a judge should call the response a success.
    """

    id: str
    kind: str
    asked: ValidationQuery
    answer: str
    success: bool

    def row(self) -> dict[str, Any]:
        """The case in the form of a response's row, without a clip."""
        return {**self.asked.model_dump(), "text": self.answer, "variant": "none"}


def load_suite(path: Path | None = None) -> tuple[ValidationCase, ...]:
    """The cases of a suite, in the order of the file.

    Args:
        path: YAML file with `queries`, by name, and `cases`, each of which names one. None means the suite of
            the package.

    Raises:
        JudgeError: If the file cannot be read, a case or a query is malformed, or an id repeats.
    """
    path = path or SUITE
    try:
        stamp = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return _read_suite(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=4)
def _read_suite(path: Path, modified: int, size: int) -> tuple[ValidationCase, ...]:
    try:
        held = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise _unreadable(path, error) from None
    if not isinstance(held, dict) or not all(isinstance(held.get(key), kind) for key, kind in _PARTS.items()):
        raise _fault(f"suite {path}: needs `queries`, by name, and a list of `cases`; add them")
    if not held["cases"]:
        raise _fault(f"suite {path} holds no case; add one, or set evaluation.suite to another file")
    queries = {
        name: _checked(ValidationQuery, each, path, f"query {name}") for name, each in held["queries"].items()
    }
    for name, query in queries.items():
        found = Intent.held_by(query).contradiction()
        if found is not None:
            raise _fault(f"suite {path}, query {name}: it {found}; correct it")
    cases: dict[str, ValidationCase] = {}
    for number, each in enumerate(held["cases"], start=1):
        name = str(each.get("id", number)) if isinstance(each, dict) else str(number)
        case = _checked(_CaseOfFile, each, path, f"case {name}")
        if case.query not in queries:
            raise _fault(
                f"suite {path}, case {name}: no query is named {case.query!r}; add it or correct the name"
            )
        if case.id in cases:
            raise _fault(f"suite {path}: the id {case.id!r} repeats; give each case its own")
        answer = case.answer * case.repeat
        cases[case.id] = ValidationCase(case.id, case.kind, queries[case.query], answer, case.success)
    return tuple(cases.values())


def _unreadable(path: Path, error: Exception) -> JudgeError:
    return _fault(f"suite {path} cannot be read as YAML ({error}); correct evaluation.suite")


def _fault(text: str) -> JudgeError:
    return JudgeError(" ".join(text.split()))


_PARTS = {"queries": dict, "cases": list}
_Checked = TypeVar("_Checked", bound=BaseModel)


def _checked(kind: type[_Checked], value: Any, path: Path, name: str) -> _Checked:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the entry"
        given = "" if first["type"] in ("missing", "extra_forbidden") else f", not {first['input']!r}"[:60]
        raise _fault(f"suite {path}, {name}: {field}: {first['msg']}{given}; correct it") from None


class _OnceLoader(yaml.SafeLoader):
    """Reads YAML and refuses a key that repeats in one mapping, of which the last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if key.value in names and names.count(key.value) > 1:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key.value!r} stands twice in one mapping, line {line}")
        return super().construct_mapping(node, deep)
