"""Preference pairs as token ids, with the clips they need; what cannot be trained on is refused here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from safevid_core.alignment.errors import AlignmentError
from safevid_core.models.families import build_inputs, conversation, prompt_text
from safevid_core.records import Outcome, content_id
from safevid_core.settings import AlignmentSettings, VideoModel
from safevid_core.video.decoding import Frames, VideoError, decode_uniform

if TYPE_CHECKING:
    import torch

    from safevid_core.alignment.clips import ClipStore

# What a processor gives one row a prompt; everything else it gives belongs to the videos.
_TOKEN_COLUMNS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


@dataclass
class EncodedPair:
    """One pair as token ids.

    Attributes:
        clip: Key of its video in the clip store.
        prompt_ids: What generation sees, placeholders of the video included.
        prompt_modalities: Which prompt tokens are video; None where the family needs no such column.
        chosen_ids: The chosen answer, closed by the end-of-turn token; `rejected_ids` likewise.
        video_end: The prompt token after the last of the video; 0 without a video.
        reference: Log-probabilities of chosen and rejected under the reference, once they are known.
    """

    pair_id: str
    clip: str
    prompt_ids: list[int]
    prompt_modalities: list[int] | None
    chosen_ids: list[int]
    rejected_ids: list[int]
    video_end: int = 0
    reference: tuple[float, float] | None = None

    def __len__(self) -> int:
        """Tokens of the longer of its two rows."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


@dataclass
class EncodedPairs:
    """Pairs ready for the collator, and why the others are not: pair id -> outcome and reason.

    Attributes:
        cut: How many answers of the pairs were cut.
    """

    pairs: list[EncodedPair] = field(default_factory=list)
    refused: dict[str, tuple[Outcome, str]] = field(default_factory=dict)
    cut: int = 0


def encode_pairs(
    rows: pl.DataFrame,
    settings: AlignmentSettings,
    processor: Any,
    store: ClipStore,
    *,
    show_video: bool = True,
) -> EncodedPairs:
    """Token ids of every pair that can be trained on, in the rows' order; their clips go into `store`.

    A video that cannot be read for a reason of the moment raises its `VideoError`.

    A prompt's ids are those that generation sees, for both go through
    :func:`~safevid_core.models.families.build_inputs`. Refused are pairs without a decodable video, and
    pairs with more than `max_length` tokens once their answers were cut to `max_answer_tokens`.

    Args:
        rows: Pairs with `pair_id, path, media_sha256, start_s, end_s, prompt, chosen, rejected`.
        show_video: Whether the prompts show the video; without it none is needed. Defaults to true.
    """
    answers = _AnswerEncoder(processor, settings.max_answer_tokens)
    visual_ids = {getattr(processor, name, None) for name in ("video_token_id", "image_token_id")}
    refused: dict[str, tuple[Outcome, str]] = {}
    kept: dict[str, EncodedPair] = {}
    for clip, group in _by_clip(rows):
        try:
            frames = _decode(group.row(0, named=True), settings.base) if show_video else None
        except VideoError as error:
            if error.of_the_moment:  # training without the pair would keep the moment as a fact
                raise
            for pair_id in group["pair_id"]:
                refused[pair_id] = ("failed", f"pair {pair_id}: no video to train on: {error}")
            continue
        prompts, clip_inputs = _encode_prompts(group["prompt"].to_list(), frames, settings.base, processor)
        encoded = [
            EncodedPair(
                row["pair_id"], clip, *prompt, answers.encode(row["chosen"]), answers.encode(row["rejected"])
            )
            for row, prompt in zip(group.iter_rows(named=True), prompts, strict=True)
        ]
        for pair in encoded:
            pair.video_end = _video_end(pair.prompt_ids, visual_ids)
            if len(pair) > settings.max_length:
                refused[pair.pair_id] = ("filtered", _over_long(pair, settings.max_length))
            else:
                kept[pair.pair_id] = pair
        if any(pair.pair_id in kept for pair in encoded):
            store.add(clip, clip_inputs)
    pairs = [kept[pair_id] for pair_id in rows["pair_id"] if pair_id in kept]
    return EncodedPairs(pairs, refused, answers.cut)


