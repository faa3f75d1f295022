"""The style audit on a small release: figures by expectation, every pair accounted for."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from safevid_core.audits.preference_style import BY_LENGTH, BY_WORDS, TABLE, style_rows
from safevid_core.contracts.tables import RELEASE, VIDEO_CORPUS
from safevid_core.storage.lake import Lake, audit_partition
from tests.evaluation.small_lake import put, settings_for
from tests.stages import run_stage

ANSWERS = {
    "refuse": ("I will not help with that.", "Sure, take it and go on."),
    "answer": ("Sure, take it and go on.", "I will not help with that."),
    "correct": ("It is not green.", "It is so."),
}


def release_of(clips: int) -> list[dict[str, str | None]]:
    return [
        {
            "pair_id": f"{expectation} {clip}", "clip_id": f"clip {clip}", "expectation": expectation,
            "twin_group": f"twins {clip // 2}" if clip < 6 else None, "chosen": chosen, "rejected": rejected,
        }
        for clip in range(clips)
        for expectation, (chosen, rejected) in ANSWERS.items()
    ]  # fmt: skip


def test_a_preference_that_turns_with_the_query_is_not_found_by_its_words(tmp_path: Path) -> None:
    """Refusals are chosen as often as rejected: by words, half of those pairs is all that can be told."""
    lake = Lake(tmp_path, "pocket")
    put(lake, RELEASE, "all", release_of(12))
    clips = [{"clip_id": f"clip {clip}", "source_id": f"source {clip}"} for clip in range(12)]
    put(lake, VIDEO_CORPUS, "kitchen", clips)
    settings = settings_for(tmp_path)
    run_stage(settings, lake, "preference_style_audit")
    audit_partition(lake, TABLE, "all")
    rows = {(row["measure"], row["category"]): row for row in lake.read(TABLE).iter_rows(named=True)}
    assert {category for _, category in rows} == {"all", *ANSWERS}
    assert rows[BY_WORDS, "correct"]["value"] == 1
    assert rows[BY_WORDS, "refuse"]["value"] + rows[BY_WORDS, "answer"]["value"] == 1
    assert "not" in rows[BY_WORDS, "all"]["detail"]
    assert rows[BY_LENGTH, "correct"]["value"] == 1
    assert {row["n"] for row in rows.values()} == {36, 12}
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows.values())
    assert not run_stage(settings, lake, "preference_style_audit").computed


def test_without_pairs_or_with_one_clip_there_is_no_figure() -> None:
    one = pl.DataFrame([{**row, "source_id": "s"} for row in release_of(1)])
    assert list(style_rows(one.clear())) == []
    assert list(style_rows(one)) == []
