"""Attention of branches to one copy of their trunk and to their own tokens.

A trunk is the common beginning of prompts about one video. Its keys and values are in memory once. Each row
of a batch attends to the trunk, in one product with the other rows of the same trunk, and to its own tokens.
Both parts give their output and their log-sum-exp, and these are merged to the exact softmax over all tokens.

Imports torch: import it inside functions.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface

NAME = "safevid_shared"  # name of the attention; transformers makes no mask for an unknown name
_GROWTH = 32  # columns by which the memory of the own tokens grows
_MOST_SCORES = 2**26  # scores in memory at once where no flash attention returns its log-sum-exp

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class Trunk:
    """Keys and values of a trunk of T tokens.

    Attributes:
        keys: `[1, key heads, T, width]` for each layer.
        values: The same for the values.
        next_position: Position of the text token that follows.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    next_position: int


class SharedAttention:
    """The keys and values that the rows of a batch attend to.

    Args:
        trunks: The trunk of each row. Rows with the same trunk must be side by side.
        lengths: Number of prompt tokens of each row after its trunk.
        device: Device of the model.
    """

    def __init__(self, trunks: Sequence[Trunk], lengths: Sequence[int], device: torch.device) -> None:
        self._trunks = list(trunks)
        self._own = _OwnStates(lengths, device)
        # For each trunk the tokens of the next forward pass that attend to it.
        self._runs = list(_runs(self._trunks, lengths))

    def append(self) -> None:
        """Prepare a forward pass with one further token for each row."""
        self._runs = list(_runs(self._trunks, [1] * len(self._trunks)))
        self._own.append()

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all other rows."""
        self._trunks = [self._trunks[row] for row in rows]
        self._own.keep(rows)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Return the attention output `[1, N, heads, width]` of the N tokens of a forward pass.

        Args:
            layer: Index of the layer.
            query: `[1, heads, N, width]`.
            key: `[1, key heads, N, width]`, of the same tokens.
            value: `[1, key heads, N, width]`.
            scale: Factor of the scores.
        """
        output, log_sum_exp = self._own.attend(layer, query, key, value, scale)
        for tokens, trunk in self._runs:
            states = trunk.keys[layer], trunk.values[layer]
            of_trunk, trunk_log_sum_exp = _attend_folded(query[:, :, tokens], *states, scale)
            own, own_log_sum_exp = output[:, :, tokens], log_sum_exp[:, :, tokens]
            weight = torch.sigmoid(trunk_log_sum_exp - own_log_sum_exp).unsqueeze(-1)
            own.copy_(torch.lerp(own.to(weight.dtype), of_trunk.to(weight.dtype), weight))
        return output.transpose(1, 2)


