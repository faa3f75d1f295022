"""Attention in which each token of a forest sees its ancestors only.

Imports torch: import it inside functions.

Three ways to the same figures: `dense`, a mask of N x N, the plainest; `segments`, for CPUs, where
FlexAttention has no backward; `flex`, FlexAttention with a block mask, for GPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from safevid_core.alignment.tree import Segment

Way = Literal["dense", "segments", "flex"]
NAME = "safevid_tree"

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass
class TrunkStates:
    """Keys and values of a trunk of `T` tokens by layer, `[1, key heads, T, width]` each.

    The trunk is computed once, its branches in turns, each turn with a backward pass of its own: they leave
    their gradients at copies of the keys and values, and the trunk's backward pass goes on from there. So no
    more than the trunk and one turn are in memory, and the gradient is that of the whole tree.
    """

    computed: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    lent: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        if layer in self.computed:  # gradient checkpointing computes a layer again
            return
        self.computed[layer] = (key, value)
        wanted = key.requires_grad
        self.lent[layer] = (key.detach().requires_grad_(wanted), value.detach().requires_grad_(wanted))

    def __len__(self) -> int:
        return self.lent[0][0].shape[2] if self.lent else 0

    def backward(self) -> None:
        """Carry what the turns left on through the trunk."""
        computed = [each for layer in self.lent for each in self.computed[layer]]
        lent = [each for layer in self.lent for each in self.lent[layer]]
        reached = [index for index, each in enumerate(lent) if each.grad is not None]
        torch.autograd.backward(
            [computed[index] for index in reached], [lent[index].grad for index in reached]
        )


@dataclass
class TreeMask:
    """Who sees whom in a forest of `N` tokens, in the form that one way of computing takes.

    Attributes:
        segments: The forest's.
        seen: For `dense`, bool `[N, T + N]`: whether the row's token sees the column's. For `flex`, its block
            mask. None for `segments`.
        trunk: The `T` tokens that all see beside the forest's own.
        kept: Where the forest's keys and values are kept, for a forest that is a trunk.
    """

    segments: Sequence[Segment]
    way: Way
    seen: torch.Tensor | BlockMask | None = field(default=None, repr=False)
    trunk: TrunkStates | None = field(default=None, repr=False)
    kept: TrunkStates | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        segments: Sequence[Segment],
        way: Way,
        device: torch.device | str = "cpu",
        trunk: TrunkStates | None = None,
        kept: TrunkStates | None = None,
    ) -> TreeMask:
        before = 0 if trunk is None else len(trunk)
        seen: torch.Tensor | BlockMask | None = None
        if way == "dense":
            seen = dense_mask(segments, before).to(device)
        elif way == "flex":
            seen = block_mask(segments, device, before)
        return cls(segments, way, seen, trunk, kept)


def way_for(device: torch.device) -> Way:
    return "flex" if device.type == "cuda" else "segments"


def dense_mask(segments: Sequence[Segment], before: int = 0) -> torch.Tensor:
    """bool `[N, before + N]`, from each token's chain of ancestors; the other ways are tested against it."""
    count = segments[-1].end
    seen = torch.zeros(count, count, dtype=torch.bool)
    for above in segments:
        own = range(above.start, above.end)
        seen[above.start : above.end, above.start : above.end] = torch.ones(len(own), len(own)).tril().bool()
        seen[above.end : above.stop, above.start : above.end] = True
    return torch.cat([torch.ones(count, before, dtype=torch.bool), seen], 1)


def block_mask(segments: Sequence[Segment], device: torch.device | str, before: int = 0) -> BlockMask:
    """FlexAttention's mask; it skips the blocks of tokens in which no one sees another."""
    count = segments[-1].end
    ends = torch.tensor([segment.stop for segment in segments])
    sizes = torch.tensor([segment.end - segment.start for segment in segments])
    stops = ends.repeat_interleave(sizes).to(device)

    def sees(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        own = (key - before).clamp(min=0)
        return (key < before) | ((own <= query) & (query < stops[own]))

    return create_block_mask(sees, None, None, count, before + count, device=str(device))


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: TreeMask, scale: float
) -> torch.Tensor:
    """Attention over one row of tokens.

    Args:
        query: `[1, heads, N, width]`.
        key: `[1, key heads, T + N, width]`, behind a trunk's if the mask has one; `value` likewise. The key
            heads divide the heads.

    Returns:
        `[1, heads, N, width]`.
    """
    grouped = key.shape[1] != query.shape[1]
    if mask.way == "flex":
        attention = _compiled_flex_attention() if query.is_cuda else flex_attention
        found = attention(query, key, value, block_mask=mask.seen, scale=scale, enable_gqa=grouped)
        assert isinstance(found, torch.Tensor)
        return found
    if grouped:
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    if mask.way == "dense":
        return scaled_dot_product_attention(query, key, value, attn_mask=mask.seen, scale=scale)
    found = _SegmentAttention.apply(query, key, value, mask.segments, scale)
    assert isinstance(found, torch.Tensor)
    return found


