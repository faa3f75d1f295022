"""What a description claims, and where each witness stands to it.

A claim is one statement about a clip. Each witness asserts it, contradicts it or omits it. The stance of the
measured signals follows from the measurements and not from the reconciler's account of them:

- They confirm a direction, stillness, a colour, flashes and cuts.
- They refute a motion of the thing itself and nothing else. They refute no colour, because a colour that they
  do not list may still be in the clip.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, field_validator

from safevid_core.descriptions.motion_words import described_motion, measured_object_motion
from safevid_core.descriptions.signals.flashes import most_flashes

SIGNAL = "signal"
NO_REASON = "the reconciler gives no reason"
STANCES = ("asserted_by", "omitted_by", "contradicted_by")

SignalStance = Literal["confirms", "refutes", "silent"]
_STANCE_OF: Mapping[SignalStance, str] = {
    "confirms": "asserted_by",
    "refutes": "contradicted_by",
    "silent": "omitted_by",
}
_FLASHES = re.compile(r"\bflash(?:es|ed|ing)?\b|\bflicker\w*|\bstrob\w*|\bblink\w*", re.IGNORECASE)
_CUTS = re.compile(r"\bcuts? to\b|\b(?:jump|hard) cuts?\b|\b(?:scene|shot) changes?\b", re.IGNORECASE)


Kind = Literal[
    "person", "object", "count", "appearance", "colour", "action", "event", "motion", "order", "place",
    "text", "other",
]  # fmt: skip
"""What a claim is about. `KINDS_IN_WORDS` in `reconciliation.py` defines each."""
KINDS: tuple[Kind, ...] = get_args(Kind)


class Claim(BaseModel):
    """One claim and the witnesses' stances to it. Times are seconds from the clip's start.

    Example: "A man pours water over the pan", of kind `action`, from 3.0 to 5.5 s.
    """

    text: str
    kind: Kind = "other"
    asserted_by: list[str] = Field(default_factory=list)
    omitted_by: list[str] = Field(default_factory=list)
    contradicted_by: list[str] = Field(default_factory=list)
    start_s: float | None = None
    end_s: float | None = None

    @field_validator("kind", mode="before")
    @classmethod
    def _known(cls, kind: Any) -> Any:
        """A kind that is not among `KINDS` becomes `other`."""
        return kind if kind in KINDS else "other"

    @field_validator(*STANCES, mode="before")
    @classmethod
    def _listed(cls, names: Any) -> Any:
        """Null is an empty list."""
        return [] if names is None else names

    @field_validator("start_s", "end_s", mode="before")
    @classmethod
    def _seconds(cls, time: Any) -> float | None:
        """A time that is no number, such as "0:03", becomes None. The rest of the answer is still used."""
        number = isinstance(time, int | float) and not isinstance(time, bool)
        return float(time) if number and math.isfinite(time) else None


class DroppedClaim(Claim):
    """A claim that was not kept, and the reason."""

    why: str = NO_REASON

    @field_validator("why", mode="before")
    @classmethod
    def _said(cls, why: Any) -> Any:
        return NO_REASON if why is None else why


def settled(
    claim: Claim, witnesses: Sequence[str], measurements: Mapping[str, Any] | None, duration_s: float | None
) -> dict[str, Any]:
    """The claim as it is stored: one stance for every witness, and times within the clip.

    A reconciler may name a witness that it was not given, name one twice, or leave one out. A name that was
    not given is removed. A witness that is named twice contradicts. A witness that is not named omits.

    The stance of the signals follows from the measurements. A measured colour may be that of another thing,
    so the signals confirm a colour only if the reconciler also names them among those who assert it.

    Args:
        measurements: As `signal_descriptions` holds them. None if the signals are no witness or have no
            figures. The reconciler's account of the signals then stays.
        duration_s: Length of the clip. None if its end is not known.
    """
    stances = {name: _stance(claim, name) for name in witnesses}
    span = _span(claim.start_s, claim.end_s, duration_s)
    if measurements is not None and SIGNAL in stances:
        measured = signal_stance(claim.text, claim.kind, measurements)
        if claim.kind == "colour" and measured == "confirms" and stances[SIGNAL] != "asserted_by":
            measured = "silent"
        stances[SIGNAL] = _STANCE_OF[measured]
        if measured == "confirms":
            span = measured_span(claim.text, measurements) or span
    signal = next((name for name, stance in _STANCE_OF.items() if stances.get(SIGNAL) == stance), None)
    return {
        **claim.model_dump(exclude=set(STANCES)),
        **{stance: [name for name in witnesses if stances[name] == stance] for stance in STANCES},
        "signal": signal,
        "start_s": span[0],
        "end_s": span[1],
    }


def _stance(claim: Claim, witness: str) -> str:
    if witness in claim.contradicted_by:
        return "contradicted_by"
    return "asserted_by" if witness in claim.asserted_by else "omitted_by"


def signal_stance(text: str, kind: str, measurements: Mapping[str, Any]) -> SignalStance:
    """Whether what was measured confirms or refutes a claim, or has nothing to say of it.

    A claim of another kind that names the measured colour or direction is not confirmed. Example: "An older
    man in a grey coat", of kind `appearance`, is more than a measured grey shows.

    Args:
        kind: What the claim is about. A direction is confirmed for the kind `motion`, a colour for `colour`.
        measurements: As `signal_descriptions` holds them.
    """
    said, moved = described_motion(text), measured_object_motion(measurements)
    if said is not None and moved is not None and said != moved:
        return "refutes"
    if kind == "motion" and said is not None and said == moved:
        return "confirms"
    if kind == "colour" and any(
        re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) for name in _colours(measurements)
    ):
        return "confirms"
    flashes = most_flashes(measurements)
    if (flashes and _FLASHES.search(text)) or (measurements.get("cuts_s") and _CUTS.search(text)):
        return "confirms"
    return "silent"


def measured_span(text: str, measurements: Mapping[str, Any]) -> tuple[float, float] | None:
    """From when to when the motion that a claim states was measured; None where it states none."""
    said = described_motion(text)
    direction = "none" if said == "still" else said
    times = [
        (segment["start_s"], segment["end_s"])
        for segment in measurements.get("motion") or []
        if said is not None and segment["direction"] == direction
    ]
    return (min(start for start, _ in times), max(end for _, end in times)) if times else None


def timed_measurements(measurements: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured at which seconds, as a reconciler is told it: motion and cuts, in order."""
    segments = measurements.get("motion") or []
    found = [
        {"what": f"{segment['kind']} moves {segment['direction']}", "start_s": segment["start_s"],
         "end_s": segment["end_s"]}
        for segment in segments
        if segment["direction"] != "none"
    ]  # fmt: skip
    found += [{"what": "cut", "start_s": cut, "end_s": cut} for cut in measurements.get("cuts_s") or []]
    return sorted(found, key=lambda each: (each["start_s"], each["end_s"]))


