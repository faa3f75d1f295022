"""Refusals of a provider by subcategory."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.lake import Lake
from safevid_core.preferences.refusals import refused_pairs, refused_shares
from safevid_core.records import OUTCOME_SCHEMA, StageRows, lossy
from safevid_core.settings import LOSSES


def outcomes(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=OUTCOME_SCHEMA, orient="row")


def test_a_subcategory_of_which_more_than_a_fifth_is_refused_is_told() -> None:
    rows = [
        *[
            (f"a{i}", "undecidable" if i < 2 else "ok", "provider_refusal" if i < 2 else "")
            for i in range(10)
        ],
        *[
            (f"b{i}", "undecidable" if i < 3 else "ok", "chosen answer: provider_refusal" if i < 3 else "")
            for i in range(10)
        ],
        ("c0", "failed", "provider_refusal is a word of this reason"),
        ("c1", "undecidable", "no two witnesses agree"),
        ("gone", "undecidable", "provider_refusal"),
    ]
    known = {name: name[0] for name, _, _ in rows if name != "gone"}
    assert refused_shares(outcomes(*rows), known).rows() == [
        ("b", 10, 3, 0.3, True),
        ("a", 10, 2, 0.2, False),
        ("c", 2, 0, 0.0, False),
    ]


def test_a_lossy_track_counts_its_own_refusals_alone(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    for loss, refused in zip(LOSSES[:2], (2, 1), strict=True):
        track, ids = lossy(loss), [f"{loss}-{i}" for i in range(5)]
        queries = track.queries.frame([{"query_id": each, "subcategory": "some"} for each in ids])
        told = [
            (each, "undecidable" if i < refused else "ok", "provider_refusal") for i, each in enumerate(ids)
        ]
        for table, stage in (
            (track.queries, StageRows(queries, [(each, "ok", "") for each in ids])),
            (track.pairs, StageRows(track.pairs.frame([]), told)),
        ):
            lake.commit(table, track.partition("kitchen"), stage, "made for a test", {})
    assert refused_pairs(lake, lossy(LOSSES[0])).rows() == [("some", 5, 2, 0.4, True)]
    assert refused_pairs(lake, lossy(LOSSES[1])).rows() == [("some", 5, 1, 0.2, False)]
    assert refused_pairs(lake, lossy(LOSSES[2])).is_empty()
    assert refused_pairs(lake).is_empty()


def test_nothing_asked_is_nothing_refused() -> None:
    assert refused_shares(outcomes(), {}).is_empty()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40), st.floats(0, 1))
def test_every_input_counts_once(cells: list[tuple[str, bool]], most: float) -> None:
    rows = [(str(i), "undecidable", "provider_refusal" if no else "other") for i, (_, no) in enumerate(cells)]
    shares = refused_shares(outcomes(*rows), {str(i): name for i, (name, _) in enumerate(cells)}, most)
    assert shares["asked"].sum() == len(cells)
    assert shares["refused"].sum() == sum(no for _, no in cells)
    assert shares.filter(pl.col("too_many") != (pl.col("share") > most)).is_empty()
