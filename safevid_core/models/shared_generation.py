"""Responses to many questions about one video, for which the video is computed once.

The prompts about a video have a common prefix, the trunk. Example: the system message and 1,152 video tokens.
The vision tower and the language model process the trunk once, and its keys and values are in memory once,
whatever the number of questions. The rest of each prompt, the branch, and its response attend to the trunk
and to themselves. All branches go through the language model in one packed row. Then all responses are
decoded in one batch, in which questions about several videos may be side by side.
The responses are those of `generate`, up to rounding.

Imports torch: import it inside functions.
"""

from __future__ import annotations

import contextlib
import itertools
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor

from safevid_core.models.prompts import Prompt, common_prefix_length
from safevid_core.models.rope import trunk_positions
from safevid_core.models.sampling import generators_of, with_gumbel_noise
from safevid_core.models.shared_attention import SharedAttention, Trunk, shared_attention
from safevid_core.settings import VideoModel

_GRIDS = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")

# Settings of a checkpoint's generation that greedy search does not read, or that this module follows.
_KNOWN_SETTINGS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens", "repetition_penalty"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("output_attentions", "output_hidden_states", "cache_implementation", "use_cache"),
    "transformers_version",
}


@dataclass(frozen=True)
class Branch:
    """One prompt with its trunk.

    Attributes:
        trunk: The trunk.
        prompt_ids: All tokens of the prompt.
        trunk_tokens: Number of prompt tokens in the trunk. At least one token is not in it.
        key: Key of the question, the seed of its noise.
    """

    trunk: Trunk = field(repr=False)
    prompt_ids: list[int]
    trunk_tokens: int
    key: str

    @property
    def own_ids(self) -> list[int]:
        """The prompt tokens after the trunk."""
        return self.prompt_ids[self.trunk_tokens :]


def can_share(loaded: Any) -> bool:
    """Return whether a loaded model can decode with a shared trunk.

    False for sliding windows, for attention that cannot be replaced, and for a checkpoint with generation
    settings that this module does not know. Example: `no_repeat_ngram_size`.
    """
    language_model: Any = getattr(getattr(loaded, "model", None), "language_model", None)
    if not hasattr(language_model, "layers"):
        return False
    kinds = getattr(language_model.config, "layer_types", None)
    if kinds is None:  # Mistral has no `layer_types`, and its window is that of all layers
        is_full = getattr(language_model.config, "sliding_window", None) is None
    else:
        is_full = set(kinds) <= {"full_attention"}
    settings = {name for name in loaded.generation_config.to_diff_dict() if not name.startswith("_")}
    return is_full and language_model.is_backend_compatible() and settings <= _KNOWN_SETTINGS


def shared_tokens(prompts: Sequence[Prompt]) -> int | None:
    """Return the number of tokens of the prompts' trunk. None if it would not hold the whole video.

    The last token of a prompt is never in the trunk, because it predicts the response.
    """
    shortest = min(len(prompt.ids) for prompt in prompts)
    length = min(common_prefix_length([prompt.ids for prompt in prompts]), shortest - 1)
    return length if length >= max(1, *(prompt.video_end for prompt in prompts)) else None


def compute_trunk(loaded: Any, prompt: Prompt, tokens: int, video: Mapping[str, torch.Tensor]) -> Trunk:
    """Run the vision tower and the language model over the first tokens of a prompt.

    Args:
        loaded: The model.
        prompt: A prompt that begins with the trunk.
        tokens: Number of tokens of the trunk.
        video: The model inputs of the video, on the model's device.
    """
    ids = prompt.ids[:tokens]
    modalities = None if prompt.modalities is None else prompt.modalities[:tokens]
    grids = {name: value.cpu() for name, value in video.items() if name in _GRIDS}
    positions = trunk_positions(loaded.model, ids, modalities, grids)
    cache = DynamicCache()
    here = positions[:, :-1].to(loaded.device)
    with torch.inference_mode(), _fast_products(loaded):
        loaded.model(
            input_ids=torch.tensor([ids], device=loaded.device),
            position_ids=here if len(here) == 1 else here[:, None],
            past_key_values=cache,
            use_cache=True,
            **video,
        )
    return Trunk(
        [layer.keys for layer in cache.layers],
        [layer.values for layer in cache.layers],
        int(positions[0, -1]),
    )


def generate_branches(model: VideoModel, loaded: Any, branches: Sequence[Branch]) -> list[list[int]]:
    """Return the generated tokens of each branch, with the end token if it was reached.

    Args:
        model: Settings of the model: the limit, the temperature and the repetition penalty.
        loaded: The model, one for which :func:`can_share` is true.
        branches: The branches. Branches with the same trunk must be side by side.
    """
    choose = _Choice(model, loaded, branches)
    responses: list[list[int]] = [[] for _ in branches]
    alive = list(range(len(branches)))
    with torch.inference_mode(), SharedDecoding(loaded, branches) as decoding:
        scores = decoding.prefill()
        while True:
            tokens = choose(scores, alive, responses)
            for row, token in zip(alive, tokens.tolist(), strict=True):
                responses[row].append(token)
            kept = [place for place, row in enumerate(alive) if responses[row][-1] not in choose.stops]
            if not kept or len(responses[alive[0]]) >= model.max_new_tokens:
                return responses
            if len(kept) < len(alive):
                decoding.keep(kept)
                alive, tokens = [alive[place] for place in kept], tokens[kept]
            scores = decoding.step(tokens)


