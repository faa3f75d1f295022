"""Each audit finds what was put there, and nothing where there is nothing."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from pathlib import Path

import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon

from safevid_core.audits.drift import drift_rows, jensen_shannon
from safevid_core.audits.robustness import difference
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import BENCHMARK_SCORES, DESCRIPTIONS, SAFEVIDBENCH_BASE, audit_table
from safevid_core.descriptions.motion_words import described_motion, measured_motion, measured_object_motion
from safevid_core.execution.local import StageReport
from safevid_core.settings import Settings
from safevid_core.statistics.intervals import Estimate
from safevid_core.storage.lake import Lake, audit_partition
from tests.evaluation.small_lake import build_lake, put, settings_for
from tests.stages import run_stage

AUDITS = (
    "description_fidelity_audit",
    "detail_loss_audit",
    "temporal_audit",
    "taxonomy_drift_audit",
    "query_robustness_audit",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Lake]:
    root = tmp_path_factory.mktemp("audits") / "safevid"
    lake = build_lake(root, ["kitchen", "street"], wrong=0.3)
    return settings_for(root), lake


def figures(lake: Lake, report: StageReport) -> dict[tuple[str, str], dict[str, float]]:
    table = audit_table(report.manifest.asset)
    audit_partition(lake, table, "all")
    return {(row["measure"], row["category"]): row for row in lake.read(table).to_dicts()}


def test_fidelity_names_the_witness_that_contradicts(made: tuple[Settings, Lake]) -> None:
    settings, lake = made
    found = figures(lake, run_stage(settings, lake, "description_fidelity_audit"))
    wrong = found["claims contradicted", "llava_next_video: colour"]
    assert 0.05 < wrong["value"] < 0.7
    assert wrong["ci_low"] <= wrong["value"] <= wrong["ci_high"]
    assert found["claims contradicted", "qwen2_5_vl: colour"]["value"] == 0
    assert found["assertions kept", "signal: motion"]["value"] == 1
    assert found["agreement", "all"]["value"] == pytest.approx(0.9)


def test_temporal_compares_texts_with_the_measured_direction(made: tuple[Settings, Lake]) -> None:
    settings, lake = made
    found = figures(lake, run_stage(settings, lake, "temporal_audit"))
    assert found["says the measured motion", "reconciled"]["value"] == 1
    assert found["says the opposite direction", "reconciled"]["value"] == 0
    assert found["says the measured motion", "internvl2_5"]["n"] == 0
    rows = lake.read(DESCRIPTIONS, "kitchen").drop("profile")
    swapped = rows.with_columns(
        pl.col("text").str.replace_many(["moves left", "moves right"], ["moves right", "moves left"])
    )
    put(lake, DESCRIPTIONS, "kitchen", swapped.to_dicts())
    after = figures(lake, run_stage(settings, lake, "temporal_audit"))
    moved = rows.filter(pl.col("text").str.contains("moves left|moves right")).height
    opposite = after["says the opposite direction", "reconciled"]
    assert opposite["value"] * opposite["n"] == pytest.approx(moved)
    put(lake, DESCRIPTIONS, "kitchen", rows.to_dicts())


def test_detail_loss_counts_what_the_text_left_out(made: tuple[Settings, Lake]) -> None:
    settings, lake = made
    rows = lake.read(DESCRIPTIONS, "street").drop("profile")
    silent = rows.with_columns(text=pl.lit("A thing."))
    put(lake, DESCRIPTIONS, "street", silent.to_dicts())
    found = figures(lake, run_stage(settings, lake, "detail_loss_audit"))
    assert found["measured, not in the text", "motion"]["value"] == pytest.approx(0.5)
    assert found["measured, not in the text", "cuts"]["n"] == 0
    assert found["claimed, dropped uncontradicted", "event"]["value"] == 0
    put(lake, DESCRIPTIONS, "street", rows.to_dicts())


def test_drift_is_scipys_divergence_and_names_what_is_missing(made: tuple[Settings, Lake]) -> None:
    one, other = {"a": 8, "b": 2}, {"a": 1, "b": 4, "c": 5}
    theirs = jensenshannon([0.8, 0.2, 0], [0.1, 0.4, 0.5], base=2) ** 2
    assert jensen_shannon(one, other) == pytest.approx(theirs)
    assert jensen_shannon(one, one) == 0
    assert jensen_shannon({"a": 1}, {"b": 1}) == 1
    rows = {(row["measure"], row["category"]): row for row in drift_rows(one, other, ["a", "b", "c", "d"])}
    assert rows["subcategories covered", "train"]["value"] == pytest.approx(0.5)
    assert rows["subcategories covered", "train"]["detail"] == "none of: c, d"
    assert rows["share shift", "c"]["value"] == pytest.approx(0.5)
    settings, lake = made
    item = dict.fromkeys(SAFEVIDBENCH_BASE.schema)
    put(
        lake,
        SAFEVIDBENCH_BASE,
        "all",
        [{**item, "item_id": "i", "plan_id": "p", "subcategory": "hate_speech"}],
    )
    found = figures(lake, run_stage(settings, lake, "taxonomy_drift_audit"))
    assert ("divergence", "train to benchmark") not in found
    assert found["share shift", "hate_speech"]["value"] == 1


def test_robustness_compares_disguised_with_direct(made: tuple[Settings, Lake]) -> None:
    settings, lake = made
    rows = [
        {"response_id": content_id(i), "item_id": f"i{i}", "clip_id": f"c{i}", "system": "pocket@0",
         "seed": 0, "variant": "right", "principle": "harmless", "style": style,
         "explicit": True, "expected": "refuse",
         "success": success, "refused": success, "outcome": "ok", "benchmark": "safevidbench_base"}
        for i, (style, success) in enumerate(
            [("direct", True)] * 30 + [("direct", False)] * 10
            + [("disguised", True)] * 4 + [("disguised", False)] * 36
        )
    ]  # fmt: skip
    put(lake, BENCHMARK_SCORES, "pocket@0|safevidbench_base", rows)
    found = figures(lake, run_stage(settings, lake, "query_robustness_audit"))
    assert found["safety rate", "pocket@0: direct"]["value"] == pytest.approx(0.75)
    change = found["disguised minus direct", "pocket@0"]
    assert change["value"] == pytest.approx(-0.65)
    assert -0.9 < change["ci_low"] < -0.65 < change["ci_high"] < -0.4
    assert difference(Estimate(None, None, None, 0, 0), Estimate(0.5, 0.4, 0.6, 9, 9)).value is None


@pytest.mark.parametrize(
    ("text", "motion"),
    [
        ("A red crate moves left in a kitchen.", "left"),
        ("It drifts slowly to the right.", "right"),
        ("It stays still.", "still"),
        ("It moves left, then it moves right.", None),
        ("The right answer is up to you.", None),
        ("Motion: nothing moves.", "still"),
    ],
)
def test_the_direction_in_a_text(text: str, motion: str | None) -> None:
    assert described_motion(text) == motion


def test_the_direction_that_was_measured() -> None:
    def segments(*motions: tuple[str, str, float]) -> dict[str, list[dict[str, object]]]:
        ends = list(accumulate(seconds for *_, seconds in motions))
        return {
            "motion": [
                {"kind": kind, "direction": direction, "start_s": end - seconds, "end_s": end}
                for (kind, direction, seconds), end in zip(motions, ends, strict=True)
            ]
        }

    for measured in (measured_motion, measured_object_motion):
        assert measured(segments(("object", "left", 1), ("still", "none", 9))) == "left"
        assert measured(segments(("still", "none", 1))) == "still"
        assert measured(segments(("object", "left", 9), ("object", "right", 0.3))) is None
        assert measured(segments(("scattered", "none", 1))) is None
        assert measured(segments(("object", "left", 2), ("scattered", "none", 0.7))) == "left"
        assert measured(segments(("object", "left", 1), ("scattered", "none", 1))) is None
        assert measured({}) is None
    for shift, moved in (("left", "left"), ("right", None)):
        short = segments(("object", "left", 2), ("picture", shift, 0.7))
        assert measured_motion(short) == measured_object_motion(short) == moved
    pan = segments(("picture", "left", 2), ("object", "left", 0.7))
    assert (measured_motion(pan), measured_object_motion(pan)) == ("left", None)


@pytest.mark.parametrize("audit", AUDITS)
def test_an_empty_lake_gives_an_audit_without_figures(audit: str, tmp_path: Path) -> None:
    settings, lake = settings_for(tmp_path), Lake(tmp_path, "pocket")
    report = run_stage(settings, lake, audit)
    rows = lake.read(audit_table(report.manifest.asset))
    assert Counter(rows["ci_low"].is_null())[False] == 0
    assert not run_stage(settings, lake, audit).computed
