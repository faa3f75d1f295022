"""Attention over a forest, in which each token attends to itself and its ancestors only.

Imports torch: import it inside functions.

Three implementations give the same results:

- `dense`: a mask of N x N. It is the reference for the other two.
- `segments`: for CPUs, where FlexAttention has no backward pass.
- `flex`: FlexAttention with a block mask, for GPUs.
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
# A mask in the form of one implementation: a tensor (`dense`), a block mask (`flex`) or parts (`segments`).
Seen: TypeAlias = "torch.Tensor | BlockMask | list[Part]"
NAME = "safevid_tree"  # name of the attention; transformers makes no mask for an unknown name

# Maximum size in bytes of one layer's attention weights to a trunk that are stored for the backward pass.
# Larger weights are computed again there, which takes a fifth of its products.
_KEPT_WEIGHTS = 2**27
_ROWS_AT_ONCE = 256  # rows of the weights that fit into the processor's cache
_KINDS = 64  # maximum number of kinds of shapes for which FlexAttention is compiled

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class HeadProducts(NamedTuple):
    """Packed products of rows with the scaled keys `K` and the values `V` of a trunk in one head."""

    scores: Product  # rows K'
    outputs: Product  # weights V
    of_weights: Product  # gradient V'
    of_rows: Product  # gradient K


@dataclass
class Trunk:
    """Keys and values of a trunk in one layer.

    Attributes:
        key: `[1, key heads, T, width]`.
        value: `[1, key heads, T, width]`.
        products: On a CPU the packed products of each head, shared by all turns. Empty until the first turn.
    """

    key: torch.Tensor
    value: torch.Tensor
    products: list[HeadProducts] = field(default_factory=list)


@dataclass
class TrunkStates:
    """Keys and values of a trunk of T tokens by layer, `[1, key heads, T, width]` each.

    The trunk is computed once and its branches in turns. Each turn has its own backward pass, which adds its
    gradient to detached copies of the keys and values. The backward pass of the trunk starts from these
    gradients. Only the trunk and one turn are in memory, and the gradient is that of the whole tree.

    Attributes:
        computed: Layer -> keys and values with the graph of the trunk.
        detached: Layer -> detached copies, which the turns attend to.
    """

    computed: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    detached: dict[int, Trunk] = field(default_factory=dict)

    def keep(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store the keys and values of a layer."""
        if layer in self.computed:  # gradient checkpointing computes a layer twice
            return
        self.computed[layer] = (key, value)
        wanted = key.requires_grad
        self.detached[layer] = Trunk(
            key.detach().requires_grad_(wanted), value.detach().requires_grad_(wanted)
        )

    def __len__(self) -> int:
        return self.detached[0].key.shape[2] if self.detached else 0

    def backward(self) -> None:
        """Run the backward pass of the trunk from the gradients of the turns."""
        computed = [each for layer in self.detached for each in self.computed[layer]]
        copies = [each for trunk in self.detached.values() for each in (trunk.key, trunk.value)]
        reached = [index for index, each in enumerate(copies) if each.grad is not None]
        torch.autograd.backward(
            [computed[index] for index in reached], [copies[index].grad for index in reached]
        )


@dataclass
class TreeMask:
    """The attention mask of a forest of N tokens, in the form that one implementation needs.

    Attributes:
        segments: The segments of the forest.
        way: The implementation: `dense`, `segments` or `flex`.
        device: Device of the tokens.
        trunk: A trunk of T tokens that all tokens attend to. None if the forest holds its own trunks.
        kept: Receives the keys and values of the forest, if the forest is itself a trunk. Else None.
        asked: int64 `[W]`, ascending: the tokens whose last hidden states are needed. None means all tokens.
    """

    segments: Sequence[Segment]
    way: Way
    device: torch.device | str = "cpu"
    trunk: TrunkStates | None = field(default=None, repr=False)
    kept: TrunkStates | None = field(default=None, repr=False)
    asked: torch.Tensor | None = field(default=None, repr=False)

    @functools.cached_property
    def of_all(self) -> Seen:
        """The mask of all tokens."""
        return self._seen_by(None)

    @functools.cached_property
    def of_asked(self) -> Seen:
        """The mask of the tokens in `asked` only, W rows."""
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
    """Return the implementation for a device: `flex` on a GPU, else `segments`."""
    return "flex" if device.type == "cuda" else "segments"


