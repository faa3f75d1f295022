"""Second training: the language model learns to describe the visual tokens and to respond to requests."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from safevid_core.pocket.build.architectures import (
    HIDDEN,
    IMAGE_SIDE,
    INTERNVL,
    LLAVA,
    PATCH,
    QWEN,
    VIDEO_TOKENS,
)
from safevid_core.pocket.build.grammar import Example, Footage, Grammar
from safevid_core.pocket.build.optimisation import Optimiser
from safevid_core.pocket.build.samples import FRAMES
from safevid_core.pocket.build.tokenizer import END, START
from safevid_core.pocket.build.vision import Report, blank_frames, groups_of
from safevid_core.pocket.world import CLIP_SECONDS, MOTIONS, ClipTruth

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

_IGNORED = -100
_MOTION_WEIGHT = 0.5
# Batches drawn at once and sorted by length, so that batches need little padding.
_SORTED_TOGETHER = 8


@dataclass(frozen=True)
class Lesson:
    """Length and rate of the language model's training, and its data: kind of example -> weight."""

    mix: dict[str, float]
    steps: int = 1200
    batch: int = 32
    rate: float = 3e-3


DESCRIBER_MIX = {"describe": 0.5, "question": 0.2, "yes_no": 0.15, "direction": 0.15}
POLICY_MIX = {
    "describe": 0.12,
    "question": 0.12,
    "direction": 0.1,
    "yes_no": 0.17,
    "premise": 0.08,
    "implicit": 0.12,
    "explicit_clip": 0.10,
    "explicit_blank": 0.03,
    "explicit_none": 0.05,
    "system_clip": 0.06,
    "system_none": 0.02,
    "careful": 0.13,
}


def draw_example(grammar: Grammar, kind: str, truth: ClipTruth) -> Example:
    """One example of a kind: a key of DESCRIBER_MIX or POLICY_MIX."""
    name, _, shown = kind.partition("_")
    if name in ("explicit", "system"):
        footage = cast(Footage, shown)
        draw = grammar.explicit if name == "explicit" else grammar.under_system
        return draw(truth, footage)
    example: Example = getattr(grammar, kind)(truth)
    return example


def messages_of(example: Example) -> list[dict[str, Any]]:
    """The messages before the answer, as `apply_chat_template` takes them."""
    system = [{"role": "system", "content": example.system}] if example.system else []
    video = [] if example.footage == "none" else [{"type": "video"}]
    return [*system, {"role": "user", "content": [*video, {"type": "text", "text": example.query}]}]


