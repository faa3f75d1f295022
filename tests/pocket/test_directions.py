"""The describers tell a direction from its opposite by the order of the frames, and by nothing else.

Two-way questions ("Is the crate going left or right?") about held-out clips, asked through the loader and the
generation of `safevid_core.models.video_chat`. A model that sees motion

- is right about the clip as it was made,
- gives the opposite direction when the same pictures were encoded in the opposite order, and
- is right about half of the clips when one frame is repeated, because no frame of the pocket world tells a
  direction from its opposite. Each clip is frozen in both orders of its pictures, so that both directions are
  equally frequent for each kind of picture, and the intervals are by clip.

A frozen clip truly stands still, and a model may say so. The share of right answers among those that name a
direction is therefore one measure, and the forced choice is the other: which of the two answers the model
gives the higher probability, over all clips.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from safevid_core.descriptions.motion_words import OPPOSITE, described_motion
from safevid_core.models.families import build_inputs, conversation
from safevid_core.models.generation import generate
from safevid_core.models.video_chat import load_local
from safevid_core.pocket.build.architectures import FAMILIES, LLAVA
from safevid_core.pocket.build.grammar import Grammar
from safevid_core.pocket.build.samples import FRAMES, draw_truths
from safevid_core.pocket.world import ClipTruth, render_frames, write_clip
from safevid_core.settings import VideoModel
from safevid_core.statistics.intervals import SAMPLE_SCHEMA, Sample, estimate, wilson
from safevid_core.video.decoding import Frames, decode_uniform

CHECKPOINTS = Path(__file__).parents[2] / "safevid_core" / "pocket" / "checkpoints"
# All but the first are no wordings of the grammar that the checkpoints learnt from.
WORDINGS = (
    "Does the {object} move {one} or {other}?",
    "Is the {object} going {one} or {other}?",
    "Which way does it go: {one} or {other}?",
    "Would you say the {object} travels {one} or {other}?",
    "{one} or {other}, where is the {object} moving to?",
    "Does the {object} head {one} or {other}?",
)
FROZEN_AT = {"first": 0, "middle": FRAMES // 2, "last": FRAMES - 1}
BATCH = 40


@dataclass(frozen=True)
class Clip:
    """A held-out clip as a model is shown it, as it was made and encoded in the opposite order."""

    truth: ClipTruth
    forwards: Frames
    backwards: Frames

    def frozen(self, place: int, backwards: bool) -> Frames:
        """One frame of it, repeated."""
        shown = self.backwards if backwards else self.forwards
        return Frames(np.repeat(shown.pixels[place][None], FRAMES, axis=0), shown.times_s, shown.span_s)


def draw_clips(count: int, seed: int, folder: Path) -> list[Clip]:
    """`count` moving clips of combinations that no checkpoint was built on."""
    truths = [truth for truth in draw_truths(2 * count, seed, "corpus") if truth.motion in OPPOSITE]
    clips = []
    for number, truth in enumerate(truths[:count]):
        pictures = render_frames(truth, 1000 * seed + number)
        shown = []
        for ordered in (pictures, pictures[::-1]):
            write_clip(folder / "clip.mp4", ordered)
            shown.append(decode_uniform(folder / "clip.mp4", FRAMES))
        clips.append(Clip(truth, *shown))
    return clips


class Asked:
    """One describer that answers two-way questions about clips.

    Clip i is asked in wording i modulo the number of wordings.
    """

    def __init__(self, family: str, clips: list[Clip], swapped: list[bool]) -> None:
        """`swapped` says of each clip whether its right direction is named second."""
        name = "internvl" if family.startswith("internvl") else family
        self._settings = VideoModel(
            family=name, path=str(CHECKPOINTS / family), frames=FRAMES, dtype="float32", max_new_tokens=16
        )
        self._loaded, self._processor = load_local(self._settings)
        self._clips = clips
        self._conversations = [
            conversation(_question(clip.truth, number, second))
            for number, (clip, second) in enumerate(zip(clips, swapped, strict=True))
        ]

    def answers(self, videos: list[Frames]) -> list[str | None]:
        """The direction, or still, that each generated answer says; None for anything else."""
        said: list[str | None] = []
        for part in _batches(len(videos)):
            made = generate(
                self._settings,
                self._loaded,
                self._processor,
                self._conversations[part],
                videos[part],
                [""] * len(videos[part]),
            )
            said += [described_motion(answer.text) for answer in made]
        return said

    def prefers_truth(self, videos: list[Frames]) -> np.ndarray:
        """Whether the direction of `Clip.truth` is more probable than the opposite one, a bool a clip."""
        truths = [clip.truth for clip in self._clips]
        right = self._log_likelihoods(videos, [_answer(truth, truth.motion) for truth in truths])
        wrong = self._log_likelihoods(videos, [_answer(truth, OPPOSITE[truth.motion]) for truth in truths])
        return right > wrong

    def _log_likelihoods(self, videos: list[Frames], answers: list[str]) -> np.ndarray:
        import torch

        found = []
        for part in _batches(len(videos)):
            inputs: dict[str, Any] = build_inputs(
                self._settings.family, self._processor, self._conversations[part], videos[part]
            )
            prompt = inputs["input_ids"].shape
            made = self._processor.tokenizer(
                answers[part],
                add_special_tokens=False,
                padding=True,
                padding_side="right",
                return_tensors="pt",
            )
            ids, mask = made["input_ids"], made["attention_mask"]
            for name, value in inputs.items():
                if getattr(value, "shape", None) == prompt:
                    more = {"input_ids": ids, "attention_mask": mask}.get(name, torch.zeros_like(ids))
                    inputs[name] = torch.cat([value, more], dim=1)
            with torch.inference_mode():
                logits = self._loaded(**inputs).logits[:, prompt[1] - 1 : -1].float()
            each = logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
            found.append((each * mask).sum(1).numpy())
        return np.concatenate(found)


def _question(truth: ClipTruth, number: int, second: bool) -> str:
    ways = (OPPOSITE[truth.motion], truth.motion) if second else (truth.motion, OPPOSITE[truth.motion])
    wording = WORDINGS[number % len(WORDINGS)]
    return wording.format(object=truth.object, one=ways[0], other=ways[1])


def _answer(truth: ClipTruth, way: str) -> str:
    return f"The {truth.object} moves {way}."


def _batches(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def _share(held: Sequence[bool]) -> str:
    return f"{sum(held)}/{len(held)}"


def _check_order_decides(asked: Asked, clips: list[Clip], family: str) -> None:
    """At least 85% are right forwards; of those at least 70%, and surely more than half, turn backwards."""
    forwards = asked.answers([clip.forwards for clip in clips])
    backwards = asked.answers([clip.backwards for clip in clips])
    right = [said == clip.truth.motion for said, clip in zip(forwards, clips, strict=True)]
    turned = [
        said == OPPOSITE[clip.truth.motion]
        for said, clip, was_right in zip(backwards, clips, right, strict=True)
        if was_right
    ]
    figures = f"{family}: forwards {_share(right)}, turned {_share(turned)}"
    print(figures)
    assert np.mean(right) >= 0.85, figures
    assert np.mean(turned) >= 0.7, figures
    assert wilson(sum(turned), len(turned))[0] > 0.5, figures


@pytest.fixture(scope="module")
def some_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return draw_clips(60, 77, tmp_path_factory.mktemp("some"))


@pytest.fixture(scope="module")
def many_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return draw_clips(480, 78, tmp_path_factory.mktemp("many"))


def test_all_wordings_but_the_first_are_new_to_the_checkpoints() -> None:
    truth = ClipTruth("kitchen", "crate", "red", "left", "fire")
    grammar = Grammar(0)
    learnt = {_words(grammar.direction(truth).query) for _ in range(20_000)}

    def known(number: int) -> bool:
        asked = [_words(_question(truth, number, second)) for second in (False, True)]
        return any(each in query for query in learnt for each in asked)

    assert [known(number) for number in range(len(WORDINGS))] == [True] + [False] * (len(WORDINGS) - 1)


def _words(query: str) -> str:
    return " ".join(re.findall(r"\w+", query.lower()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_the_frames_decides_the_direction(family: str, some_clips: list[Clip]) -> None:
    clips = some_clips[: 60 if family == LLAVA else 40]
    # Each wording in both word orders.
    asked = Asked(family, clips, [number // len(WORDINGS) % 2 == 1 for number in range(len(clips))])
    _check_order_decides(asked, clips, family)
    frozen = [_ask_frozen(asked, clips, place) for place in FROZEN_AT.values()]
    for measure in ("choices", "named"):
        held = [each for one in frozen for each in getattr(one, measure)]
        share, low, high = _share_by_clip(held)
        assert low <= 0.5 <= high, f"{family}: frozen, {measure} {share:.3f} [{low:.3f}, {high:.3f}]"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_directions_of_many_clips_in_both_word_orders(family: str, many_clips: list[Clip]) -> None:
    """The figures of docs/evaluation.md; `pytest -s` prints them."""
    frozen: dict[str, list[Frozen]] = {name: [] for name in FROZEN_AT}
    for second in (False, True):
        asked = Asked(family, many_clips, [second] * len(many_clips))
        _check_order_decides(asked, many_clips, f"{family}, right one {'second' if second else 'first'}")
        for name, place in FROZEN_AT.items():
            frozen[name].append(_ask_frozen(asked, many_clips, place))
    missed = []
    for name, parts in frozen.items():
        still = sum(part.still for part in parts) / sum(len(part.choices) for part in parts)
        print(f"{family}, {name} frame: {still:.3f} say that it stands still")
        for measure in ("choices", "named"):
            share, low, high = _share_by_clip([each for part in parts for each in getattr(part, measure)])
            line = f"{family}, {name} frame, {measure}: {share:.3f} [{low:.3f}, {high:.3f}]"
            print(line)
            if not low <= 0.5 <= high:
                missed.append(line)
    assert not missed


@dataclass(frozen=True)
class Frozen:
    """What is said about frozen clips.

    Attributes:
        choices: Clip number, and whether the right answer is the more probable one; two a clip.
        named: Clip number, and whether the generated direction is right; none where no direction is named.
        still: Generated answers that say that the thing stands still.
    """

    choices: list[tuple[int, bool]]
    named: list[tuple[int, bool]]
    still: int


def _ask_frozen(asked: Asked, clips: list[Clip], place: int) -> Frozen:
    choices: list[tuple[int, bool]] = []
    named: list[tuple[int, bool]] = []
    still = 0
    for backwards in (False, True):
        videos = [clip.frozen(place, backwards) for clip in clips]
        # Of pictures in the opposite order the opposite answer is the right one.
        choices += [
            (number, bool(made) != backwards) for number, made in enumerate(asked.prefers_truth(videos))
        ]
        said = asked.answers(videos)
        still += said.count("still")
        for number, (way, clip) in enumerate(zip(said, clips, strict=True)):
            if way in OPPOSITE:
                named.append((number, (way == clip.truth.motion) != backwards))
    return Frozen(choices, named, still)


def _share_by_clip(held: list[tuple[int, bool]]) -> tuple[float, float, float]:
    """Share and 95% interval of `(clip, whether it holds)`, several of one clip being one cluster."""
    rows = [(f"{row}", f"{clip}", None, 0, float(holds)) for row, (clip, holds) in enumerate(held)]
    found = estimate(Sample(pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row")))
    assert found.value is not None
    assert found.ci_low is not None
    assert found.ci_high is not None
    return found.value, found.ci_low, found.ci_high