class _OwnStates:
    """Keys and values of the rows' own tokens, `[B, key heads, memory, width]` for each layer.

    The prompts of all rows end in the same column, so shorter ones begin with empty columns.

    Args:
        lengths: Tokens of each row in the first forward pass.
        device: Device of the model.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self._rows = len(lengths)
        self._width = max(lengths)  # columns in use
        self._memory = self._width + _GROWTH
        self._states: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        rows = [row for row, length in enumerate(lengths) for _ in range(length)]
        columns = [column for length in lengths for column in range(self._width - length, self._width)]
        # Row and column of each token of the first forward pass. None later, when each row has one token.
        self._places: tuple[torch.Tensor, torch.Tensor] | None = (
            torch.tensor(rows, device=device),
            torch.tensor(columns, device=device),
        )
        # First column in use of each row. None if it is 0 in all rows.
        self._starts: torch.Tensor | None = None
        if len(set(lengths)) > 1:
            self._starts = self._width - torch.tensor(lengths, device=device)
        self._mask: torch.Tensor | None = self._mask_of(self._width, device)

    def append(self) -> None:
        """Prepare a forward pass with one further token for each row."""
        self._places = None
        self._width += 1
        if self._width > self._memory:
            self._memory += _GROWTH
            self._states = {layer: (_grown(k), _grown(v)) for layer, (k, v) in self._states.items()}
        self._mask = None if self._starts is None else self._mask_of(1, self._starts.device)

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all other rows."""
        index = list(rows)
        self._rows = len(index)
        self._starts = None if self._starts is None else self._starts[index]
        self._states = {layer: (key[index], value[index]) for layer, (key, value) in self._states.items()}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values, and attend to the own tokens.

        The arguments are those of :meth:`SharedAttention.attend`.

        Returns:
            The output `[1, heads, N, width]` and its log-sum-exp `[1, heads, N]`.
        """
        if layer not in self._states:
            _, heads, _, width = key.shape
            shape = (self._rows, heads, self._memory, width)
            self._states[layer] = key.new_zeros(shape), value.new_zeros(shape)
        keys, values = self._states[layer]
        if self._places is None:
            keys[:, :, self._width - 1] = key[0].transpose(0, 1)
            values[:, :, self._width - 1] = value[0].transpose(0, 1)
            queries = query[0].transpose(0, 1).unsqueeze(2)
        else:
            rows, columns = self._places
            keys[rows, :, columns] = key[0].transpose(0, 1)
            values[rows, :, columns] = value[0].transpose(0, 1)
            queries = query.new_zeros(self._rows, query.shape[1], self._width, query.shape[3])
            queries[rows, :, columns] = query[0].transpose(0, 1)
        output, log_sum_exp = _attend_folded(
            queries, keys[:, :, : self._width], values[:, :, : self._width], scale, self._mask
        )
        if self._places is None:
            return output.permute(2, 1, 0, 3), log_sum_exp.permute(2, 1, 0)
        rows, columns = self._places
        found = output[rows, :, columns].transpose(0, 1).unsqueeze(0)
        return found, log_sum_exp[rows, :, columns].transpose(0, 1).unsqueeze(0)

    def _mask_of(self, count: int, device: torch.device) -> torch.Tensor:
        """Return which columns the last `count` columns attend to, bool `[B or 1, 1, count, columns]`."""
        columns = torch.arange(self._width, device=device)
        own = columns[self._width - count :, None]
        seen = (columns <= own)[None]
        if self._starts is not None:
            # An empty column attends to itself, because a softmax over nothing is not a number.
            seen = seen & (columns >= self._starts[:, None, None]) | (columns == own)
        return seen.unsqueeze(1)


def _attend_folded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention output and log-sum-exp. Queries of heads with the same keys are side by side.

    Args:
        query: `[B, heads, N, width]`.
        key: `[B, key heads, M, width]`. The number of heads is a multiple of the number of key heads.
        value: `[B, key heads, M, width]`.
        scale: Factor of the scores.
        mask: Whether a query attends to a key, bool `[B or 1, 1, N, M]`. None means that all do.
    """
    batch, heads, count, width = query.shape
    groups = heads // key.shape[1]
    folded = query.reshape(batch, key.shape[1], groups * count, width)
    if mask is not None:
        forbidden = ~mask.repeat(1, 1, groups, 1)
        mask = torch.zeros_like(forbidden, dtype=query.dtype).masked_fill_(forbidden, -math.inf)
    output, log_sum_exp = _attend(folded, key, value, scale, mask)
    return output.reshape(batch, heads, count, -1), log_sum_exp.reshape(batch, heads, count)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention output and log-sum-exp for equal numbers of heads. The mask is added to the scores."""
    if query.device.type != "cpu":
        return _attend_by_products(query, key, value, scale, mask)
    output, log_sum_exp = _flash(query, key, value, 0.0, False, attn_mask=mask, scale=scale)
    return output, log_sum_exp


def _attend_by_products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None,
    most_scores: int = _MOST_SCORES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same as `_attend` on any device, with up to `most_scores` scores in memory."""
    size = max(1, most_scores // (query.shape[0] * query.shape[1] * key.shape[2]))
    parts = []
    for start in range(0, query.shape[2], size):
        some = slice(start, start + size)
        scores = (query[:, :, some] @ key.transpose(2, 3)).float() * scale
        if mask is not None:
            scores = scores + mask[:, :, some]
        log_sum_exp = scores.logsumexp(-1)
        weights = (scores - log_sum_exp.unsqueeze(-1)).exp()
        parts.append((weights.to(value.dtype) @ value, log_sum_exp))
    outputs, log_sums = zip(*parts, strict=True)
    return torch.cat(outputs, 2), torch.cat(log_sums, 2)


def _runs(trunks: Sequence[Trunk], lengths: Sequence[int]) -> Iterator[tuple[slice, Trunk]]:
    """Yield the tokens of each trunk's branches in a packed row."""
    start = 0
    places = range(len(trunks))
    for _, group in itertools.groupby(places, key=lambda place: id(trunks[place])):
        some = list(group)
        end = start + sum(lengths[place] for place in some)
        yield slice(start, end), trunks[some[0]]
        start = end


def _grown(states: torch.Tensor) -> torch.Tensor:
    rows, heads, _, width = states.shape
    return torch.cat([states, states.new_zeros(rows, heads, _GROWTH, width)], 2)


@contextlib.contextmanager
def shared_attention(language_model: Any) -> Iterator[None]:
    """Within the block the language model takes the argument `shared`, a :class:`SharedAttention`."""
    config = language_model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    shared: SharedAttention,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    return shared.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(NAME, _attention)