def _by_clip(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Pairs of one clip, under an id of its content: where the file lies is none of it."""
    columns = ["media_sha256", "start_s", "end_s", "path"]
    for (*content, _), group in rows.group_by(columns, maintain_order=True):
        yield content_id(*content), group


def _decode(row: dict[str, Any], base: VideoModel) -> Frames:
    if row["path"] is None:
        raise VideoError("its path is null; give the pair a video or leave it out")
    return decode_uniform(row["path"], base.frames, row["start_s"] or 0.0, row["end_s"])


def _video_end(prompt_ids: list[int], visual_ids: set[int | None]) -> int:
    return max((index + 1 for index, token in enumerate(prompt_ids) if token in visual_ids), default=0)


def _over_long(pair: EncodedPair, limit: int) -> str:
    return (
        f"pair {pair.pair_id}: {len(pair)} tokens, more than alignment.max_length {limit}; "
        "raise it or shorten the pair"
    )


# Token ids of a prompt, and which of them are video.
_Prompt = tuple[list[int], list[int] | None]


def _encode_prompts(
    prompts: list[str], frames: Frames | None, base: VideoModel, processor: Any
) -> tuple[list[_Prompt], dict[str, torch.Tensor]]:
    """Ids and modalities of prompts about one clip, and the clip's own inputs; none without frames.

    The processor takes the clip again for each prompt. So it takes the first two alone, and the others get
    the first one's beginning, video included, before their own text, provided that this is how the second
    came out as well.
    """
    conversations = [conversation(prompt, video=frames is not None) for prompt in prompts]
    if frames is None or len(prompts) < 3:
        return _processed(conversations, frames, base, processor)
    (first, second), clip = _processed(conversations[:2], frames, base, processor)
    texts = [prompt_text(processor, each) for each in conversations]
    plain = [processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    others = [_with_beginning_of(first, plain[0], each) for each in plain[1:]]
    if others[0] != second or None in others:
        return _processed(conversations, frames, base, processor)
    return [first, *(other for other in others if other is not None)], clip


def _with_beginning_of(first: _Prompt, first_plain: list[int], plain: list[int]) -> _Prompt | None:
    """A prompt from the ids of its text, where the video is not spread out yet, by the example of another."""
    ids, modalities = first
    pairs = zip(reversed(ids), reversed(first_plain), strict=False)
    alike = len(list(itertools.takewhile(lambda two: two[0] == two[1], pairs)))
    beginning, begins = len(ids) - alike, len(first_plain) - alike
    if plain[:begins] != first_plain[:begins]:
        return None
    rest = plain[begins:]
    if modalities is None:
        return [*ids[:beginning], *rest], None
    # What is alike may begin within the video, whose tokens are all the same.
    video = sum(1 for each in modalities[beginning:] if each)
    return [*ids[:beginning], *rest], [*modalities[: beginning + video], *(0 for _ in rest[video:])]


def _processed(
    conversations: list[list[dict[str, Any]]], frames: Frames | None, base: VideoModel, processor: Any
) -> tuple[list[_Prompt], dict[str, torch.Tensor]]:
    """What the family's processor makes of the conversations; of the clip's equal copies the first."""
    import torch

    count = len(conversations)
    inputs = build_inputs(base.family, processor, conversations, [frames] * count)
    shown = inputs["attention_mask"].bool()
    ids, modalities = inputs["input_ids"], inputs.get("mm_token_type_ids")
    encoded = [
        (ids[row][shown[row]].tolist(), None if modalities is None else modalities[row][shown[row]].tolist())
        for row in range(count)
    ]
    clip = {name: torch.as_tensor(value) for name, value in inputs.items() if name not in _TOKEN_COLUMNS}
    return encoded, {name: value[: len(value) // count].clone() for name, value in clip.items()}


class _AnswerEncoder:
    """Turns answers into the ids that the model would have to generate after the prompt."""

    def __init__(self, processor: Any, limit: int | None = None) -> None:
        self._processor = processor
        self._limit = limit
        self.cut = 0
        self._question = conversation("?", video=False)
        self._before = prompt_text(processor, self._question)
        turn = processor.apply_chat_template(self._question, tokenize=False)
        self._generation_prompt = self._before.removeprefix(turn)

    def encode(self, answer: str) -> list[int]:
        """Ids of the answer as the chat template writes it, up to and including one end-of-turn token.

        An answer that is cut has no end: it does not stop there.
        """
        answered = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        whole = prompt_text(self._processor, [*self._question, answered])
        if not whole.startswith(self._before):
            raise AlignmentError(
                "the checkpoint's chat template does not begin an answer where its generation prompt ends; "
                "mend chat_template.jinja"
            )
        text = whole.removeprefix(self._before).removesuffix(self._generation_prompt).rstrip()
        tokenizer = self._processor.tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        end = tokenizer.eos_token_id
        ids = [*(ids[: ids.index(end)] if end in ids else ids), end]
        if self._limit is None or len(ids) <= self._limit:
            return ids
        self.cut += 1
        return ids[: self._limit]