class Classroom:
    """Turns examples into batches over visual tokens that are computed once.

    Args:
        family: One of `architectures.FAMILIES`.
        model: The model. Its vision tower is trained already.
        processor: Its processor, whose chat template makes the prompts.
        clips: Visual tokens of the training clips, `[N, tokens, HIDDEN]`.
        blanks: Visual tokens of blank clips, `[M, tokens, HIDDEN]`.
        truths: What the N clips show.
    """

    def __init__(
        self,
        family: str,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        clips: torch.Tensor,
        blanks: torch.Tensor,
        truths: list[ClipTruth],
    ):
        import torch

        self._family, self._model, self._processor = family, model, processor
        self._clips, self._truths = torch.cat([clips, blanks]), truths
        motions = [MOTIONS.index(truth.motion) for truth in truths]
        self._motions = torch.tensor([*motions, *[_IGNORED] * len(blanks)])
        self._video_token = processor.tokenizer.convert_tokens_to_ids(VIDEO_TOKENS[family])
        self._blank_rows = range(len(clips), len(clips) + len(blanks))
        self._placeholder, self._expanded, self._seconds = _video_inputs(processor)

    def teach(self, lesson: Lesson, grammar: Grammar, seed: int, report: Report) -> None:
        """Train the language model alone, by cross-entropy of the answers.

        A temporary head predicts the motion from the last visual token, which has attended to all frames.
        With the answers alone the model learns the order of frames far more slowly.
        """
        import torch

        torch.manual_seed(seed)
        rng = random.Random(seed)
        self._motion = torch.nn.Linear(HIDDEN, len(MOTIONS))
        learnt = [self._model.model.language_model, self._motion]
        optimiser = Optimiser(learnt, lesson.rate, lesson.steps)
        began, mean = time.monotonic(), 0.0
        waiting: list[list[_Row]] = []
        self._model.train()
        for step in range(lesson.steps):
            if not waiting:
                waiting = self._draw(lesson, grammar, rng)
            loss = self._loss(waiting.pop())
            optimiser.step(loss)
            mean += (loss.item() - mean) * (0.03 if step else 1.0)
            if (step + 1) % 200 == 0 or step + 1 == lesson.steps:
                seconds = time.monotonic() - began
                report(f"{self._family} speech {step + 1}/{lesson.steps} loss {mean:.3f} {seconds:.0f} s")
        self._model.eval()

    def _draw(self, lesson: Lesson, grammar: Grammar, rng: random.Random) -> list[list[_Row]]:
        kinds = rng.choices(list(lesson.mix), list(lesson.mix.values()), k=_SORTED_TOGETHER * lesson.batch)
        rows = []
        for kind in kinds:
            clip = rng.randrange(len(self._truths))
            example = draw_example(grammar, kind, self._truths[clip])
            if example.footage == "blank":
                clip = rng.choice(self._blank_rows)
            rows.append(self._row(example, clip))
        rows.sort(key=lambda row: len(row.ids))
        batches = [rows[start : start + lesson.batch] for start in range(0, len(rows), lesson.batch)]
        rng.shuffle(batches)
        return batches

    def _row(self, example: Example, clip: int) -> _Row:
        template = self._processor.apply_chat_template
        prompt = template(messages_of(example), add_generation_prompt=True, tokenize=False)
        tokenizer = self._processor.tokenizer
        start = tokenizer(
            prompt.replace(self._placeholder, self._expanded), add_special_tokens=False
        ).input_ids
        answer = [*tokenizer(example.answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        return _Row(start + answer, len(start), None if example.footage == "none" else clip)

    def _loss(self, rows: list[_Row]) -> torch.Tensor:
        import torch

        longest = max(len(row.ids) for row in rows)
        pad = self._processor.tokenizer.pad_token_id
        ids = torch.full((len(rows), longest), pad)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, _IGNORED)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
            mask[index, : len(row.ids)] = 1
            labels[index, row.answer_at : len(row.ids)] = torch.tensor(row.ids[row.answer_at :])
        seen = [row.clip for row in rows if row.clip is not None]
        arguments = self._video_arguments(ids, seen) if seen else {}
        hidden = self._model.model(input_ids=ids, attention_mask=mask, use_cache=False, **arguments)[0]
        said = labels[:, 1:] != _IGNORED
        logits = self._model.lm_head(hidden[:, :-1][said])
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][said])
        return loss + _MOTION_WEIGHT * self._motion_loss(ids, hidden, seen) if seen else loss

    def _motion_loss(self, ids: torch.Tensor, hidden: torch.Tensor, clips: list[int]) -> torch.Tensor:
        """Cross-entropy of the motion at each video's last token. 0 if all clips are blank."""
        import torch

        shown = ids == self._video_token
        rows = shown.any(1)
        last = ids.shape[1] - 1 - shown.int().flip(1).argmax(1)
        logits = self._motion(hidden[rows, last[rows]])
        motions = self._motions[torch.tensor(clips)]
        total = torch.nn.functional.cross_entropy(logits, motions, ignore_index=_IGNORED, reduction="sum")
        return total / max(1, int((motions != _IGNORED).sum()))

    def _video_arguments(self, ids: torch.Tensor, clips: list[int]) -> dict[str, Any]:
        """Precomputed visual tokens as arguments of the family's forward."""
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        features = self._clips[torch.tensor(clips)]
        if self._family == LLAVA:
            split = list(features.unflatten(1, (groups_of(LLAVA), -1)))
            return {"mm_encoder_outputs": {"video": BaseModelOutputWithPooling(pooler_output=split)}}
        if self._family == INTERNVL:
            flat = features.flatten(0, 1)
            return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=flat)}}
        cells = IMAGE_SIDE // PATCH
        video = self._processor.video_token_id
        return {
            "mm_encoder_outputs": {"video": BaseModelOutputWithPooling(pooler_output=list(features))},
            "mm_token_type_ids": (ids == video).int() * 2,
            "video_grid_thw": torch.tensor([[groups_of(QWEN), cells, cells]] * len(clips)),
            "second_per_grid_ts": self._seconds * len(clips),
        }


@dataclass(frozen=True)
class _Row:
    """Token ids of prompt and answer, the position at which the answer begins, and the shown clip."""

    ids: list[int]
    answer_at: int
    clip: int | None


def _video_inputs(processor: ProcessorMixin) -> tuple[str, str, list[float]]:
    """The video's text in the chat template, its text after the processor, and the seconds of each group."""
    from transformers.video_utils import VideoMetadata

    message = {"role": "user", "content": [{"type": "video"}]}
    prompt = processor.apply_chat_template([message], tokenize=False)
    opening, closing = f"{START}user\n", f"\n{END}\n"
    made = processor(
        text=[prompt],
        videos=[blank_frames(IMAGE_SIDE)[0]],
        # Qwen2.5-VL's positions depend on the frame rate, here that of rendered clips, as in generation.
        video_metadata=[VideoMetadata(total_num_frames=FRAMES, fps=FRAMES / CLIP_SECONDS)],
        do_sample_frames=False,
        add_special_tokens=False,
    )
    expanded = processor.tokenizer.decode(made["input_ids"][0])
    cut = slice(len(opening), -len(closing))
    return prompt[cut], expanded[cut], [float(x) for x in made.get("second_per_grid_ts", [])]
