"""Attention in which each token of a forest sees its ancestors only.

Imports torch: import it inside functions.

Three ways to the same figures: `dense`, a mask of N x N, the plainest; `segments`, for CPUs, where
FlexAttention has no backward; `flex`, FlexAttention with a block mask, for GPUs.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from safevid_core.alignment.fused_layers import Product, packed_product
from safevid_core.alignment.tree import Segment

Way = Literal["dense", "segments", "flex"]
# What rows of tokens see: a mask, or the parts of `segments`.
Seen: TypeAlias = "torch.Tensor | BlockMask | list[Part]"
NAME = "safevid_tree"  # of attention; transformers makes no mask for one that it does not know

# A layer's weights of attention to a trunk, in bytes, up to which they are kept for the backward pass, which
# otherwise computes them again: a fifth of its products.
_KEPT_WEIGHTS = 2**27
_ROWS_AT_ONCE = 256  # of the weights, so that they are worked on in the cache
_KINDS = 64  # of shapes, for which FlexAttention may be compiled

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class HeadProducts(NamedTuple):
    """Products of rows with a trunk's keys `K` and values `V` of one head, scaled."""

    scores: Product  # rows K'
    outputs: Product  # weights V
    of_weights: Product  # gradient V'
    of_rows: Product  # gradient K


@dataclass
class Trunk:
    """Keys and values of a trunk in one layer, and on a CPU what its turns share of products with them."""

    key: torch.Tensor
    value: torch.Tensor
    products: list[HeadProducts] = field(default_factory=list)  # by head


@dataclass
class TrunkStates:
    """Keys and values of a trunk of `T` tokens by layer, `[1, key heads, T, width]` each.

    The trunk is computed once, its branches in turns, each turn with a backward pass of its own: they leave
    their gradients at copies of the keys and values, and the trunk's backward pass goes on from there. So no
    more than the trunk and one turn are in memory, and the gradient is that of the whole tree.
    """

    computed: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    lent: dict[int, Trunk] = field(default_factory=dict)

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        if layer in self.computed:  # gradient checkpointing computes a layer again
            return
        self.computed[layer] = (key, value)
        wanted = key.requires_grad
        self.lent[layer] = Trunk(key.detach().requires_grad_(wanted), value.detach().requires_grad_(wanted))

    def __len__(self) -> int:
        return self.lent[0].key.shape[2] if self.lent else 0

    def backward(self) -> None:
        """Carry what the turns left on through the trunk."""
        computed = [each for layer in self.lent for each in self.computed[layer]]
        lent = [each for trunk in self.lent.values() for each in (trunk.key, trunk.value)]
        reached = [index for index, each in enumerate(lent) if each.grad is not None]
        torch.autograd.backward(
            [computed[index] for index in reached], [lent[index].grad for index in reached]
        )


@dataclass
class TreeMask:
    """Who sees whom in a forest of `N` tokens, in the form that one way of computing takes.

    Attributes:
        segments: The forest's.
        device: The tokens'.
        trunk: The `T` tokens that all see beside the forest's own.
        kept: Where the forest's keys and values are kept, for a forest that is a trunk.
        asked: int64 `[W]`, in order: the tokens whose last hidden states are wanted. None is all.
    """

    segments: Sequence[Segment]
    way: Way
    device: torch.device | str = "cpu"
    trunk: TrunkStates | None = field(default=None, repr=False)
    kept: TrunkStates | None = field(default=None, repr=False)
    asked: torch.Tensor | None = field(default=None, repr=False)

    @functools.cached_property
    def of_all(self) -> Seen:
        """What all the tokens see."""
        return self._seen_by(None)

    @functools.cached_property
    def of_asked(self) -> Seen:
        """What the asked tokens see, which stand side by side."""
        return self._seen_by(self.asked)

    def _seen_by(self, asked: torch.Tensor | None) -> Seen:
        before = 0 if self.trunk is None else len(self.trunk)
        if self.way == "flex":
            return block_mask(self.segments, self.device, before, asked)
        if self.way == "dense":
            seen = dense_mask(self.segments, before).to(self.device)
            return seen if asked is None else seen[asked]
        tokens = range(self.segments[-1].end) if asked is None else asked.tolist()
        return list(_parts(self.segments, tokens, self.trunk is not None))


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


