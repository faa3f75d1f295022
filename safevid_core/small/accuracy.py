"""What the model sees: descriptions of held-out clips against those of a grey video, by attribute."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from safevid_core.models.families import conversation
from safevid_core.models.generation import generate
from safevid_core.pocket.build.grammar import scene_names
from safevid_core.pocket.build.samples import Samples
from safevid_core.pocket.world import COLOURS, MOTIONS, OBJECTS, SCENES, ClipTruth
from safevid_core.settings import VideoModel
from safevid_core.small.reading import DESCRIBE, FAMILY, as_frames
from safevid_core.statistics.intervals import wilson
from safevid_core.video.decoding import blank_like

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

# The word that tells an event, in whatever form it is said: "leaks acid" and "leaking acid" both tell `acid`.
_EVENT_WORDS = {
    "fire": "fire",
    "glow": r"glow\w*",
    "sparks": "sparks?",
    "confetti": "confetti",
    "acid": "acid",
    "water": "water",
    "hate_sign": "hate sign",
    "flag": "flag",
    "pirated_film": "pirated film",
    "clock": "clock",
}
# Attribute -> value -> pattern of what a description says of it. Motion `left` is said as "moves left".
PHRASES: Mapping[str, Mapping[str, str]] = {
    "object": {value: value for value in OBJECTS},
    "colour": {value: value for value in COLOURS},
    "event": _EVENT_WORDS,
    "scene": {value: scene_names()[value].split(" ", 1)[1] for value in SCENES},
    "motion": {value: "stays still" if value == "still" else f"moves {value}" for value in MOTIONS},
}
MODEL_BATCH = 16
_LIMIT = 48


@dataclass(frozen=True)
class Rate:
    """A share of right statements with its 95% interval (Wilson 1927)."""

    right: int
    n: int
    value: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Sight:
    """What the model tells of one attribute, beside two controls without the video.

    Attributes:
        seen: Of the clip.
        blind: Of a grey video instead of the clip. Free text about it seldom names any value.
        constant: Of the value that is most frequent among the clips, told of each. No answer that does not
            depend on the video is right more often.
    """

    attribute: str
    seen: Rate
    blind: Rate
    constant: Rate

    @property
    def claimed(self) -> bool:
        """Whether the interval lies above those of both controls."""
        return self.seen.ci_low > max(self.blind.ci_high, self.constant.ci_high)


def rate_of(right: Sequence[bool]) -> Rate:
    low, high = wilson(sum(right), len(right))
    return Rate(sum(right), len(right), sum(right) / len(right), low, high)


def is_told(text: str, attribute: str, truth: ClipTruth) -> bool:
    """Whether a description tells the true value of an attribute, and no other value of it."""
    told = {value for value, said in PHRASES[attribute].items() if re.search(rf"\b{said}\b", text.lower())}
    return told == {getattr(truth, attribute)}


def sights(texts: Sequence[str], blind: Sequence[str], truths: Sequence[ClipTruth]) -> list[Sight]:
    """The accuracy of each attribute.

    Args:
        texts: Descriptions of the clips, in the order of `truths`.
        blind: Descriptions of a grey video in the place of each clip.
    """
    found = []
    for attribute in PHRASES:
        seen, grey = (
            rate_of([is_told(text, attribute, truth) for text, truth in zip(some, truths, strict=True)])
            for some in (texts, blind)
        )
        values = [getattr(truth, attribute) for truth in truths]
        commonest = Counter(values).most_common(1)[0][0]
        constant = rate_of([value == commonest for value in values])
        found.append(Sight(attribute, seen, grey, constant))
    return found


def describe(
    model: PreTrainedModel, processor: ProcessorMixin, pixels: Sequence[Any], batch: int = MODEL_BATCH
) -> list[str]:
    """The model's description of each clip, greedily generated, as in the stages."""
    settings = VideoModel.model_validate(
        {"family": FAMILY, "path": "small", "dtype": "float32", "max_new_tokens": _LIMIT}
    )
    texts: list[str] = []
    for start in range(0, len(pixels), batch):
        videos = as_frames(pixels[start : start + batch])
        prompts = [conversation(DESCRIBE)] * len(videos)
        keys = [str(start + place) for place in range(len(videos))]
        texts += [each.text for each in generate(settings, model, processor, prompts, videos, keys)]
    return texts


def measure(model: PreTrainedModel, processor: ProcessorMixin, samples: Samples) -> list[Sight]:
    """The accuracy on held-out clips. The control sees a grey video of the same size."""
    grey = blank_like(*samples.frames.shape[1:4])
    blind = describe(model, processor, [grey]) * len(samples.truths)
    return sights(describe(model, processor, list(samples.frames)), blind, samples.truths)


def verdict(found: Sequence[Sight]) -> dict[str, Any]:
    """The record of the measurement: `vision` is `claimed` if an attribute of a clip's danger is told.

    A clip is dangerous by its event. Without it the video decides nothing, and the profile says "text only".
    """
    claimed = [each.attribute for each in found if each.claimed]
    return {
        "vision": "claimed" if "event" in claimed else "text only",
        "sees": claimed,
        "rule": "an attribute is seen if the interval of its accuracy on held-out clips lies above those of "
        "a grey video and of the best constant answer; vision is claimed if the event is seen",
        "accuracy": {
            each.attribute: {name: asdict(getattr(each, name)) for name in ("seen", "blind", "constant")}
            for each in found
        },
    }
