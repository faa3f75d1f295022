"""Whether what an estimate is asked for exists: a name that is misspelt costs nothing, and says nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from safevid_core import records
from safevid_core.audits import drift, fidelity, loss_of_detail, preference_style, robustness, temporal
from safevid_core.estimates.plan import Planned
from safevid_core.evaluation.benchmarks.benchmark import OUTSIDE
from safevid_core.lake import WHOLE
from safevid_core.settings import LOSSES, Settings
from safevid_core.taxonomy.taxonomy import load_scenes

_AUDITS = (drift, fidelity, loss_of_detail, preference_style, robustness, temporal)
# These make no table.
_TABLELESS = ("pocket_clips", "model_estimate", "model_bill")


class UnknownSelection(ValueError):
    """An asset or a partition that does not exist; the message names it and what is near."""


def check_assets(settings: Settings, assets: Sequence[str]) -> None:
    """Raise `UnknownSelection` for the first name that is no asset's."""
    known = asset_names(settings)
    for asset in assets:
        if asset not in known:
            raise UnknownSelection(f"no asset {asset!r}; {_near(asset, known)}")


def check_partitions(settings: Settings, plan: Sequence[Planned], partitions: Sequence[str]) -> None:
    """Raise `UnknownSelection` for the first name that is no partition of any of the assets.

    Args:
        plan: The calls of the assets that are asked about.
    """
    scenes = list(load_scenes().ids)
    cells = [f"{s}|{b}" for s in settings.systems for b in settings.evaluation.benchmarks]
    arms = [f"{loss}|{scene}" for loss in LOSSES for scene in scenes]
    known = {WHOLE, *scenes, *cells, *arms, *(name for each in plan for name in each.calls)}
    for partition in partitions:
        if partition not in known:
            raise UnknownSelection(f"no partition {partition!r}; {_near(partition, known)}")


def asset_names(settings: Settings) -> set[str]:
    """The names of all assets, those that ask no model among them."""
    tables = {each.name for each in vars(records).values() if isinstance(each, records.Table)}
    described = {records.candidate_table(name).name for name in settings.descriptions.describers}
    audits = {each.TABLE.name for each in _AUDITS}
    return tables | described | audits | set(OUTSIDE) | set(_TABLELESS)


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else "see the assets in the UI (`make ui`)"
