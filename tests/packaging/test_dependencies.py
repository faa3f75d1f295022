"""What the packages import comes with `pip install .`: developers' packages are an extra."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
OWN = {"safevid_core", "safevid_dagster"}


def imported() -> set[str]:
    """Top-level names of the modules of others that the packages import, also inside functions."""
    names: set[str] = set()
    for package in OWN:
        for file in (PROJECT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names.add(str(node.module).partition(".")[0])
    return names - OWN - set(sys.stdlib_module_names)


def installed_with(requirements: list[str]) -> set[str]:
    """The distributions that come with these requirements, theirs included."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in found:
                continue
            found.add((name, extra))
            for each in map(Requirement, requires(name) or ()):
                if each.marker is None or each.marker.evaluate({"extra": extra}):
                    waiting.append(each)
    return {name for name, _ in found}


def test_what_is_imported_is_installed() -> None:
    base = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    there = installed_with(base)
    by_module = packages_distributions()
    missing = {
        module
        for module in imported()
        if module in by_module and not {canonicalize_name(each) for each in by_module[module]} & there
    }
    assert not missing, "name their packages under `dependencies` of pyproject.toml"
    assert {"torch", "dagster", "typer", "s3fs"} <= there
    assert not {"pytest", "ruff", "moto", "playwright"} & there
