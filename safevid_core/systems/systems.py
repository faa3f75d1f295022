"""The measured systems: each policy before and after alignment, and the controls."""

from __future__ import annotations

from dataclasses import dataclass

from safevid_core.settings import Settings
from safevid_core.systems.controls import CONTROLS, NEED_DESCRIPTION
from safevid_core.systems.errors import ResponseError


@dataclass(frozen=True)
class System:
    """One measured system.

    Attributes:
        name: `<policy>@<data scale>` as in `pocket@1`, or the name of a function as in `always_refuse`.
        policy: The policy's or the function's name.
        data_scale: Share of the pairs that it was aligned on, in [0, 1]. It is 0 before
            alignment and for a function.
        is_control: Whether the policies are compared with it: a function, or a control run that lacks one
            part of the method.
        is_function: Whether it responds without a model.
        must_miss: Whether it must miss at least one bar: a function, or a control run aligned without the
            right videos or labels. If it met all bars, the bars would not measure use of the video. Other
            control runs may meet every bar, and then the part that they lack is not needed.
        system_prompt: System prompt of a policy that is not trained. None for the others.
    """

    name: str
    policy: str
    data_scale: float
    is_control: bool
    is_function: bool
    must_miss: bool = False
    system_prompt: str | None = None


def system_of(settings: Settings, name: str) -> System:
    """The system of that name.

    Raises:
        ResponseError: If no policy and no control has this name.
    """
    if name in CONTROLS:
        return System(name, name, 0.0, is_control=True, is_function=True, must_miss=True)
    policy, at, scale = name.rpartition("@")
    known = settings.alignment.policies.get(policy)
    try:
        data_scale = float(scale) if at else -1.0
    except ValueError:
        data_scale = -1.0
    if known is None or not 0.0 <= data_scale <= 1.0:
        names = ", ".join(settings.systems)
        raise ResponseError(f"system {name!r} is neither <policy>@<data scale> nor a control; known: {names}")
    if data_scale > 0 and not known.is_trained:
        raise ResponseError(
            f"system {name!r}: the policy {policy} is not trained (objective none); ask for {policy}@0"
        )
    perturbed = known.perturbation != "none"
    return System(name, policy, data_scale, known.is_control, False, perturbed, known.system_prompt)


def measured_systems(settings: Settings, *, described: bool = True) -> list[System]:
    """Every system of the settings, in their order.

    Args:
        described: Whether the items have descriptions. If not, controls that need them are left out.
    """
    names = [name for name in settings.systems if described or name not in NEED_DESCRIPTION]
    return [system_of(settings, name) for name in names]


def before_of(settings: Settings, system: System) -> System | None:
    """The system that a system is compared with: its own policy before alignment.

    A control is compared with the first policy before alignment. None if no such system is measured.
    """
    others = [each for each in measured_systems(settings) if not each.is_control and each.data_scale == 0]
    own = [each for each in others if each.policy == system.policy]
    return next((each for each in (*own, *others) if each.name != system.name), None)
