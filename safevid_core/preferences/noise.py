"""The noise of the pair labels: how far a second judge agrees with the pair judge, and how many are swapped.

A label is swapped if the rejected response is the better one. The stage `pair_noise` asks the second judge
about a sample. This module makes the figures from its rows:

- Krippendorff's alpha between the two judges over which response is the better one. The two responses are
  named first and second by a seeded draw. Without the draw the pair judge would give every kept pair the same
  label, and alpha would be negative or not defined.
- Krippendorff's alpha over whether a response is a success, with the responses as units.
- The share of pairs that the second judge would swap, of those where it prefers one response.
- The share of labels that are truly swapped. With people's labels it is estimated by double sampling
  (`statistics/double_sampling.py`). Without them it is not identified, because a disagreement does not say
  which judge is wrong. (Hui and Walter 1980, Biometrics 36:167-171, give conditions under which raters
  without a true label identify their errors: two populations, and errors that are independent.) Then only a
  range is given.

The range without labels. Let w be the share of swapped labels, at most 1/2, and e the share of pairs on
which the second judge prefers the worse response, at most 1/2. If its errors do not depend on the pair
judge's, it disagrees on d = w (1 - e) + (1 - w) e of the pairs. So w = (d - e) / (1 - 2 e), which falls from
d at e = 0 to 0 at e = d: w is between 0 and d. Pairs of two equally good responses raise d and not w. If both
judges make the same mistakes, w may be larger. Real judges do: docs/pairs.md, "On real judges".

All intervals are over source videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import polars as pl

from safevid_core.contracts.tables import PAIR_NOISE
from safevid_core.preferences.pair_judge import Assessment
from safevid_core.statistics.agreement import Figure, krippendorff_alpha
from safevid_core.statistics.detection import Proportion
from safevid_core.statistics.double_sampling import double_sampled_share
from safevid_core.statistics.intervals import Estimate, Sample, estimate
from safevid_core.storage.lake import Lake

Preferred = Literal["chosen", "rejected", "neither"]
_NOTHING = Figure(None, None, None, 0)
_FIGURES = ("alpha_pairs", "alpha_responses", "would_swap", "true_share")


@dataclass(frozen=True)
class PairNoise:
    """What the second judge says of the sampled pairs.

    Attributes:
        second_judge: The judges with their models and revisions. Empty if none is set.
        sampled: Pairs of the sample.
        same: Sampled pairs on which the second judge prefers the chosen response.
        swapped: Sampled pairs on which it prefers the rejected response.
        neither: Sampled pairs on which it prefers neither.
        no_verdict: Outcome -> number of the sampled pairs for which it gives no verdict: `undecidable`, or
            `failed` if it could not be reached.
        alpha_pairs: Krippendorff's alpha over which response is the better one.
        alpha_responses: Krippendorff's alpha over whether a response is a success.
        would_swap: Share that it would swap, of the pairs where it prefers one response.
        labelled: Pairs that people labelled and the second judge judged.
        labelled_swapped: Those that people say are swapped.
        unsaid: Unsound labelled pairs of which people do not say whether they are swapped.
        min_labelled: Labels that an estimate needs.
        true_share: Share of labels that are truly swapped. No value without enough labels.
    """

    second_judge: str = ""
    sampled: int = 0
    same: int = 0
    swapped: int = 0
    neither: int = 0
    no_verdict: Mapping[str, int] = field(default_factory=dict)
    alpha_pairs: Figure = _NOTHING
    alpha_responses: Figure = _NOTHING
    would_swap: Figure = _NOTHING
    labelled: int = 0
    labelled_swapped: int = 0
    unsaid: int = 0
    min_labelled: int = 0
    true_share: Figure = _NOTHING

    @property
    def measured(self) -> bool:
        """Whether the second judge decided on a pair."""
        return self.same + self.swapped + self.neither > 0

    @property
    def calibrated(self) -> bool:
        return self.true_share.value is not None

    @property
    def sentence(self) -> str:
        """What is known of the share of swapped labels, in a sentence."""
        if not self.second_judge:
            return "not measured: the setting `preferences.second_judge` names no judge"
        if not self.measured:
            return f"not measured: the second judge decided on none of {self.sampled} sampled pairs"
        found = self.true_share
        if found.value is not None:
            return (
                f"{found.value:.1%} of the labels are swapped (95% interval {found.ci_low:.1%} to "
                f"{found.ci_high:.1%}), by double sampling: people labelled {self.labelled} of the pairs "
                f"that the second judge judged and find {self.labelled_swapped} swapped"
            )
        return f"UNCALIBRATED: {self._why_uncalibrated}. {self._range}"

    @property
    def _why_uncalibrated(self) -> str:
        if self.labelled >= self.min_labelled:
            return (
                f"people call {self.unsaid} of {self.labelled} labelled pairs unsound without saying "
                "whether they are swapped"
            )
        return (
            f"people labelled {self.labelled} of the judged pairs, and {self.min_labelled} are needed to say "
            "how often the second judge is right"
        )

    @property
    def _range(self) -> str:
        high = self.would_swap.ci_high
        if high is None:
            return "The second judge prefers neither response of any pair, so nothing is known of the share"
        return (
            f"If the second judge errs independently of the pair judge and prefers the better response more "
            f"often than the worse one, the share of swapped labels is at most the share that it would swap: "
            f"{self.would_swap.value:.1%}, with an upper 95% limit of {high:.1%}. If both judges make the "
            "same mistakes, it may be higher"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"sentence": self.sentence}


def preferred(chosen: Assessment, rejected: Assessment) -> Preferred:
    """The response that a judge prefers: the one success, else the one that meets more of the criteria."""
    if chosen.verdict.success != rejected.verdict.success:
        return "chosen" if chosen.verdict.success else "rejected"
    if chosen.score != rejected.score:
        return "chosen" if chosen.score > rejected.score else "rejected"
    return "neither"


def noise_of(
    rows: pl.DataFrame, no_verdict: Mapping[str, int], second_judge: str, min_labelled: int
) -> PairNoise:
    """The figures of some rows of `pair_noise`.

    Args:
        rows: The rows of all pairs on which the second judge decided.
        no_verdict: Outcome -> number of sampled pairs on which it did not.
        second_judge: Name of the second judge.
        min_labelled: Labels that an estimate of the true share needs.
    """
    rows = rows.sort("pair_id")
    sample = rows.filter("sampled")
    counts = dict(sample.group_by("prefers").len().iter_rows())
    one_is_better = sample.filter(pl.col("prefers") != "neither")
    labelled = rows.filter(pl.col("people").is_not_null())
    unsaid = labelled.filter(pl.col("people") == "unsound_unsaid").height
    enough = labelled.height >= min_labelled and not unsaid
    return PairNoise(
        second_judge=second_judge,
        sampled=sample.height + sum(no_verdict.values()),
        same=counts.get("chosen", 0),
        swapped=counts.get("rejected", 0),
        neither=counts.get("neither", 0),
        no_verdict=dict(sorted(no_verdict.items())),
        alpha_pairs=_alpha_of_pairs(sample),
        alpha_responses=_alpha_of_responses(sample),
        would_swap=_figure(_share(one_is_better, pl.col("prefers") == "rejected")),
        labelled=labelled.height,
        labelled_swapped=labelled.filter(pl.col("people") == "swapped").height,
        unsaid=unsaid,
        min_labelled=min_labelled,
        true_share=_true_share(sample, labelled) if enough else _NOTHING,
    )


def _alpha_of_pairs(sample: pl.DataFrame) -> Figure:
    ratings = []
    for first, prefers in sample.select("first", "prefers").iter_rows():
        place = {"chosen": "first" if first == "chosen" else "second"}
        place["rejected"] = "second" if first == "chosen" else "first"
        # The pair judge prefers the chosen response of every kept pair.
        ratings.append((place["chosen"], place.get(prefers, prefers)))
    return krippendorff_alpha(ratings, clusters=sample["cluster"].to_list())


def _alpha_of_responses(sample: pl.DataFrame) -> Figure:
    ratings = [(True, success) for success in sample["chosen_success"]]
    ratings += [(False, success) for success in sample["rejected_success"]]
    return krippendorff_alpha(ratings, clusters=sample["cluster"].to_list() * 2)


def _true_share(sample: pl.DataFrame, labelled: pl.DataFrame) -> Figure:
    flags, swapped = pl.col("prefers") == "rejected", pl.col("people") == "swapped"
    shares = (
        _share(sample, flags),
        _share(labelled.filter(flags), swapped),
        _share(labelled.filter(~flags), swapped),
    )
    flagged, among_flagged, among_others = (
        Proportion.effective(share) if share.known else Proportion(0, 0) for share in shares
    )
    found = double_sampled_share(flagged, among_flagged, among_others)
    return Figure(found.value, found.ci_low, found.ci_high, labelled.height)


def _share(rows: pl.DataFrame, which: pl.Expr) -> Estimate:
    """The share of rows for which a condition holds, with an interval over source videos."""
    values = rows.select(
        unit="pair_id",
        cluster="cluster",
        template=pl.lit(None, pl.String),
        seed=pl.lit(0, pl.Int64),
        value=which.cast(pl.Float64),
    )
    return estimate(Sample(values))


def _figure(share: Estimate) -> Figure:
    return Figure(share.value, share.ci_low, share.ci_high, share.n)


def read_noise(lake: Lake) -> PairNoise:
    """The figures of the stage `pair_noise`. None are measured if it was not made or no judge is set."""
    manifest = lake.manifest(PAIR_NOISE.name)
    told: Mapping[str, Any] | None = None if manifest is None else manifest.info.get("noise")
    if told is None:
        return PairNoise()
    figures = {name: Figure(**each) for name, each in told.items() if name in _FIGURES}
    known = {each.name for each in fields(PairNoise)}
    return PairNoise(**{name: each for name, each in told.items() if name in known} | figures)


def lines_of(noise: PairNoise) -> Sequence[tuple[str, Figure]]:
    """The figures with their names, for a table."""
    return (
        ("Krippendorff's alpha, which response is the better one", noise.alpha_pairs),
        ("Krippendorff's alpha, whether a response is a success", noise.alpha_responses),
        ("pairs that the second judge would swap, of those where it prefers one", noise.would_swap),
        ("share of swapped labels, estimated with people's labels", noise.true_share),
    )
