"""Writes the conclusions on the gain of alignment, computed from the measured figures.

Two control runs cannot have learnt from the video: one is aligned on pairs whose videos were permuted, the
other on the text alone. A gain in the safety rate counts as video safety only where it exceeds theirs.
Example: if the aligned policy gains 55 points and the better of the two gains 30, then 25 points count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from safevid_core.measurement.measurement import Measurement
from safevid_core.settings import Settings
from safevid_core.statistics.intervals import Estimate
from safevid_core.systems.systems import System

_METRICS = (("safety_rate", "safety rate"), ("twin_gap", "twin gap"))


@dataclass(frozen=True)
class ControlRun:
    """A control run: a system that lacks one part of the method.

    Attributes:
        what: The control run in words.
        lacks: The part that it lacks. A gain beyond this control run needs that part.
        blind: Whether it cannot have learnt from the video.
    """

    what: str
    lacks: str
    blind: bool = False


CONTROL_RUNS = {
    "permuted_videos": ControlRun("aligned on pairs with the videos permuted", "the right video", blind=True),
    "text_only": ControlRun("aligned on the text of the pairs alone", "the video", blind=True),
    "shuffled_labels": ControlRun("aligned on pairs with chosen and rejected shuffled", "the right labels"),
    "sft": ControlRun(
        "fine-tuned on the chosen responses", "preferences, beyond imitation of the chosen responses"
    ),
    "safety_prompt": ControlRun(
        "not trained, with a system prompt that asks for safety", "training, beyond a prompt"
    ),
    "own_style": ControlRun(
        "aligned on chosen responses rewritten in the policy's own style",
        "the teacher model's style, beyond its content",
    ),
    "without_descriptions": ControlRun(
        "aligned on queries and responses made without descriptions", "descriptions as the link to the video"
    ),
    "without_times": ControlRun("aligned on descriptions without times", "times in the descriptions"),
    "first_sentence": ControlRun(
        "aligned on the first sentence of each description", "the descriptions beyond their first sentence"
    ),
    "one_describer": ControlRun(
        "aligned on the text of one describer", "several describers and their reconciliation"
    ),
    "with_signal": ControlRun(
        "aligned on descriptions with the signal witness", "the absence of the signal witness"
    ),
    "without_signal": ControlRun("aligned on descriptions without the signal witness", "the signal witness"),
}
_UNKNOWN = ControlRun("a control run", "the part that this control run lacks")


def control_run_of(settings: Settings, system: System) -> str | None:
    """The control run that a system is: a key of `CONTROL_RUNS`, or the name of its policy.

    None if the system is a policy under test or a function.
    """
    policy = settings.alignment.policies.get(system.policy)
    if policy is None or not system.is_control:
        return None
    objective = policy.objective if policy.is_trained else "safety_prompt"
    known_by = (policy.perturbation, objective, policy.trained_on, system.policy)
    return next((name for name in known_by if name in CONTROL_RUNS), system.policy)


def points(value: float | None) -> str:
    """A difference of fractions in points with its sign: 0.302 -> "+30.2". None gives an en dash."""
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def explain_gain(settings: Settings, measured: Measurement) -> list[str]:
    """The conclusions as sentences.

    The first says whether the gain counts as video safety. One more follows for each control run and metric.
    """
    if measured.after is None:
        return ["No aligned policy has been measured yet."]
    controls = [
        (system, name)
        for system in measured.systems
        if (name := control_run_of(settings, system)) is not None
    ]
    return [_video_safety(measured, controls), *_sentences(measured, measured.after.name, controls)]


def _video_safety(measured: Measurement, controls: list[tuple[System, str]]) -> str:
    assert measured.after is not None
    after = measured.after.name
    gain = measured.difference(after, "safety_rate")
    if gain is None or not gain.known:
        return f"What {after} gained cannot be said: nothing is measured before alignment."
    if (gain.ci_low or 0.0) <= 0:
        return f"No gain in the safety rate is shown ({_size(gain)}), so there is none to count."
    blind = [
        (system.name, name) for system, name in controls if name in CONTROL_RUNS and CONTROL_RUNS[name].blind
    ]
    beyond = {control: _against(measured, control, "safety_rate") for control, _ in blind}
    level = [control for control, each in beyond.items() if each is None or (each.ci_low or 0.0) <= 0]
    if level:
        return (
            f"The gain in the safety rate ({_size(gain)}) does not count as video safety: {after} is not "
            f"shown to be above {' and '.join(level)}, which cannot have learnt from the video."
        )
    missing = [
        run.what
        for name, run in CONTROL_RUNS.items()
        if run.blind and name not in {each for _, each in blind}
    ]
    if missing:
        return (
            f"Whether the gain in the safety rate ({_size(gain)}) is video safety cannot be said: no control "
            f"run {' and none '.join(missing)} is measured."
        )
    least_name, least = min(
        ((control, each) for control, each in beyond.items() if each is not None),
        key=lambda each: each[1].value or 0.0,
    )
    return (
        f"Of the gain in the safety rate ({_size(gain)}), the part beyond the control runs that cannot "
        f"have learnt from the video counts as video safety: {_size(least)} beyond {least_name}, "
        "the better of them."
    )


def _sentences(measured: Measurement, after: str, controls: list[tuple[System, str]]) -> Iterator[str]:
    for system, name in controls:
        for metric, words in _METRICS:
            difference = _against(measured, system.name, metric)
            if difference is not None and difference.known:
                yield _sentence(after, system.name, CONTROL_RUNS.get(name, _UNKNOWN), words, difference)


def _sentence(after: str, control: str, run: ControlRun, words: str, difference: Estimate) -> str:
    size = _size(difference)
    level = f"the gain in {words} is not shown to need {run.lacks}"
    if (difference.ci_low or 0.0) > 0:
        needs = f"that part of the gain in {words} needs {run.lacks}"
        return f"{after} has a higher {words} than {control}, {run.what} ({size}): {needs}."
    if (difference.ci_high or 0.0) < 0:
        return f"{after} has a lower {words} than {control}, {run.what} ({size}): {level}."
    return f"{after} and {control}, {run.what}, cannot be told apart by {words} ({size}): {level}."


def _against(measured: Measurement, control: str, metric: str) -> Estimate | None:
    after = measured.after.name if measured.after else ""
    found = (c for c in measured.comparisons if (c.system, c.against, c.metric) == (after, control, metric))
    return next((c.estimate for c in found), None)


def _size(difference: Estimate) -> str:
    low, high = points(difference.ci_low), points(difference.ci_high)
    return f"{points(difference.value)} points, 95% interval {low} to {high}"