def _colours(measurements: Mapping[str, Any]) -> list[str]:
    listed = [*(measurements.get("colours") or []), *(measurements.get("moving_colours") or [])]
    return [colour["name"] for colour in listed]


def _span(
    start_s: float | None, end_s: float | None, duration_s: float | None
) -> tuple[float | None, float | None]:
    """The times as they were given, or none where they cannot be right."""
    latest = float("inf") if duration_s is None else duration_s
    given = [each for each in (start_s, end_s) if each is not None]
    if any(not 0 <= each <= latest for each in given) or given != sorted(given):
        return None, None
    return start_s, end_s


def witness_measures(
    claims: Sequence[Mapping[str, Any]], dropped: Sequence[Mapping[str, Any]], witnesses: Sequence[str]
) -> tuple[float, float, float]:
    """Agreement, coverage and contradiction, each 0 to 1; 0 where there is nothing to count.

    Agreement is the share of kept claims that every describer asserts; coverage the share of all
    assertions, kept and dropped, that were kept; contradiction the share of kept claims that somebody
    contradicts. The signals are no describer: they are silent on most kinds of claims.
    """
    models = set(witnesses) - {SIGNAL}
    agreed = [bool(models) and models <= set(claim["asserted_by"]) for claim in claims]
    kept = sum(len(claim["asserted_by"]) for claim in claims)
    lost = sum(max(len(claim["asserted_by"]), 1) for claim in dropped)
    contradicted = [bool(claim["contradicted_by"]) for claim in claims]
    return _share(sum(agreed), len(claims)), _share(kept, kept + lost), _share(sum(contradicted), len(claims))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
