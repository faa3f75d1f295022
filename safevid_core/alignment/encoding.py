"""Tokenisation of preference pairs and their clips. Pairs that cannot be trained on are refused here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from safevid_core.alignment.errors import AlignmentError
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome
from safevid_core.models.families import conversation, prompt_text
from safevid_core.models.prompts import encode_prompts
from safevid_core.settings import AlignmentSettings, VideoModel
from safevid_core.storage.frames import FrameCache
from safevid_core.video.decoding import Frames, VideoError
from safevid_core.video.uniform_frames import uniform_frames

if TYPE_CHECKING:
    from safevid_core.alignment.clips import ClipStore


@dataclass
class EncodedPair:
    """One pair as token ids.

    Attributes:
        pair_id: Id of the pair.
        clip: Key of the video in the clip store.
        prompt_ids: The prompt as generation sees it, with the placeholder tokens of the video.
        prompt_modalities: For each prompt token 1 if it is video, else 0. None if the family has no such
            column.
        chosen_ids: The chosen response with its end-of-turn token.
        rejected_ids: The rejected response with its end-of-turn token.
        video_end: Index of the first prompt token after the video. 0 without a video.
        reference: Log-probabilities of the chosen and the rejected response under the reference model. None
            until they are computed.
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
        """Number of tokens of the prompt with the longer response."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


@dataclass
class EncodedPairs:
    """Encoded pairs, and the reasons why the others were refused.

    Attributes:
        pairs: The pairs for the collator.
        refused: Pair id -> outcome and reason.
        cut: Number of responses that were cut to `max_response_tokens`.
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
    stored: FrameCache | None = None,
) -> EncodedPairs:
    """Return the encoded pairs in the order of the rows, and add their clips to `store`.

    Training and generation have the same prompt ids, because both use
    :func:`~safevid_core.models.families.build_inputs`. A pair is refused if its video cannot be decoded, or
    if it has more than `max_length` tokens after its responses were cut to `max_response_tokens`.

    Args:
        rows: Pairs with `pair_id, path, media_sha256, start_s, end_s, prompt, chosen, rejected`,
            and `missing` if it is known why `path` is null.
        settings: The alignment settings.
        processor: The processor of the base model.
        store: Receives the clips.
        show_video: Whether the prompts contain the video. Defaults to true. False needs no video file.
        stored: Cache of decoded frames. None decodes each clip.

    Raises:
        VideoError: If a video cannot be read for a passing reason, such as a network share that is away.
        AlignmentError: If the chat template does not fit generation.
    """
    answers = _AnswerEncoder(processor, settings.max_response_tokens)
    refused: dict[str, tuple[Outcome, str]] = {}
    kept: dict[str, EncodedPair] = {}
    for clip, group in _by_clip(rows):
        try:
            frames = _decode(group.row(0, named=True), settings.base, stored) if show_video else None
        except VideoError as error:
            if error.transient:  # a retry may succeed, so the pair must not be refused for good
                raise
            for pair_id in group["pair_id"]:
                refused[pair_id] = ("failed", f"pair {pair_id}: no video to train on: {error}")
            continue
        conversations = [conversation(prompt, video=show_video) for prompt in group["prompt"]]
        prompts, clip_inputs = encode_prompts(settings.base.family, processor, conversations, frames)
        texts = group.select("pair_id", "chosen", "rejected").iter_rows()
        encoded = [
            EncodedPair(
                pair_id,
                clip,
                prompt.ids,
                prompt.modalities,
                answers.encode(chosen),
                answers.encode(rejected),
                prompt.video_end,
            )
            for (pair_id, chosen, rejected), prompt in zip(texts, prompts, strict=True)
        ]
        for pair in encoded:
            if len(pair) > settings.max_length:
                refused[pair.pair_id] = ("filtered", _over_long(pair, settings.max_length))
            else:
                kept[pair.pair_id] = pair
        if any(pair.pair_id in kept for pair in encoded):
            store.add(clip, clip_inputs)
    pairs = [kept[pair_id] for pair_id in rows["pair_id"] if pair_id in kept]
    return EncodedPairs(pairs, refused, answers.cut)


def _by_clip(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the pairs of each clip with a content id of the clip. The id does not contain the path."""
    columns = ["media_sha256", "start_s", "end_s", "path"]
    for (*content, _), group in rows.group_by(columns, maintain_order=True):
        yield content_id(*content), group


def _decode(row: dict[str, Any], base: VideoModel, stored: FrameCache | None) -> Frames:
    if row["path"] is None:
        raise VideoError(row.get("missing") or "its path is null; give the pair a video or leave it out")
    return uniform_frames(
        row["path"],
        base.frames,
        row["start_s"],
        row["end_s"],
        media_sha256=row["media_sha256"],
        stored=stored,
    )


def _over_long(pair: EncodedPair, limit: int) -> str:
    return (
        f"pair {pair.pair_id}: {len(pair)} tokens, more than alignment.max_length {limit}; "
        "raise it or shorten the pair"
    )


class _AnswerEncoder:
    """Tokenises responses into the ids that the model would generate after the prompt.

    Args:
        limit: Maximum number of tokens. None means no limit.

    Attributes:
        cut: Number of responses that were longer than the limit.
    """

    def __init__(self, processor: Any, limit: int | None = None) -> None:
        self._processor = processor
        self._limit = limit
        self.cut = 0
        self._question = conversation("?", video=False)
        self._before = prompt_text(processor, self._question)
        turn = processor.apply_chat_template(self._question, tokenize=False)
        self._generation_prompt = self._before.removeprefix(turn)

    def encode(self, answer: str) -> list[int]:
        """Return the ids of a response in the chat template, up to and including one end-of-turn token.

        A response that is cut has no end-of-turn token.

        Raises:
            AlignmentError: If the template does not begin a response where its generation prompt ends.
        """
        answered = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        whole = prompt_text(self._processor, [*self._question, answered])
        if not whole.startswith(self._before):
            raise AlignmentError(
                "the checkpoint's chat template does not begin a response where its generation prompt ends; "
                "correct chat_template.jinja"
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