class _SegmentAttention(torch.autograd.Function):
    """Attention by parts, each a plain call of the CPU's flash attention on a run of tokens.

    A segment attends causally to itself, and all that descends from it attends to it without a mask. The
    parts of a token are merged by the logarithm of their sums of exponentials. Backward, a part given the
    merged output and the merged logarithm in place of its own yields its share of the exact gradient, for
    a softmax weight is `exp(score - logarithm)`, and its gradient needs only the row's output beside it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        segments: Sequence[Segment],
        scale: float,
    ) -> torch.Tensor:
        exact = torch.promote_types(query.dtype, torch.float32)
        batch, heads, count, width = query.shape
        output = query.new_empty(batch, count, heads, width, dtype=exact).transpose(1, 2)
        logarithm = query.new_empty(batch, count, heads, dtype=exact).transpose(1, 2)
        for rows, columns, causal, first in _parts(segments, key.shape[2] - count):
            part, part_logarithm = _flash(
                query[:, :, rows], key[:, :, columns], value[:, :, columns], 0.0, causal, scale=scale
            )
            if first:
                output[:, :, rows] = part
                logarithm[:, :, rows] = part_logarithm
            else:
                _merge(output[:, :, rows], logarithm[:, :, rows], part.to(exact), part_logarithm)
        merged = output.to(query.dtype)
        ctx.save_for_backward(query, key, value, merged, logarithm)
        ctx.segments, ctx.scale = segments, scale
        return merged

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value, output, logarithm = ctx.saved_tensors
        gradient = gradients[0]
        exact = logarithm.dtype
        found = [torch.zeros_like(each, dtype=exact) for each in (query, key, value)]
        for rows, columns, causal, _ in _parts(ctx.segments, key.shape[2] - query.shape[2]):
            shares = _flash_backward(
                gradient[:, :, rows],
                query[:, :, rows],
                key[:, :, columns],
                value[:, :, columns],
                output[:, :, rows],
                logarithm[:, :, rows],
                0.0,
                causal,
                scale=ctx.scale,
            )
            for total, where, share in zip(found, (rows, columns, columns), shares, strict=True):
                total[:, :, where] += share
        return (*(total.to(query.dtype) for total in found), None, None)


def _parts(segments: Sequence[Segment], before: int) -> Iterator[tuple[slice, slice, bool, bool]]:
    """Which tokens attend to which keys, whether causally, and whether it is those tokens' first part.

    `before` keys of a trunk precede the tokens' own.
    """
    if before:
        yield slice(0, segments[-1].end), slice(0, before), False, True
    for segment in segments:
        own, below = slice(segment.start, segment.end), slice(segment.end, segment.stop)
        keys = slice(before + segment.start, before + segment.end)
        is_first = segment.depth == 0
        yield own, keys, True, is_first
        if segment.stop > segment.end:
            yield below, keys, False, is_first


def _merge(
    output: torch.Tensor, logarithm: torch.Tensor, part: torch.Tensor, part_logarithm: torch.Tensor
) -> None:
    """Take a further part into the merged output and logarithm, in place."""
    weight = torch.sigmoid(part_logarithm - logarithm)
    output.lerp_(part, weight.unsqueeze(-1))
    torch.logaddexp(logarithm, part_logarithm, out=logarithm)


@functools.cache
def _compiled_flex_attention() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def tree_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    tree: TreeMask,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The form that transformers calls; the keyword `tree` reaches it from the model's own call."""
    if tree.kept is not None:
        tree.kept.keep(module.layer_idx, key, value)
    if tree.trunk is not None:
        before = tree.trunk.lent[module.layer_idx]
        key, value = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
    return attend(query, key, value, tree, scaling).transpose(1, 2), None


def use_tree_attention(language_model: torch.nn.Module) -> None:
    """Let a language model's layers attend by the `tree` that its call names."""
    AttentionInterface.register(NAME, tree_attention_forward)
    language_model.config._attn_implementation = NAME
