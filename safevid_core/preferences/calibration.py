"""How far people trust the pairs: the precision of the pair judge by labels on a random sample.

The precision is the share of kept pairs that people find sound. Its interval is Wilson's. With fewer labels
than `preferences.min_labelled_pairs` a release is UNCALIBRATED. Example: of 220 labelled pairs people find
211 sound, a precision of 0.959 with the interval 0.924 to 0.978; the lower bound is above 0.9.
"""

from __future__ import annotations

from dataclasses import dataclass

from safevid_core.contracts.tables import PAIR_VALIDATION
from safevid_core.settings import PreferenceSettings
from safevid_core.statistics.agreement import Figure, share
from safevid_core.storage.lake import Lake


@dataclass(frozen=True)
class Calibration:
    """The labels on the pairs, against what the settings ask for.

    Attributes:
        labelled: Pairs of the data set with a label.
        sound: Those that people find sound.
    """

    labelled: int
    sound: int
    min_labelled: int
    min_precision: float

    @property
    def precision(self) -> Figure:
        return share(self.sound, self.labelled)

    @property
    def calibrated(self) -> bool:
        """Whether there are enough labels to speak of a precision."""
        return self.labelled >= self.min_labelled

    @property
    def passes(self) -> bool:
        """Whether the lower bound of the precision is high enough."""
        low = self.precision.ci_low
        return self.calibrated and low is not None and low >= self.min_precision

    @property
    def sentence(self) -> str:
        """The finding in a sentence, for the card of a release and for promotion."""
        found = self.precision
        if not self.calibrated or found.value is None:
            return (
                f"UNCALIBRATED: people labelled {self.labelled} pairs, and {self.min_labelled} are needed to "
                "say how often the pair judge is right"
            )
        verdict = "at least" if self.passes else "under"
        return (
            f"people find {found.value:.1%} of {found.n} labelled pairs sound (95% interval "
            f"{found.ci_low:.1%} to {found.ci_high:.1%}); the lower bound is {verdict} "
            f"{self.min_precision:.0%}"
        )


def read_calibration(lake: Lake, preferences: PreferenceSettings) -> Calibration:
    """The labels that the stage `pair_validation` counted. None are counted if it was not made."""
    manifest = lake.manifest(PAIR_VALIDATION.name)
    info = manifest.info if manifest is not None else {}
    return Calibration(
        info.get("labelled", 0),
        info.get("sound", 0),
        preferences.min_labelled_pairs,
        preferences.min_pair_precision,
    )
