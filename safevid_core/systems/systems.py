"""What is measured: each policy before and after alignment, and the controls beside them."""

from __future__ import annotations

from dataclasses import dataclass

from safevid_core.settings import Settings
from safevid_core.systems.controls import CONTROLS, NEED_DESCRIPTION
from safevid_core.systems.errors import ResponseError


@dataclass(frozen=True)
class System:
    """One measured system.

    Attributes:
        name: `<policy>@<data scale>`, or a control's own name.
        policy: The policy's or the control's name.
        data_scale: Share of the pairs it was aligned on; 0 before alignment and for plain controls.
        is_control: Whether it is held against the policies: a plain function, or an arm that lacks one part
            of the method.
        is_function: Whether it answers without a model.
        must_miss: Whether it must miss a bar, since bars that it meets measure something else than looking
            at the video: a plain function, or an arm aligned without the right videos or labels. The other
            arms are rivals: one that meets every bar shows that what it lacks is not needed.
        system_prompt: What a policy that is not trained is told; None for the others.
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
        ResponseError: If neither a policy nor a control has it.
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
        described: Whether the items carry descriptions; if not, controls that need them are left out.
    """
    names = [name for name in settings.systems if described or name not in NEED_DESCRIPTION]
    return [system_of(settings, name) for name in names]


def before_of(settings: Settings, system: System) -> System | None:
    """What a system is compared with: its own policy before alignment, or the first policy's.

    A control has no before of its own; it is held against the policy that it stands beside.
    """
    others = [each for each in measured_systems(settings) if not each.is_control and each.data_scale == 0]
    own = [each for each in others if each.policy == system.policy]
    return next((each for each in (*own, *others) if each.name != system.name), None)