def block_mask(
    segments: Sequence[Segment],
    device: torch.device | str,
    before: int = 0,
    asked: torch.Tensor | None = None,
) -> BlockMask:
    """FlexAttention's mask, of all tokens' rows or the asked ones'.

    It skips the blocks of tokens in which no one sees another.
    """
    count = before + segments[-1].end
    ends = torch.tensor([count, *(before + segment.stop for segment in segments)])
    sizes = torch.tensor([before, *(segment.end - segment.start for segment in segments)])
    stops = ends.repeat_interleave(sizes).to(device)
    # All that the mask reads is a tensor, so that one compiled kernel serves forests of every shape.
    tokens = before + (torch.arange(count - before, device=device) if asked is None else asked)

    def sees(batch: Any, head: Any, row: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= tokens[row]) & (tokens[row] < stops[key])

    return create_block_mask(sees, None, None, len(tokens), count, device=str(device))


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: TreeMask,
    scale: float,
    trunk: Trunk | None = None,
    *,
    only_asked: bool = False,
) -> torch.Tensor:
    """Attention over one row of tokens.

    Args:
        query: `[1, heads, N, width]`, or `[1, heads, W, width]` of the asked tokens alone.
        key: `[1, key heads, N, width]`; `value` likewise. The key heads divide the heads.
        trunk: Of the mask's trunk, if it has one; its keys and values are `[1, key heads, T, width]`.
        only_asked: Whether the queries are the mask's asked tokens.

    Returns:
        As `query`.
    """
    groups = query.shape[1] // key.shape[1]
    seen: Any = mask.of_asked if only_asked else mask.of_all
    if mask.way == "segments":
        states = (key, value) if trunk is None else (key, value, trunk.key, trunk.value)
        if groups > 1:
            states = tuple(each.repeat_interleave(groups, dim=1) for each in states)
        found = _SegmentAttention.apply(query, seen, scale, trunk and trunk.products, *states)
        assert isinstance(found, torch.Tensor)
        return found
    if trunk is not None:
        key, value = torch.cat([trunk.key, key], 2), torch.cat([trunk.value, value], 2)
    if mask.way == "flex":
        attention = _compiled_flex_attention() if query.is_cuda else flex_attention
        # One layout of memory, for which one kernel is compiled.
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        found = attention(query, key, value, block_mask=seen, scale=scale, enable_gqa=groups > 1)
    else:
        found = scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=scale, enable_gqa=groups > 1
        )
    assert isinstance(found, torch.Tensor)
    return found


@dataclass(frozen=True)
class Part:
    """Tokens, by their places among the queries, that attend to a run of keys.

    Attributes:
        causal: Whether the first token sees the first key only, and so on; otherwise all see all.
        is_first: Whether it is the first part of these tokens.
        of_trunk: Whether the keys are the trunk's, all of them.
    """

    rows: slice
    keys: slice
    causal: bool
    is_first: bool
    of_trunk: bool = False


class _SegmentAttention(torch.autograd.Function):
    """Attention by parts, each a plain call of the CPU's flash attention on a run of tokens.

    A segment attends causally to itself, and all that descends from it attends to it without a mask. The
    parts of a token are merged by the logarithm of their sums of exponentials. Backward, a part given the
    merged output and the merged logarithm in place of its own yields its share of the exact gradient, for
    a softmax weight is `exp(score - logarithm)`, and its gradient needs only the row's output beside it.
    Where the weights to a trunk are few, its part keeps them in place of computing them again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        parts: Sequence[Part],
        scale: float,
        products: list[HeadProducts] | None,
        *states: torch.Tensor,
    ) -> torch.Tensor:
        """`states` are keys and values of the tokens, then those of the trunk, whose products these are."""
        exact = torch.promote_types(query.dtype, torch.float32)
        batch, heads, count, width = query.shape
        output = query.new_empty(batch, count, heads, width, dtype=exact).transpose(1, 2)
        logarithm = query.new_empty(batch, count, heads, dtype=exact).transpose(1, 2)
        kept: Sequence[torch.Tensor] = ()
        for part in parts:
            rows = query[:, :, part.rows]
            key, value = (each[:, :, part.keys] for each in _states_of(part, states))
            if part.of_trunk and any(ctx.needs_input_grad) and _is_small(rows, key):
                assert products is not None
                _pack(products, key, value, scale)
                found, *kept = _attend_keeping(rows, products, key.shape[2])
                found_logarithm = kept[0]
            else:
                found, found_logarithm = _flash(rows, key, value, 0.0, part.causal, scale=scale)
            if part.is_first:
                output[:, :, part.rows] = found
                logarithm[:, :, part.rows] = found_logarithm
            else:
                _merge(output[:, :, part.rows], logarithm[:, :, part.rows], found.to(exact), found_logarithm)
        merged = output.to(query.dtype)
        ctx.save_for_backward(query, merged, logarithm, *kept, *states)
        ctx.parts, ctx.scale, ctx.products, ctx.kept = parts, scale, products, len(kept)
        return merged

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, output, logarithm, *rest = ctx.saved_tensors
        kept, states = rest[: ctx.kept], rest[ctx.kept :]
        gradient = gradients[0]
        of_query = torch.empty_like(query, dtype=logarithm.dtype)
        of_states = [torch.zeros_like(each, dtype=logarithm.dtype) for each in states]
        for part in ctx.parts:
            rows = part.rows
            key, value = (each[:, :, part.keys] for each in _states_of(part, states))
            given = (gradient[:, :, rows], query[:, :, rows], key, value, output[:, :, rows])
            if part.of_trunk and kept:
                share, *others = _keeping_backward(
                    *given, logarithm, kept[0], kept[1], ctx.products, ctx.scale
                )
            else:
                share, *others = _flash_backward(
                    *given, logarithm[:, :, rows], 0.0, part.causal, scale=ctx.scale
                )
            if part.is_first:
                of_query[:, :, rows] = share
            else:
                of_query[:, :, rows] += share
            for total, other in zip(_states_of(part, of_states), others, strict=True):
                total[:, :, part.keys] += other
        return (of_query.to(query.dtype), None, None, None, *(each.to(query.dtype) for each in of_states))


def _is_small(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether the weights of all the queries to all the keys are few enough to be kept."""
    rows = query.shape[1] * query.shape[2]
    is_known = query.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return is_known and rows * key.shape[2] * query.itemsize <= _KEPT_WEIGHTS


