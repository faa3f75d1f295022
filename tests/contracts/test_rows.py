"""Row classes name columns that their tables have, and a frame that lacks one is refused once, by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.rows import ROWS, BenchmarkScore, Pair, columns_of, rows_of
from safevid_core.contracts.tables import BENCHMARK_SCORES, PAIRS


@pytest.mark.parametrize("kind", ROWS)
def test_names_and_types_are_those_of_the_table(kind: Any) -> None:
    assert columns_of(kind)
    assert {name: kind.SCHEMA.get(name) for name in columns_of(kind)} == columns_of(kind)


@given(st.lists(st.fixed_dictionaries({"pair_id": st.text(), "start_s": st.floats(allow_nan=False)})))
def test_rows_hold_what_the_frame_holds(given_rows: list[dict[str, Any]]) -> None:
    frame = PAIRS.frame(given_rows)
    found = rows_of(frame, Pair)
    assert [(each.pair_id, each.start_s) for each in found] == list(
        frame.select("pair_id", "start_s").iter_rows()
    )
    assert [dataclasses.asdict(each) for each in found] == frame.select(list(columns_of(Pair))).to_dicts()


def test_a_frame_without_a_column_is_refused_by_its_name() -> None:
    with pytest.raises(SafeVidError, match=r"BenchmarkScore: column 'verdicts' is missing"):
        rows_of(BENCHMARK_SCORES.frame([]).drop("verdicts"), BenchmarkScore)


def test_a_column_of_another_type_is_refused_by_its_name() -> None:
    frame = PAIRS.frame([{"pair_id": "p"}]).with_columns(start_s=pl.lit("0"))
    with pytest.raises(SafeVidError, match=r"Pair: column 'start_s' is String, not Float64"):
        rows_of(frame, Pair)


def test_the_order_of_a_frames_columns_does_not_count() -> None:
    frame = PAIRS.frame([{"pair_id": "p", "prompt": "a", "chosen": "b", "rejected": "c"}])
    (pair,) = rows_of(frame.select(reversed(frame.columns)), Pair)
    assert (pair.pair_id, pair.prompt, pair.chosen, pair.rejected) == ("p", "a", "b", "c")
