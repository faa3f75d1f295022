"""People check descriptions: what they are handed, what comes back, what it says, and what waits for it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from safevid_core.audits.description_review import FILLED, SHOWN, review_folder
from safevid_core.audits.description_sample import CLAIM, RECONCILED, TEXT, draw_sample, shares_of
from safevid_core.audits.fidelity import rank_correlation
from safevid_core.contracts.tables import (
    DESCRIPTION_FIDELITY_AUDIT,
    DESCRIPTIONS,
    PAIRS,
    RELEASE,
    TAXONOMY_QUERIES,
)
from safevid_core.descriptions.audit_gate import AuditNeeded, require_audit
from safevid_core.review.errors import ReviewError
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import WHOLE, Lake, audit_partition
from tests.evaluation.benchmarks.test_review import Page
from tests.evaluation.small_lake import build_lake, put
from tests.stages import run_stage

WHO = {"reviewer": "Ada", "date": "2026-11-24"}
DESCRIBERS = ("llava_next_video", "qwen2_5_vl")
Say = Callable[[dict[str, str]], dict[str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("review") / "safevid"
    build_lake(root, ["kitchen", "street", "forest"], wrong=0.4)
    return root


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Lake:
    return Lake(shutil.copytree(made, tmp_path / "safevid"), "pocket")


@pytest.fixture
def settings(lake: Lake) -> Settings:
    return settings_of(lake)


def settings_of(lake: Lake, **audit: Any) -> Settings:
    describers = {"internvl2_5": None}
    settings = load_settings(
        "pocket",
        overrides={
            "root": str(lake.root),
            "descriptions": {"audit": {"required": True, "sample": 10, "max_hallucination": 0.35, **audit}},
        },
    )
    kept = {name: model for name, model in settings.descriptions.describers.items() if name not in describers}
    descriptions = settings.descriptions.model_copy(update={"describers": kept})
    return settings.model_copy(update={"descriptions": descriptions})


def audited(settings: Settings, lake: Lake) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """What the audit tells of itself, and its figures."""
    report = run_stage(settings, lake, "description_fidelity_audit")
    audit_partition(lake, DESCRIPTION_FIDELITY_AUDIT, WHOLE)
    rows = lake.read(DESCRIPTION_FIDELITY_AUDIT).to_dicts()
    return report.manifest.info, {(row["measure"], row["category"]): row for row in rows}


def fill(sheet: str | Path, say: Say) -> None:
    """Fill the sheet in as a spreadsheet would save it."""
    path = Path(sheet)
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*SHOWN, *FILLED])
    writer.writeheader()
    writer.writerows({**row, **say(row)} for row in rows)
    path.write_text(buffer.getvalue(), "utf-8")


def all_is_well(row: dict[str, str]) -> dict[str, str]:
    return {"true": "yes", **WHO} if row["kind"] == CLAIM else {"complete": "yes", "consistent": "Yes", **WHO}


def what_llava_says_of_colours_is_made_up(row: dict[str, str]) -> dict[str, str]:
    if row["kind"] == TEXT:
        left_out = row["said_by"] == "qwen2_5_vl"
        return {"complete": "no" if left_out else "yes", "consistent": "unclear", **WHO}
    made_up = row["text"].startswith("colour") and "llava_next_video" in row["said_by"]
    return {"true": "no" if made_up else "yes", **WHO}


def sign(settings: Settings, audit: str) -> None:
    line = f"- {{audit: {audit}, name: Ada Example, date: 2026-11-25}}\n"
    (review_folder(settings) / "sign_off.yaml").write_text(line)


def test_the_sheet_asks_claims_and_texts_and_the_page_shows_frames(settings: Settings, lake: Lake) -> None:
    info, figures = audited(settings, lake)
    rows = list(csv.DictReader(io.StringIO(Path(info["sheet"]).read_text("utf-8-sig"))))
    assert info["open_rows"] == len(rows) > 10 * 4
    assert all(row[name] == "" for row in rows for name in FILLED)
    clips = {row["clip_id"] for row in rows}
    assert len(clips) == info["sampled_clips"] == 10
    texts = Counter(row["said_by"] for row in rows if row["kind"] == TEXT)
    assert texts == {RECONCILED: 10, **dict.fromkeys(DESCRIBERS, 10)}
    assert {row["said_by"] for row in rows if row["kind"] == CLAIM} <= {
        "reconciled, llava_next_video, qwen2_5_vl", "reconciled, qwen2_5_vl", "reconciled, llava_next_video",
    }  # fmt: skip
    page = Page(Path(info["sheet"]).with_suffix(".html").read_text())
    assert len(page.sources) == 10
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert "script" not in page.tags
    assert all(row["row_id"] in page.open and row["text"] in page.open for row in rows)
    assert figures["hallucination rate", RECONCILED]["n"] == 0
    assert figures["asserted by all describers", "all"]["value"] is not None
    assert not run_stage(settings, lake, "description_fidelity_audit").computed


def test_what_people_say_becomes_rates_by_describer_with_intervals(settings: Settings, lake: Lake) -> None:
    info, _ = audited(settings, lake)
    fill(info["sheet"], what_llava_says_of_colours_is_made_up)
    info, figures = audited(settings, lake)
    assert (info["open_rows"], info["problems"]) == (0, [])
    rows = list(csv.DictReader(io.StringIO(Path(info["sheet"]).read_text())))
    for speaker in (RECONCILED, *DESCRIBERS):
        mine = [row for row in rows if row["kind"] == CLAIM and speaker in row["said_by"].split(", ")]
        rate = figures["hallucination rate", speaker]
        assert rate["n"] == len(mine)
        assert rate["value"] == pytest.approx(sum(row["true"] == "no" for row in mine) / len(mine))
        assert rate["ci_low"] < rate["value"] < rate["ci_high"]
    omitted = {speaker: figures["safety-relevant detail omitted", speaker] for speaker in DESCRIBERS}
    assert (omitted["qwen2_5_vl"]["value"], omitted["llava_next_video"]["value"]) == (1.0, 0.0)
    assert omitted["llava_next_video"]["ci_high"] > 0.1
    consistent = figures["consistent", RECONCILED]
    assert (consistent["n"], consistent["detail"]) == (0, "10 more are unclear")
    by_one = figures["claims that are true", "asserted by 1 describers"]
    by_two = figures["claims that are true", "asserted by 2 describers"]
    assert by_one["value"] > by_two["value"]


def test_only_a_whole_signed_audit_below_the_threshold_opens_the_gate(settings: Settings, lake: Lake) -> None:
    scenes = ["kitchen", "street", "forest"]
    with pytest.raises(AuditNeeded, match="materialise description_fidelity_audit"):
        require_audit(settings, lake, scenes)
    info, _ = audited(settings, lake)
    with pytest.raises(AuditNeeded, match=rf"{info['open_rows']} rows of .*no verdict"):
        require_audit(settings, lake, scenes)
    fill(info["sheet"], lambda row: {**all_is_well(row), "true": "no" if row["kind"] == CLAIM else ""})
    info, _ = audited(settings, lake)
    sign(settings, info["audit"])
    info, _ = audited(settings, lake)
    assert info["signed_by"] == "Ada Example on 2026-11-25"
    with pytest.raises(AuditNeeded, match=r"hallucination rate may be up to .*more than 35%"):
        require_audit(settings, lake, scenes)
    fill(info["sheet"], all_is_well)
    info, _ = audited(settings, lake)
    with pytest.raises(AuditNeeded, match=f"nobody has signed audit {info['audit']}"):
        require_audit(settings, lake, scenes)
    sign(settings, info["audit"])
    info, _ = audited(settings, lake)
    assert info["passed"]
    require_audit(settings, lake, scenes)

    rows = lake.read(DESCRIPTIONS, "kitchen").drop("profile")
    changed = rows.with_columns(claims=pl.lit(json.dumps([{"text": "other", "asserted_by": ["qwen2_5_vl"]}])))
    put(lake, DESCRIPTIONS, "kitchen", changed.to_dicts())
    with pytest.raises(AuditNeeded, match="changed since they were audited"):
        require_audit(settings, lake, scenes)


def test_a_pilot_and_a_setting_need_no_audit_and_a_pilot_is_not_passed_scene_by_scene(
    settings: Settings, lake: Lake
) -> None:
    require_audit(settings_of(lake, required=False), lake, ["kitchen", "street", "forest"])
    models = settings.models.model_copy(update={"pilot_fraction": 0.4})
    pilot = settings.model_copy(update={"models": models})
    require_audit(pilot, lake, ["kitchen"])
    put(lake, TAXONOMY_QUERIES, "kitchen", [])
    require_audit(pilot, lake, ["kitchen"])
    with pytest.raises(AuditNeeded, match="beyond a pilot"):
        require_audit(pilot, lake, ["street"])


def test_the_card_says_who_checked_or_that_nobody_did(settings: Settings, lake: Lake) -> None:
    for scene in lake.partitions(PAIRS.name):
        pairs = lake.read(PAIRS, scene).drop("profile")
        named = pairs.with_columns(chosen_model=pl.lit("a@1"), rejected_model=pl.lit("b@1"))
        put(lake, PAIRS, scene, named.to_dicts())

    def card(settings: Settings) -> str:
        run_stage(settings, lake, "safevid_350k_release")
        info = lake.manifest(RELEASE.name).info  # type: ignore[union-attr]
        return (lake.root / info["path"] / "README.md").read_text()

    waived = card(settings_of(lake, required=False))
    assert "not passed a signed audit by people, which the settings do not require" in waived
    info, _ = audited(settings, lake)
    fill(info["sheet"], all_is_well)
    info, _ = audited(settings, lake)
    sign(settings, info["audit"])
    info, _ = audited(settings, lake)
    checked = card(settings)
    assert "People checked the descriptions of 10 clips" in checked
    assert "0.0% are made up (95% interval 0.0% to " in checked
    assert f"Audit {info['audit']}, signed by Ada Example on 2026-11-25" in checked


def test_a_new_sample_keeps_what_was_said_of_what_has_not_changed(settings: Settings, lake: Lake) -> None:
    info, _ = audited(settings, lake)
    first = info["sheet"]
    fill(first, all_is_well)
    rows = lake.read(DESCRIPTIONS, "kitchen").drop("profile")
    put(lake, DESCRIPTIONS, "kitchen", rows.with_columns(text=pl.lit("A thing.")).to_dicts())
    info, _ = audited(settings, lake)
    assert info["sheet"] != first
    sampled = draw_sample(settings, lake)
    fresh = [row for row in sampled.rows if row.text == "A thing."]
    assert 0 < info["open_rows"] == len(fresh) < len(sampled.rows)
    assert info["reviewed_rows"] == len(sampled.rows) - len(fresh)


def test_bad_rows_are_each_reported_in_one_line_and_the_good_ones_count(
    settings: Settings, lake: Lake
) -> None:
    info, _ = audited(settings, lake)
    seen: Counter[str] = Counter()

    def say(row: dict[str, str]) -> dict[str, str]:
        seen[row["kind"]] += 1
        wrong: dict[tuple[str, int], dict[str, str]] = {
            (CLAIM, 1): {"true": "maybe", **WHO},
            (CLAIM, 2): {"true": "yes", "complete": "yes", **WHO},
            (CLAIM, 3): {"true": "yes"},
            (TEXT, 1): {"complete": "yes", **WHO},
            (TEXT, 2): {"complete": "yes", "consistent": "yes", **WHO, "note": "\x07"},
            (CLAIM, 4): {"row_id": "nobody", "true": "yes", **WHO},
        }
        return wrong.get((row["kind"], seen[row["kind"]]), all_is_well(row))

    fill(info["sheet"], say)
    info, figures = audited(settings, lake)
    problem_lines = "\n".join(info["problems"])
    assert len(info["problems"]) == 6
    for says in (
        "true is 'maybe'; say yes, no, unclear", "complete is filled in for a claim",
        "without reviewer and date", "consistent is ''", "control character", "no row of this sample",
    ):  # fmt: skip
        assert says in problem_lines
    assert info["open_rows"] == 6
    assert figures["hallucination rate", RECONCILED]["n"] == seen[CLAIM] - 4
    assert not info["passed"]

    Path(info["sheet"]).write_bytes(b"PK\x00")
    with pytest.raises(ReviewError, match="is no CSV"):
        run_stage(settings, lake, "description_fidelity_audit")


def test_the_sample_is_seeded_and_follows_the_scenes(settings: Settings, lake: Lake) -> None:
    sample = draw_sample(settings, lake)
    assert sample.name == draw_sample(settings, lake).name
    assert sample.name != draw_sample(settings.model_copy(update={"seed": 1}), lake).name
    assert sorted(Counter(clip.scene for clip in sample.clips).values()) == [3, 3, 4]
    few = {clip.clip_id for clip in draw_sample(settings_of(lake, sample=6), lake).clips}
    assert few < {clip.clip_id for clip in sample.clips}


@given(st.dictionaries(st.text(), st.integers(0, 50)), st.integers(0, 200))
def test_shares_add_up_and_are_within_one_of_proportion(counts: dict[str, int], size: int) -> None:
    total = sum(counts.values())
    size = min(size, total)
    quota = shares_of(counts, size)
    assert sum(quota.values()) == size
    assert all(abs(quota[name] - size * counts[name] / total) < 1 for name in quota)
    assert all(quota[name] <= counts[name] for name in quota)


def test_rank_correlation_is_scipys_and_unknown_where_nothing_varies() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, 60).astype(float)
    second = first + rng.normal(0, 2, 60)
    found = rank_correlation(first, second)
    assert found.value == pytest.approx(spearmanr(first, second).statistic)
    assert found.value is not None
    assert 0 < (found.ci_low or 0) < found.value < (found.ci_high or 1) < 1
    assert rank_correlation(first, np.ones(60)).value is None
