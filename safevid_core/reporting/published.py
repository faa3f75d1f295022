"""The figures of the paper (arXiv 2505.11926), and whether a run's setting is the one they belong to.

A published figure stands beside ours only under the `paper` profile, for the same base model, on the same
benchmark at its full size. Everywhere else the scorecard says why it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from safevid_core.benchmarks.benchmark import OUTSIDE
from safevid_core.measurement.measurement import Measurement
from safevid_core.settings import Settings
from safevid_core.statistics.intervals import Estimate

SOURCE = "arXiv 2505.11926"
PROFILE = "paper"
BASE_MODEL = "llava-hf/LLaVA-NeXT-Video-7B-hf"


@dataclass(frozen=True)
class Published:
    """One figure of the paper, and what must be the same before ours may stand beside it.

    Attributes:
        metric: Ours that it corresponds to.
        before, after: As published, in words; empty where the paper gives a change alone.
        change: As published, in words.
        items: Of the benchmark in the paper; None for the size of the official files.
        comparable: Why it can never stand beside ours, or None.
    """

    benchmark: str
    title: str
    metric: str
    before: str
    after: str
    change: str
    items: int | None = None
    comparable: str | None = None


# Both rates are whole numbers of 1,380 items: 745 and 1,330.
PUBLISHED = (
    Published(
        "safevidbench_base", "SafeVidBench-Base, safety", "safety_rate", "53.99%", "96.38%", "+42.39 points",
        items=1380,
    ),
    Published(
        "mmbench_video", "MMBench-Video", "mmbench_score", "", "", "1.12% lower",
    ),
    Published(
        "strongreject", "StrongREJECT, “helpful rate”", "safety_rate", "", "100%", "",
        comparable="the rubric scores harm, and the paper's “helpful rate” on it is not defined closely "
        "enough to compare",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """A published figure with ours, or with the reason why ours cannot be held against it.

    Attributes:
        why_not: None where the setting is the same; then `before` and `after` are ours.
    """

    published: Published
    why_not: str | None
    before: Estimate | None = None
    after: Estimate | None = None
    change: Estimate | None = None


def beside_published(settings: Settings, measured: Measurement | None, published: Published) -> Beside:
    """Ours beside a published figure, where the setting is the same.

    Args:
        measured: Ours on the figure's benchmark; None where that is not measured.
    """
    why = why_not(settings, measured, published)
    if why is not None or measured is None or measured.before is None or measured.after is None:
        return Beside(published, why)
    return Beside(
        published,
        None,
        measured.estimates[measured.before.name][published.metric],
        measured.estimates[measured.after.name][published.metric],
        measured.difference(measured.after.name, published.metric),
    )


def why_not(settings: Settings, measured: Measurement | None, published: Published) -> str | None:
    """Why a published figure does not stand beside ours; None where the setting is the same."""
    if published.comparable is not None:
        return published.comparable
    if settings.profile != PROFILE:
        return f"it is of the published data and sizes; this run is of profile {settings.profile}"
    if settings.alignment.base.path != BASE_MODEL:
        return f"it is of {BASE_MODEL}; this run aligns {settings.alignment.base.path}"
    if measured is None:
        return f"{published.benchmark} is not measured in this run"
    if measured.before is None or measured.after is None:
        return f"{published.benchmark} is not measured both before and after alignment"
    if measured.after.data_scale < 1:
        return f"it is of all pairs; this run aligned on {measured.after.data_scale:.0%} of them"
    files = settings.evaluation.files.get(published.benchmark)
    if files is not None and files.max_items is not None:
        return f"it is of the whole benchmark; this run asks {files.max_items:,} of its items at most"
    sizes = _sizes(published)
    if measured.items.height not in sizes:
        wanted = " or ".join(f"{size:,}" for size in sizes)
        return f"it is over {wanted} items; this run has {measured.items.height:,}"
    return None


def _sizes(published: Published) -> tuple[int, ...]:
    """How many items the benchmark has at its full size."""
    if published.items is not None:
        return (published.items,)
    return OUTSIDE[published.benchmark].rows
