"""Tokenisation of preference pairs and their clips. Pairs that cannot be trained on are refused here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from safevid_core.alignment.errors import AlignmentError
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import Outcome
from safevid_core.models.families import build_inputs, conversation, prompt_text
from safevid_core.settings import AlignmentSettings, VideoModel
from safevid_core.storage.frames import FrameCache
from safevid_core.video.decoding import Frames, VideoError
from safevid_core.video.uniform_frames import uniform_frames

if TYPE_CHECKING:
    import torch

    from safevid_core.alignment.clips import ClipStore

# Processor outputs with one row for each prompt. All other outputs belong to the videos.
_TOKEN_COLUMNS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


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
    visual_ids = {getattr(processor, name, None) for name in ("video_token_id", "image_token_id")}
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
        prompts, clip_inputs = _encode_prompts(group["prompt"].to_list(), frames, settings.base, processor)
        texts = group.select("pair_id", "chosen", "rejected").iter_rows()
        encoded = [
            EncodedPair(pair_id, clip, *prompt, answers.encode(chosen), answers.encode(rejected))
            for (pair_id, chosen, rejected), prompt in zip(texts, prompts, strict=True)
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


def _video_end(prompt_ids: list[int], visual_ids: set[int | None]) -> int:
    return max((index + 1 for index, token in enumerate(prompt_ids) if token in visual_ids), default=0)


def _over_long(pair: EncodedPair, limit: int) -> str:
    return (
        f"pair {pair.pair_id}: {len(pair)} tokens, more than alignment.max_length {limit}; "
        "raise it or shorten the pair"
    )


# Token ids of a prompt, and for each token 1 if it is video.
_Prompt = tuple[list[int], list[int] | None]


def _encode_prompts(
    prompts: list[str], frames: Frames | None, base: VideoModel, processor: Any
) -> tuple[list[_Prompt], dict[str, torch.Tensor]]:
    """Return the ids and modalities of all prompts about one clip, and the model inputs of the clip.

    The processor would process the clip once for each prompt. To save time it processes the first two prompts
    only. The other prompts are the beginning of the first, with the video, and their own text. The second
    prompt checks this: if the shortcut does not give its ids, the processor processes all prompts.
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
    """Return a prompt that starts like `first`, with its video tokens, and ends like `plain`.

    Args:
        first: A processed prompt about the same clip.
        first_plain: Ids of its text, in which one placeholder stands for the video.
        plain: Ids of the text of the wanted prompt.

    Returns:
        None if the two texts do not begin alike.
    """
    ids, modalities = first
    pairs = zip(reversed(ids), reversed(first_plain), strict=False)
    alike = len(list(itertools.takewhile(lambda two: two[0] == two[1], pairs)))
    beginning, begins = len(ids) - alike, len(first_plain) - alike
    if plain[:begins] != first_plain[:begins]:
        return None
    rest = plain[begins:]
    if modalities is None:
        return [*ids[:beginning], *rest], None
    # The common ending may begin within the video, because all video tokens are the same.
    video = sum(1 for each in modalities[beginning:] if each)
    return [*ids[:beginning], *rest], [*modalities[: beginning + video], *(0 for _ in rest[video:])]


def _processed(
    conversations: list[list[dict[str, Any]]], frames: Frames | None, base: VideoModel, processor: Any
) -> tuple[list[_Prompt], dict[str, torch.Tensor]]:
    """Return the processor's ids and modalities of the conversations, and one copy of the clip's inputs."""
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
