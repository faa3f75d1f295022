"""Computes each video of a batch of questions once, and generates the responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from safevid_core.models.prompts import Prompt, encode_prompts, on_device
from safevid_core.settings import VideoModel
from safevid_core.video.decoding import Frames

if TYPE_CHECKING:
    from safevid_core.models.shared_generation import Trunk


@dataclass(eq=False)
class AskedVideo:
    """A video and the questions about it.

    Attributes:
        frames: The video.
        as_images: Whether the model receives its first frame as an image.
        conversations: One conversation for each question. Only the text of the user may differ.
        keys: Key of each question, the seed of its noise.
    """

    frames: Frames
    as_images: bool
    conversations: list[list[dict[str, Any]]]
    keys: list[str]


class _Computed(NamedTuple):
    prompts: list[Prompt]
    trunk: Trunk
    trunk_tokens: int


class SharedVideos:
    """Generates responses in batches. The trunk of a video is computed once for consecutive batches.

    Args:
        model: Settings of the model.
        loaded: The model.
        processor: Its processor.
    """

    def __init__(self, model: VideoModel, loaded: Any, processor: Any) -> None:
        self._model = model
        self._loaded = loaded
        self._processor = processor
        # The videos of the last batch. None for a video that the common prefix of its prompts does not hold.
        self._computed: dict[AskedVideo, _Computed | None] = {}

    def generate(self, questions: Sequence[tuple[AskedVideo, int]]) -> list[tuple[int, list[int]] | None]:
        """Return the number of prompt tokens and the generated tokens for each question.

        Args:
            questions: A video and the index of one of its questions. Questions about the same video must be
                side by side.

        Returns:
            None for each question about a video that cannot be shared.
        """
        from safevid_core.models.shared_generation import Branch, generate_branches

        videos = list(dict.fromkeys(video for video, _ in questions))
        self._computed = {video: self._computed[video] for video in videos if video in self._computed}
        for video in videos:
            if video not in self._computed:
                self._computed[video] = self._compute(video)
        branches = [
            Branch(found.trunk, found.prompts[index].ids, found.trunk_tokens, video.keys[index])
            for video, index in questions
            if (found := self._computed[video]) is not None
        ]
        responses = iter(generate_branches(self._model, self._loaded, branches) if branches else ())
        computed = [(self._computed[video], index) for video, index in questions]
        return [
            None if found is None else (len(found.prompts[index].ids), next(responses))
            for found, index in computed
        ]

    def _compute(self, video: AskedVideo) -> _Computed | None:
        from safevid_core.models.shared_generation import compute_trunk, shared_tokens

        prompts, inputs = encode_prompts(
            self._model.family, self._processor, video.conversations, video.frames, as_images=video.as_images
        )
        tokens = shared_tokens(prompts)
        if tokens is None:
            return None
        trunk = compute_trunk(self._loaded, prompts[0], tokens, on_device(inputs, self._loaded))
        return _Computed(prompts, trunk, tokens)