def dense_mask(segments: Sequence[Segment], before: int = 0) -> torch.Tensor:
    """Return the mask, bool `[N, before + N]`. The other implementations are tested against it.

    Args:
        segments: The segments of a forest of N tokens.
        before: Number of tokens of a trunk that all tokens attend to. Defaults to 0.
    """
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
    """Return the block mask of FlexAttention. It skips blocks in which no token attends to another.

    Args:
        segments: The segments of the forest.
        device: Device of the tokens.
        before: Number of tokens of a trunk that all tokens attend to. Defaults to 0.
        asked: int64 `[W]`: the tokens that have a row. None means all tokens.
    """
    count = before + segments[-1].end
    ends = torch.tensor([count, *(before + segment.stop for segment in segments)])
    sizes = torch.tensor([before, *(segment.end - segment.start for segment in segments)])
    stops = ends.repeat_interleave(sizes).to(device)
    # The mask function reads tensors only, so one compiled kernel serves forests of all shapes.
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
    """Return the attention output of one row of tokens.

    Args:
        query: `[1, heads, N, width]`, or `[1, heads, W, width]` with `only_asked`.
        key: `[1, key heads, N, width]`. The number of heads is a multiple of the number of key heads.
        value: `[1, key heads, N, width]`.
        mask: The mask of the forest.
        scale: Factor of the scores.
        trunk: Keys and values of the mask's trunk in this layer. None if the mask has no trunk.
        only_asked: Whether the queries are the W tokens in `mask.asked`. Defaults to false.

    Returns:
        A tensor with the shape of `query`.
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
        # With one memory layout, one kernel is compiled.
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
    """A run of queries that attends to a run of keys.

    Attributes:
        rows: Indices of the queries.
        keys: Indices of the keys.
        causal: Whether query i attends to keys 0 to i of the run. If false, each query attends to all keys.
        is_first: Whether this is the first part of these queries.
        of_trunk: Whether the keys are those of the trunk.
    """

    rows: slice
    keys: slice
    causal: bool
    is_first: bool
    of_trunk: bool = False


class _SegmentAttention(torch.autograd.Function):
    """Attention by parts. Each part is one call of the CPU's flash attention on a run of tokens.

    A segment attends causally to itself. Its descendants attend to it without a mask. The parts of a token
    are merged by their log-sum-exp. In the backward pass each part receives the merged output and the merged
    log-sum-exp instead of its own, and returns its share of the exact gradient. This holds because a softmax
    weight is `exp(score - log-sum-exp)`, and its gradient needs only the output of the row in addition.
    Small weights to a trunk are stored for the backward pass and not computed again.
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
        """Return the attention output.

        Args:
            products: Packed products of the trunk, filled at the first use. None without a trunk.
            *states: Keys and values of the tokens, then keys and values of the trunk if there is one.
        """
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
    """Return whether the weights of all queries to all keys are small enough to be stored."""
    rows = query.shape[1] * query.shape[2]
    is_known = query.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return is_known and rows * key.shape[2] * query.itemsize <= _KEPT_WEIGHTS


def _pack(products: list[HeadProducts], key: torch.Tensor, value: torch.Tensor, scale: float) -> None:
    """Fill `products` for keys and values `[1, heads, T, width]`, if it is empty."""
    if products:
        return
    for head in range(key.shape[1]):
        keys, values = (key[0, head] * scale).contiguous(), value[0, head].contiguous()
        weights = (keys, values.T.contiguous(), values, keys.T.contiguous())
        products.append(HeadProducts(*map(packed_product, weights)))


def _attend_keeping(
    query: torch.Tensor, products: list[HeadProducts], keys: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute attention without a mask and store the weights.

    Returns:
        The output, the log-sum-exp, and the weights `[heads, N, keys]`.
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
            # The largest weight is 1 / sum(exp(scores - largest score)), which gives the log-sum-exp.
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
    """Return the gradients of query, key and value.

    Args:
        output: The merged output of all parts.
        logarithm: The merged log-sum-exp of all parts.
        own_logarithm: The log-sum-exp of this part.
        weights: The stored weights of this part, `[heads, N, keys]`.
    """
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
    """Return the keys and values of a part: those of the trunk or those of the tokens."""
    return states[2:] if part.of_trunk else states[:2]


def _parts(segments: Sequence[Segment], asked: Sequence[int], has_trunk: bool) -> Iterator[Part]:
    """Yield the parts of the tokens in `asked`, which is in ascending order.

    `Part.rows` are indices into `asked`.
    """
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
    """Yield start and end (exclusive) of each run of consecutive tokens in `asked[start:end]`."""
    breaks = [place for place in range(start + 1, end) if asked[place] != asked[place - 1] + 1]
    if end > start:
        yield from itertools.pairwise([start, *breaks, end])


def _merge(
    output: torch.Tensor, logarithm: torch.Tensor, part: torch.Tensor, part_logarithm: torch.Tensor
) -> None:
    """Merge a further part into the output and the log-sum-exp, in place."""
    weight = torch.sigmoid(part_logarithm - logarithm)
    output.lerp_(part, weight.unsqueeze(-1))
    torch.logaddexp(logarithm, part_logarithm, out=logarithm)


@functools.cache
def _compiled_flex_attention() -> Any:
    """Return FlexAttention, compiled once for each kind of shape.

    Kinds differ in gradients, in equal numbers of queries and keys, and in whether there is one block only.
    Beyond `recompile_limit` kinds torch would continue without a kernel and hold all weights in memory. With
    `fullgraph` it raises instead.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _KINDS)
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)


def use_tree_attention(language_model: torch.nn.Module) -> None:
    """Replace the attention of a language model. A call then needs the argument `tree`, a :class:`TreeMask`.

    The last layer and everything after it compute only the tokens in `tree.asked`. Of the other tokens, such
    as those of a video, the last layer needs only keys and values.
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
    """Return the attention output of all tokens `[1, N, H]`, or of the asked tokens `[1, W, H]`.

    The function fits all three families.
    """

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
    trunk = None if tree.trunk is None else tree.trunk.detached[attention.layer_idx]
    found = attend(query, key, value, tree, attention.scaling, trunk, only_asked=only_asked)
    return attention.o_proj(found.transpose(1, 2).flatten(2)), None


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary positions `[1, N, width]` to states `[1, heads, N, width]`."""
    found = _Rotation.apply(states, cos, sin)
    assert isinstance(found, torch.Tensor)
    return found


class _Rotation(torch.autograd.Function):
    """Rotary positions without an extra tensor for the rotated halves."""

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
    """Compute a decoder layer of any of the three families, from `[1, N, H]` to `[1, W, H]`."""
    normed = layer.input_layernorm(hidden_states)
    attended, _ = layer.self_attn(hidden_states=normed, tree=tree, only_asked=True, **others)
    if tree.asked is not None:
        hidden_states = hidden_states[:, tree.asked]
    hidden_states = hidden_states + attended
    return hidden_states + layer.mlp(layer.post_attention_layernorm(hidden_states))
