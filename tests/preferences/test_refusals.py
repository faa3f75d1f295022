"""Refusals of a provider by subcategory."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.contracts.outcomes import OUTCOME_SCHEMA, Outcome, StageRows
from safevid_core.contracts.tables import LOSSY_PAIRS, PAIRS
from safevid_core.models.refusals import FEW_REFUSALS, refusal_info, refused_shares
from safevid_core.settings import LOSSES, load_settings
from safevid_core.storage.lake import Lake
from tests.stages import planner_of


def outcomes(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=OUTCOME_SCHEMA, orient="row")


def test_a_subcategory_of_which_more_than_a_fifth_is_refused_is_reported() -> None:
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


def test_each_loss_is_counted_by_itself_over_all_its_partitions(tmp_path: Path) -> None:
    lake, settings = Lake(tmp_path, "pocket"), load_settings("pocket", overrides={"root": str(tmp_path)})
    for loss, refused in zip(LOSSES[:2], (2, 1), strict=True):
        for scene in ("kitchen", "street"):
            ids = [f"{loss}-{scene}-{place}" for place in range(5)]
            walk_outcomes: list[tuple[str, Outcome, str]] = [
                (each, "undecidable" if place < refused else "ok", "provider_refusal")
                for place, each in enumerate(ids)
            ]
            info = refusal_info(walk_outcomes, dict.fromkeys(ids, "some"))
            stage = StageRows(LOSSY_PAIRS.frame([]), walk_outcomes, info)
            lake.commit(LOSSY_PAIRS, f"{loss}|{scene}", stage, "made for a test", {})
    planner = planner_of(settings, lake)
    found = FEW_REFUSALS.run(planner.tools, planner.registry[LOSSY_PAIRS.name], [])
    assert found.problems == (f"{LOSSES[0]}, some: 4 of 10 refused; ask another model, or name a `second`",)
    assert found.figures == {"refused": 6}
    assert FEW_REFUSALS.run(planner.tools, planner.registry[PAIRS.name], []).passed


def test_nothing_asked_is_nothing_refused() -> None:
    assert refused_shares(outcomes(), {}).is_empty()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40), st.floats(0, 1))
def test_every_input_counts_once(cells: list[tuple[str, bool]], most: float) -> None:
    rows = [(str(i), "undecidable", "provider_refusal" if no else "other") for i, (_, no) in enumerate(cells)]
    shares = refused_shares(outcomes(*rows), {str(i): name for i, (name, _) in enumerate(cells)}, most)
    assert shares["asked"].sum() == len(cells)
    assert shares["refused"].sum() == sum(no for _, no in cells)
    assert shares.filter(pl.col("too_many") != (pl.col("share") > most)).is_empty()
