"""A data scale must be a fair and nested share, whatever the strata look like."""

from __future__ import annotations

import itertools
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.alignment.data_scale import nested_sample

SCALES = (0.01, 0.1, 0.2, 0.5, 1.0)
strata = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", None])), min_size=1, max_size=300
)


def frame(rows: list[tuple[str, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(f"pair-{index}", *row) for index, row in enumerate(rows)],
        schema={"pair_id": pl.String, "scene": pl.String, "subcategory": pl.String},
        orient="row",
    )


@given(strata)
def test_every_scale_holds_the_smaller_ones_and_its_exact_share(rows: list[tuple[str, str | None]]) -> None:
    pairs = frame(rows)
    samples = [set(nested_sample(pairs, scale)["pair_id"]) for scale in SCALES]
    assert [len(sample) for sample in samples] == [max(1, round(scale * len(rows))) for scale in SCALES]
    assert all(small <= large for small, large in itertools.pairwise(samples))


@given(strata, st.sampled_from(SCALES))
def test_strata_are_cut_at_one_common_share(rows: list[tuple[str, str | None]], scale: float) -> None:
    """Some share fits all strata: each holds that share of its pairs, give or take less than one."""
    pairs = frame(rows)
    whole = Counter(rows)
    taken = Counter(nested_sample(pairs, scale).select("scene", "subcategory").iter_rows())
    lowest = max((taken[stratum] - 1) / count for stratum, count in whole.items())
    highest = min((taken[stratum] + 1) / count for stratum, count in whole.items())
    assert lowest < highest


@given(strata)
def test_the_sample_depends_on_ids_and_not_on_row_order(rows: list[tuple[str, str | None]]) -> None:
    pairs = frame(rows)
    shuffled = pairs.sample(fraction=1.0, shuffle=True, seed=3)
    assert set(nested_sample(pairs, 0.2)["pair_id"]) == set(nested_sample(shuffled, 0.2)["pair_id"])


@pytest.mark.parametrize("scale", [0.0, -0.1, 1.5])
def test_a_scale_that_is_no_share_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="data scale"):
        nested_sample(frame([("a", "x")]), scale)
