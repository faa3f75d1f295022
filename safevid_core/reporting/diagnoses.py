"""Known ways in which the method fails, looked for in the figures of this run.

Three signatures: the gain is small, harmless requests are refused, the gain does not carry over to benchmarks
that the pipeline did not make. Each says what to look at, with the figures that bear on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from safevid_core.benchmarks.benchmark import OUTSIDE
from safevid_core.contracts.tables import DPO_CHECKPOINT, PAIRS, audit_table
from safevid_core.measurement.bars import SAFETY_GAIN
from safevid_core.measurement.conclusions import points
from safevid_core.measurement.measurement import Measurement
from safevid_core.statistics.intervals import Estimate
from safevid_core.storage.lake import WHOLE, Lake

_MOST_LINES = 5
_FIDELITY = audit_table("description_fidelity_audit")


@dataclass(frozen=True)
class Diagnosis:
    """One signature: whether this run shows it, and what to look at.

    Attributes:
        tag: `seen`, `not seen` or `unknown`.
        kind: How it is shown: `bad`, `good` or `warn`.
        title: The signature in a few words.
        text: The figures that decide it, and what to look at where it is seen.
        lines: The figures that bear on it.
    """

    tag: Literal["seen", "not seen", "unknown"]
    kind: Literal["bad", "good", "warn"]
    title: str
    text: str
    lines: tuple[str, ...] = ()


def diagnose(lake: Lake, measured: Sequence[Measurement]) -> list[Diagnosis]:
    """The three signatures, seen or not. The first measurement is the one that the method is judged by."""
    main = measured[0]
    if main.before is None or main.after is None:
        return []
    return [_little_gain(lake, main), _over_refusal(main), _poor_transfer(main, measured[1:])]


def _little_gain(lake: Lake, main: Measurement) -> Diagnosis:
    title = "Little gain in safety"
    gain = _change(main, "safety_rate")
    if gain is None:
        return _unknown(title, "no change in the safety rate is measured")
    said = f"The safety rate moved by {_size(gain)}; the bar is {points(SAFETY_GAIN)}."
    if (gain.value or 0.0) >= SAFETY_GAIN:
        return Diagnosis("not seen", "good", title, said)
    look = "Look at the descriptions, at the consistency of the pairs, and at how many there are."
    return Diagnosis("seen", "bad", title, f"{said} {look}", tuple(_what_the_pairs_rest_on(lake, main)))


def _what_the_pairs_rest_on(lake: Lake, main: Measurement) -> Iterator[str]:
    assert main.after is not None
    if lake.manifest(_FIDELITY.name, WHOLE) is not None:
        contradicted = lake.read(_FIDELITY).filter(pl.col("measure") == "claims contradicted")
        worst = contradicted.drop_nulls("value").sort("value", descending=True).head(2)
        for row in worst.iter_rows(named=True):
            yield f"descriptions: {row['category']} contradicts {_share(row['value'])} of the kept claims"
    counts = [
        (manifest.outcomes["ok"], sum(manifest.outcomes.values()))
        for scene in lake.partitions(PAIRS.name)
        if (manifest := lake.manifest(PAIRS.name, scene)) is not None
    ]
    asked = sum(total for _, total in counts)
    if asked:
        kept = sum(ok for ok, _ in counts)
        yield f"pairs: {kept:,} of {asked:,} queries gave a pair whose answers differ as they should"
    if lake.manifest(DPO_CHECKPOINT.name, main.after.name) is not None:
        trained = lake.read(DPO_CHECKPOINT, main.after.name)
        if trained.height:
            pairs, accuracy = trained["pairs"][0], trained["reward_accuracy"].mean()
            known = "" if accuracy is None else f"; reward accuracy at the end {_share(float(str(accuracy)))}"
            yield f"data scale: trained on {pairs:,} pairs{known}"


def _over_refusal(main: Measurement) -> Diagnosis:
    title = "Harmless requests are refused"
    change = _change(main, "over_refusal_rate")
    if change is None:
        return _unknown(title, "no change in over-refusal is measured")
    said = f"Over-refusal moved by {_size(change)}."
    if (change.ci_low or 0.0) <= 0:
        return Diagnosis("not seen", "good", title, said)
    look = "Look at policies and criteria, and at how many pairs want a full answer."
    worse = [
        (each.estimate.value, f"{each.category}: helpful rate {_size(each.estimate)}")
        for each in main.category_changes
        if each.column == "subcategory"
        and each.metric == "helpful_rate"
        and each.estimate.value is not None
        and each.estimate.value < 0
    ]
    lines = tuple(line for _, line in sorted(worse)[:_MOST_LINES])
    return Diagnosis("seen", "bad", title, f"{said} {look}", lines)


def _poor_transfer(main: Measurement, others: Sequence[Measurement]) -> Diagnosis:
    """Seen where the gain on an outside benchmark of safety is, with its interval, below the main one's."""
    title = "The gain does not carry over"
    gain = _change(main, "safety_rate")
    outside = [
        (OUTSIDE[each.benchmark].title, change)
        for each in others
        if each.benchmark in OUTSIDE and (change := _change(each, "safety_rate")) is not None
    ]
    if gain is None or not outside:
        return _unknown(title, "no benchmark that others made is measured before and after")
    lines = tuple(f"{name}: {_size(change)}" for name, change in outside)
    behind = [name for name, change in outside if (change.ci_high or 0.0) < (gain.ci_low or 0.0)]
    said = f"{main.benchmark}: {_size(gain)}."
    if not behind:
        return Diagnosis("not seen", "good", title, said, lines)
    look = f"Clearly less on {', '.join(behind)}. Look at what the taxonomy does not name."
    return Diagnosis("seen", "bad", title, f"{said} {look}", lines)


def _change(measured: Measurement, metric: str) -> Estimate | None:
    if measured.after is None:
        return None
    change = measured.difference(measured.after.name, metric)
    return change if change is not None and change.known else None


def _unknown(title: str, why: str) -> Diagnosis:
    return Diagnosis("unknown", "warn", title, f"It cannot be said: {why}.")


def _size(change: Estimate) -> str:
    return f"{points(change.value)} points [{points(change.ci_low)}, {points(change.ci_high)}]"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"
