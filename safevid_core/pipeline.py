"""The method as a registry of stages: the one place that knows every room."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from safevid_core.alignment import dpo
from safevid_core.audits import (
    drift,
    fidelity,
    loss_of_detail,
    pair_noise,
    preference_style,
    robustness,
    temporal,
)
from safevid_core.benchmarks import benchmark, safevidbench_base, safevidbench_challenge
from safevid_core.contracts.errors import SafeVidError
from safevid_core.corpus import clip_manifest, scene_assignments, selection, split
from safevid_core.datasets import imports, pair_yield, release
from safevid_core.descriptions import lossy, reconciliation, signal, synthesis
from safevid_core.judging import validation
from safevid_core.measurement import scores
from safevid_core.pocket import sources
from safevid_core.preferences import own_style
from safevid_core.preferences import responses as pairs
from safevid_core.promotion import decision
from safevid_core.queries import generation, pair_allocation
from safevid_core.queries import plan as query_plan
from safevid_core.reporting import scorecard, videos
from safevid_core.review import pairs as review_pairs
from safevid_core.settings import Settings
from safevid_core.stages.registry import Registry
from safevid_core.stages.stage import Stage
from safevid_core.systems import responses


class ExtensionError(SafeVidError, ValueError):
    """A module of the settings that adds no stages."""


def build_registry(settings: Settings) -> Registry:
    """All stages of the method by these settings, and those of the modules that `stages` names.

    Raises:
        ExtensionError: If such a module cannot be imported or has no tuple `STAGES`.
        RegistryError: If the stages do not fit together.
    """
    stages = [*_method(settings), *_extensions(settings.stages)]
    registered = Registry(stages)
    stages.append(scorecard.stage_over(list(registered)))
    return Registry([*stages, decision.stage(settings), videos.stage(settings)])


def _method(settings: Settings) -> Iterable[Stage]:
    """The stages in the order in which the method makes them, but for the reports on all of them."""
    yield from (sources.STAGE, clip_manifest.STAGE, scene_assignments.STAGE, split.STAGE, selection.STAGE)
    yield from synthesis.stages(settings)
    yield signal.STAGE
    yield reconciliation.stage(settings)
    yield from (fidelity.stage(settings), loss_of_detail.STAGE, temporal.stage(settings))
    plans = query_plan.stages(settings)
    yield pair_allocation.STAGE
    yield from (*plans[:1], *generation.STAGES[:1], *pairs.STAGES[:1])
    yield from imports.stages(settings)
    yield from (review_pairs.STAGE, pair_noise.stage(settings), release.stage(settings))
    yield from (pair_yield.STAGE, preference_style.STAGE, own_style.STAGE)
    yield from (*plans[1:2], *generation.STAGES[1:2], *pairs.STAGES[1:2])
    yield from (
        lossy.stage(settings),
        *plans[2:],
        *generation.STAGES[2:],
        *pairs.STAGES[2:],
    )
    yield from (
        safevidbench_base.PLAN_STAGE,
        safevidbench_base.STAGE,
        safevidbench_challenge.STAGE,
        *benchmark.STAGES,
    )
    yield from (drift.STAGE, dpo.STAGE)
    yield from (responses.stage(settings), scores.stage(settings))
    yield from (robustness.STAGE, validation.STAGE)


def _extensions(modules: Iterable[str]) -> Iterable[Stage]:
    for name in modules:
        try:
            found = importlib.import_module(name).STAGES
        except ImportError as error:
            raise ExtensionError(
                f"stages: module {name} cannot be imported ({error}); check the name, "
                "and that the module is in the working folder or on PYTHONPATH"
            ) from None
        except AttributeError:
            raise ExtensionError(f"stages: module {name} has no tuple STAGES; give it one") from None
        yield from found
