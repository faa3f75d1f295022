"""Every error that this project defines is a `SafeVidError`, so that one `except` finds it.

The sources are parsed rather than imported: some modules import torch.
"""

from __future__ import annotations

import ast
import builtins
from pathlib import Path

import pytest

from safevid_core.contracts.errors import SafeVidError
from safevid_core.video.errors import VideoError

# Signals that the module which raises them, or its caller, always catches.
INTERNAL = {"ErrorInAnswer", "ProviderDown", "UnreadableAnswer"}
PACKAGES = ("safevid_core", "safevid_dagster")
REPOSITORY = Path(__file__).parents[2]


def bases_of_classes() -> dict[str, set[str]]:
    """Class name -> names of its bases, over both packages."""
    return {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for package in PACKAGES
        for file in (REPOSITORY / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def is_error(name: str) -> bool:
    known = getattr(builtins, name, None)
    return isinstance(known, type) and issubclass(known, BaseException)


def test_every_error_is_of_the_one_family() -> None:
    bases = bases_of_classes()

    def ancestors(name: str) -> set[str]:
        found = bases.get(name, set())
        return found.union(*map(ancestors, found))

    errors = {name for name in bases if any(map(is_error, ancestors(name)))} - {"SafeVidError"}
    assert len(errors) > 25
    assert {name for name in errors if "SafeVidError" not in ancestors(name)} == INTERNAL


@pytest.mark.parametrize(
    "error",
    [
        VideoError("'a.mp4' is empty; fetch it again"),
    ],
)
def test_errors_with_a_constructor_of_their_own_keep_message_and_place(error: SafeVidError) -> None:
    assert isinstance(error, SafeVidError)
    assert str(error) == error.args[0]
    assert "\n" not in str(error)