def _pack(products: list[HeadProducts], key: torch.Tensor, value: torch.Tensor, scale: float) -> None:
    """Make the products with the keys and values `[1, heads, T, width]`, if they are not there."""
    if products:
        return
    for head in range(key.shape[1]):
        keys, values = (key[0, head] * scale).contiguous(), value[0, head].contiguous()
        weights = (keys, values.T.contiguous(), values, keys.T.contiguous())
        products.append(HeadProducts(*map(packed_product, weights)))


def _attend_keeping(
    query: torch.Tensor, products: list[HeadProducts], keys: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As flash attention without a mask.

    Returns:
        Output, logarithm, and the weights `[heads, N, keys]`.
    """
    _, heads, count, _ = query.shape
    output, logarithm = torch.empty_like(query), query.new_empty(1, heads, count)
    weights = query.new_empty(heads, count, keys)
    for head in range(heads):
        runs = (each[head].split(_ROWS_AT_ONCE) for each in (query[0], weights, output[0], logarithm[0]))
        for rows, found, of_rows, logarithms in zip(*runs, strict=True):
            scores = products[head].scores(rows)
            torch.softmax(scores, -1, out=found)
            of_rows.copy_(products[head].outputs(found))
            # The greatest weight is one over the sum of the exponentials, relative to the greatest score.
            torch.sub(scores.amax(-1), found.amax(-1).log_(), out=logarithms)
    return output, logarithm, weights


def _keeping_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    logarithm: torch.Tensor,
    own_logarithm: torch.Tensor,
    weights: torch.Tensor,
    products: list[HeadProducts],
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value, from the merged output and logarithm and what the part kept."""
    of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    gradient = gradient * (own_logarithm - logarithm).exp()[..., None]
    along = (gradient * output).sum(-1, keepdim=True)
    for head in range(query.shape[1]):
        runs = (
            each[head].split(_ROWS_AT_ONCE)
            for each in (gradient[0], along[0], weights, query[0], of_query[0])
        )
        for above, taken, some, rows, found in zip(*runs, strict=True):
            of_value[0, head].addmm_(some.T, above)
            of_scores = products[head].of_weights(above).sub_(taken).mul_(some)
            found.copy_(products[head].of_rows(of_scores))
            of_key[0, head].addmm_(of_scores.T, rows, alpha=scale)
    return of_query, of_key, of_value


def _states_of(part: Part, states: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """The keys and the values that a part is about."""
    return states[2:] if part.of_trunk else states[:2]


def _parts(segments: Sequence[Segment], asked: Sequence[int], has_trunk: bool) -> Iterator[Part]:
    """What the asked tokens attend to; their places are those in `asked`, which is in order."""
    if has_trunk:
        yield Part(slice(0, len(asked)), slice(None), causal=False, is_first=True, of_trunk=True)
    for segment in segments:
        start, end, stop = (
            bisect.bisect_left(asked, token) for token in (segment.start, segment.end, segment.stop)
        )
        is_first = segment.depth == 0 and not has_trunk
        for first, last in _runs(asked, start, end):
            rows, token = slice(first, last), asked[first]
            if token > segment.start:
                yield Part(rows, slice(segment.start, token), causal=False, is_first=is_first)
            keys = slice(token, token + last - first)
            yield Part(rows, keys, causal=True, is_first=is_first and token == segment.start)
        if stop > end:
            yield Part(slice(end, stop), slice(segment.start, segment.end), causal=False, is_first=is_first)


def _runs(asked: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Places of consecutive tokens, from each first one to behind its last."""
    breaks = [place for place in range(start + 1, end) if asked[place] != asked[place - 1] + 1]
    if end > start:
        yield from itertools.pairwise([start, *breaks, end])


def _merge(
    output: torch.Tensor, logarithm: torch.Tensor, part: torch.Tensor, part_logarithm: torch.Tensor
) -> None:
    """Take a further part into the merged output and logarithm, in place."""
    weight = torch.sigmoid(part_logarithm - logarithm)
    output.lerp_(part, weight.unsqueeze(-1))
    torch.logaddexp(logarithm, part_logarithm, out=logarithm)


@functools.cache
def _compiled_flex_attention() -> Any:
    """Compiled for each kind of shape: with gradients or without, as many queries as keys, one block of them.

    Beyond its limit of kinds torch would go on without a kernel, with all weights in memory; there it stops.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _KINDS)
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)


def use_tree_attention(language_model: torch.nn.Module) -> None:
    """Let a language model's layers attend by the `tree` that its call names.

    Its last layer, and what follows it, then computes the tokens that the tree asks for and no others: no
    answer is read off a video's tokens, which have done their part once their keys and values are there.
    """
    language_model.config._attn_implementation = NAME
    for layer in language_model.layers:
        layer.self_attn.forward = types.MethodType(_attention_forward, layer.self_attn)
    last = language_model.layers[-1]
    last.forward = types.MethodType(_forward_of_the_asked, last)


def _attention_forward(
    attention: Any,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    *,
    tree: TreeMask,
    only_asked: bool = False,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention of the three families, of all tokens `[1, N, H]` or of the asked `[1, W, H]`."""

    def heads(projection: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
        return projection(states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    cos, sin = position_embeddings
    key = _rotate(heads(attention.k_proj, hidden_states), cos, sin)
    value = heads(attention.v_proj, hidden_states)
    if tree.kept is not None:
        tree.kept.keep(attention.layer_idx, key, value)
    only_asked = only_asked and tree.asked is not None
    if only_asked:
        hidden_states, cos, sin = (each[:, tree.asked] for each in (hidden_states, cos, sin))
    if not hidden_states.numel():
        return hidden_states, None
    query = _rotate(heads(attention.q_proj, hidden_states), cos, sin)
    trunk = None if tree.trunk is None else tree.trunk.lent[attention.layer_idx]
    found = attend(query, key, value, tree, attention.scaling, trunk, only_asked=only_asked)
    return attention.o_proj(found.transpose(1, 2).flatten(2)), None


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: `[1, heads, N, width]` by `[1, N, width]`."""
    found = _Rotation.apply(states, cos, sin)
    assert isinstance(found, torch.Tensor)
    return found


class _Rotation(torch.autograd.Function):
    """Without the rotated halves as a tensor of their own."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(states, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        cos, sin = ctx.saved_tensors
        return _rotated(gradients[0], cos, -sin.roll(sin.shape[-1] // 2, -1)), None, None


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = states.shape[-1] // 2
    cos, sin = cos[:, None], sin[:, None]
    found = states * cos
    found[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)
    found[..., half:].addcmul_(states[..., :half], sin[..., half:])
    return found


def _forward_of_the_asked(
    layer: Any, hidden_states: torch.Tensor, *, tree: TreeMask, **others: Any
) -> torch.Tensor:
    """A decoder layer of the three families, from `[1, N, H]` to `[1, W, H]` of the asked tokens."""
    normed = layer.input_layernorm(hidden_states)
    attended, _ = layer.self_attn(hidden_states=normed, tree=tree, only_asked=True, **others)
    if tree.asked is not None:
        hidden_states = hidden_states[:, tree.asked]
    hidden_states = hidden_states + attended
    return hidden_states + layer.mlp(layer.post_attention_layernorm(hidden_states))
