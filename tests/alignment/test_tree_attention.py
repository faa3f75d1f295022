"""Attention by segments is attention under the dense mask, for all tokens or those that are asked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention

from safevid_core.alignment import tree_attention
from safevid_core.alignment.tree import Segment, _Row
from safevid_core.alignment.tree_attention import (
    TreeMask,
    Trunk,
    TrunkStates,
    attend,
    block_mask,
    dense_mask,
)

HEADS, KEY_HEADS, WIDTH = 4, 2, 8


@st.composite
def forests(draw: st.DrawFn) -> list[Segment]:
    """Segments of 1 to 5 tokens in depth-first order, each a child of one on the way to the one before."""
    row = _Row()
    way: list[int] = []
    for length in draw(st.lists(st.integers(1, 5), min_size=1, max_size=8)):
        way = way[: draw(st.integers(0, len(way)))]
        way.append(row.append([0] * length, way[-1] if way else None))
    return row.segments()


@pytest.mark.parametrize("kept_weights", [tree_attention._KEPT_WEIGHTS, 0])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(segments=forests(), before=st.integers(0, 6), data=st.data())
def test_segments_equal_the_dense_mask_forward_and_backward(
    monkeypatch: pytest.MonkeyPatch,
    kept_weights: int,
    segments: list[Segment],
    before: int,
    data: st.DataObject,
) -> None:
    monkeypatch.setattr(tree_attention, "_KEPT_WEIGHTS", kept_weights)
    monkeypatch.setattr(tree_attention, "_ROWS_AT_ONCE", 4)
    count = segments[-1].end
    asked = None
    if data.draw(st.booleans()):
        tokens = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
        asked = torch.tensor(sorted(tokens))
    generator = torch.Generator().manual_seed(count)

    def draw(heads: int, tokens: int) -> torch.Tensor:
        return torch.randn(1, heads, tokens, WIDTH, generator=generator, requires_grad=True)

    query, key, value = draw(HEADS, count), draw(KEY_HEADS, count), draw(KEY_HEADS, count)
    trunk = Trunk(draw(KEY_HEADS, before), draw(KEY_HEADS, before)) if before else None
    states = TrunkStates(detached={0: trunk}) if trunk else None
    wanted = torch.randn(1, HEADS, count if asked is None else len(asked), WIDTH, generator=generator)
    leaves = [query, key, value, *((trunk.key, trunk.value) if trunk else ())]

    def figures(way: str) -> list[torch.Tensor]:
        mask = TreeMask(segments, way, trunk=states, asked=asked)  # type: ignore[arg-type]
        rows = query if asked is None else query[:, :, asked]
        found = attend(rows, key, value, mask, 0.3, trunk, only_asked=asked is not None)
        return [found, *torch.autograd.grad((found * wanted).sum(), leaves)]

    for ours, true in zip(figures("segments"), figures("dense"), strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-4, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(segments=forests(), before=st.integers(0, 300), data=st.data())
def test_the_block_mask_is_the_dense_mask(segments: list[Segment], before: int, data: st.DataObject) -> None:
    """Cell by cell, and no block of it is skipped in which one is seen."""
    count = segments[-1].end
    asked = None
    if data.draw(st.booleans()):
        asked = torch.tensor(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    dense = dense_mask(segments, before)
    if asked is not None:
        dense = dense[asked]
    found = block_mask(segments, "cpu", before, asked)
    rows, keys = torch.meshgrid(*map(torch.arange, dense.shape), indexing="ij")
    assert torch.equal(found.mask_mod(0, 0, rows, keys), dense)
    query, key = torch.zeros(1, 1, len(dense), 16), torch.zeros(1, 1, dense.shape[1], 16)
    value = torch.randn(1, 1, dense.shape[1], 16, generator=torch.Generator().manual_seed(count))
    ours = flex_attention(query, key, value, block_mask=found)
    torch.testing.assert_close(ours[0, 0], dense.float() @ value[0, 0] / dense.sum(-1, keepdim=True))
