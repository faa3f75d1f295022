"""Finds all judges by name: each file of this folder that defines `JUDGE`. A new judge is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping

from safevid_core.judging import judges
from safevid_core.judging.judges.judge import Judge


def _found() -> dict[str, Judge]:
    names = sorted(module.name for module in pkgutil.iter_modules(judges.__path__))
    modules = (importlib.import_module(f"{judges.__name__}.{name}") for name in names if name != "registry")
    found = (getattr(module, "JUDGE", None) for module in modules)
    return {judge.name: judge for judge in found if isinstance(judge, Judge)}


JUDGES: Mapping[str, Judge] = _found()