class _Choice:
    """Chooses the next token of each row, as `generate` does for the same settings."""

    def __init__(self, model: VideoModel, loaded: Any, branches: Sequence[Branch]) -> None:
        ends = loaded.generation_config.eos_token_id
        self.stops = set(ends) if isinstance(ends, list) else {ends}
        self._temperature = model.temperature
        self._generators = generators_of([branch.key for branch in branches], loaded.device)
        self._prompts = [branch.prompt_ids for branch in branches]
        # The penalty of the settings replaces the checkpoint's own, which also holds for prompt tokens.
        of_checkpoint = loaded.generation_config.repetition_penalty or 1.0
        self._penalises_prompts = model.repetition_penalty == 1
        penalty = float(of_checkpoint if self._penalises_prompts else model.repetition_penalty)
        self._penalty = None if penalty == 1 else RepetitionPenaltyLogitsProcessor(penalty)

    def __call__(
        self, scores: torch.Tensor, alive: Sequence[int], responses: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Return the next token of each row, int64 `[B]`.

        Args:
            scores: Logits, `[B, vocabulary]`.
            alive: Index of the branch of each row.
            responses: The tokens so far of all branches.
        """
        scores = scores.float()
        if self._penalty is not None:
            scores = self._penalty(self._penalised(alive, responses, scores.device), scores)
        if self._temperature > 0:
            some = [self._generators[row] for row in alive]
            scores = with_gumbel_noise(scores, self._temperature, some)
        return scores.argmax(-1)

    def _penalised(
        self, alive: Sequence[int], responses: Sequence[Sequence[int]], device: Any
    ) -> torch.Tensor:
        """Return the tokens of each row that the penalty holds for."""
        if not self._penalises_prompts:
            return torch.tensor([list(responses[row]) for row in alive], dtype=torch.long, device=device)
        rows = [[*self._prompts[row], *responses[row]] for row in alive]
        longest = max(map(len, rows))
        # A repeated token is penalised once, so a row may be filled up with its own first token.
        return torch.tensor([[row[0]] * (longest - len(row)) + row for row in rows], device=device)


class SharedDecoding:
    """The state of a batch of branches: their trunks, and the keys and values of their own tokens.

    Use it as a context, in which the language model attends to trunk and branch.

    Args:
        loaded: The model.
        branches: The branches. Branches with the same trunk must be side by side.
    """

    def __init__(self, loaded: Any, branches: Sequence[Branch]) -> None:
        own = [branch.own_ids for branch in branches]
        starts = [branch.trunk.next_position for branch in branches]
        self._loaded = loaded
        self._ids = _row(own, loaded.device)
        ranges = [range(start, start + len(ids)) for start, ids in zip(starts, own, strict=True)]
        self._positions = _row(ranges, loaded.device)
        self._last = torch.tensor(list(itertools.accumulate(map(len, own))), device=loaded.device) - 1
        self._next = torch.tensor([each.stop for each in ranges], device=loaded.device)
        self._attention = SharedAttention(
            [branch.trunk for branch in branches], list(map(len, own)), loaded.device
        )
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SharedDecoding:
        self._stack.enter_context(shared_attention(self._loaded.model.language_model))
        self._stack.enter_context(_fast_products(self._loaded))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prefill(self) -> torch.Tensor:
        """Run all branches through the model in one packed row. Return the logits `[B, vocabulary]`."""
        return self._logits(self._forward(self._ids, self._positions)[self._last])

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append one token `[B]` to each branch. Return the logits `[B, vocabulary]`."""
        self._attention.append()
        hidden = self._forward(tokens[None], self._next[None])
        self._next = self._next + 1
        return self._logits(hidden)

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all other branches from the batch."""
        self._next = self._next[list(rows)]
        self._attention.keep(rows)

    def _forward(self, token_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        found = self._loaded.model.language_model(
            inputs_embeds=self._loaded.get_input_embeddings()(token_ids),
            position_ids=positions,
            use_cache=False,
            shared=self._attention,
        )
        hidden = found.last_hidden_state[0]
        assert isinstance(hidden, torch.Tensor)
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self._loaded.get_output_embeddings()(hidden)
        assert isinstance(logits, torch.Tensor)
        return logits


@contextlib.contextmanager
def _fast_products(loaded: Any) -> Iterator[None]:
    """Within the block the linear layers of a float32 model on a CPU use oneDNN's product.

    For 28 rows and the shapes of `benchmarks/answer_sharing.py` it takes 0.57 of the time of torch's own.
    """
    layers: list[torch.nn.Linear] = []
    if loaded.device.type == "cpu" and loaded.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        linear = (module for module in loaded.modules() if type(module) is torch.nn.Linear)
        layers = [module for module in linear if "forward" not in vars(module)]
    for layer in layers:
        layer.forward = types.MethodType(_product, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _product(layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    found = torch.ops.mkldnn._linear_pointwise(inputs, layer.weight, layer.bias, "none", [], "")
    assert isinstance(found, torch.Tensor)
    return found


def _row(parts: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    return torch.tensor([[each for part in parts for each in part]], device=device)
