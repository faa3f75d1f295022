"""A release stays what it is: whatever becomes of the corpus, and never compared with another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from safevid_core.benchmarks.errors import BenchmarkError
from safevid_core.benchmarks.releases import (
    kept_releases,
    read_release,
    refuse_other_release,
    release_of,
    use_release,
)
from safevid_core.benchmarks.safevidbench_base import benchmark_leaks
from safevid_core.contracts.tables import (
    BENCHMARK_RELEASES,
    BENCHMARK_RESPONSES,
    BENCHMARK_SCORES,
    DESCRIPTIONS,
    SAFEVIDBENCH_BASE,
    SAFEVIDBENCH_PLAN,
    SCENE_ASSIGNMENTS,
    VIDEO_CORPUS,
)
from safevid_core.execution.local import StageReport
from safevid_core.measurement.measurement import measure
from safevid_core.models.llm import Gateway
from safevid_core.pipeline import build_registry
from safevid_core.reporting.flow import read_flow
from safevid_core.settings import SettingsError, load_settings
from safevid_core.storage.lake import WHOLE, Lake, LakeError, audit_partition
from safevid_core.taxonomy.taxonomy import load_taxonomy
from tests.evaluation.small_lake import build_lake, draw_base, put, settings_for
from tests.stages import run_stage

BASE = SAFEVIDBENCH_BASE.name
Make = Callable[..., StageReport]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return build_lake(tmp_path / "safevid", ["kitchen", "street"])


@pytest.fixture
def make(lake: Lake) -> Make:
    """Makes the benchmark; an argument is the release that the settings name."""

    def run(release: str | None = None, **evaluation: Any) -> StageReport:
        releases = {} if release is None else {BASE: release}
        settings = settings_for(lake.root, **{"max_items": 24, "releases": releases, **evaluation})
        return draw_base(settings, lake)

    return run


def rewrite(
    lake: Lake, table: Any, scene: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> None:
    """Commit a scene's rows again, each changed, or left out where nothing comes of it."""
    rows = [change(row) for row in lake.read(table, scene).drop("profile").to_dicts()]
    put(lake, table, scene, [row for row in rows if row is not None])


def refresh(lake: Lake) -> None:
    """Another corpus: one scene's clips are gone, the other's are told otherwise."""
    rewrite(lake, DESCRIPTIONS, "street", lambda row: None)
    rewrite(
        lake,
        DESCRIPTIONS,
        "kitchen",
        lambda row: row | {"text": f"{row['text']} So."},
    )


def test_a_refresh_of_the_corpus_leaves_the_release_and_says_what_changed(lake: Lake, make: Make) -> None:
    first = make()
    before, outcomes = lake.read(SAFEVIDBENCH_BASE), lake.outcomes(BASE)
    refresh(lake)
    report = make()
    after = lake.read(SAFEVIDBENCH_BASE)
    assert after.equals(before)
    assert lake.outcomes(BASE).equals(outcomes)
    assert report.manifest.content_hash == first.manifest.content_hash
    assert report.manifest.info["changed_since"] == ["descriptions"]
    assert "descriptions changed since" in report.manifest.info["corpus_changed"]
    audit_partition(lake, SAFEVIDBENCH_BASE, WHOLE)
    assert not make().computed


def test_other_settings_leave_it_too_unless_they_ask(make: Make) -> None:
    first, other = make(), make(max_items=12)
    assert other.manifest.info["release"] == first.manifest.info["release"]
    assert other.manifest.info["changed_since"] == ["max_items"]
    assert make("new", max_items=12).manifest.rows == 12


def test_a_new_one_is_drawn_where_the_settings_say_so_and_the_old_is_kept(lake: Lake, make: Make) -> None:
    old = make().manifest.info["release"]
    kept = lake.folder(BENCHMARK_RELEASES.name, f"{BASE}@{old}")
    bytes_of = {path.name: path.read_bytes() for path in kept.iterdir()}
    items = lake.read(SAFEVIDBENCH_BASE)
    refresh(lake)
    new = make("new").manifest.info["release"]
    assert new != old
    assert not make("new").computed
    assert make().manifest.info["release"] == new
    assert kept_releases(lake, SAFEVIDBENCH_BASE) == [old, new]
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == bytes_of
    assert make(old).manifest.info["release"] == old
    assert lake.read(SAFEVIDBENCH_BASE).equals(items)
    assert make().manifest.info["release"] == old, "what is in use stays so"


def test_new_draws_again_after_the_old_one_stayed_in_use(lake: Lake, make: Make) -> None:
    old = make().manifest.info["release"]
    refresh(lake)
    assert make().manifest.info["release"] == old
    assert make("new").manifest.info["release"] != old


def test_a_release_that_is_not_there_is_refused_with_those_that_are(lake: Lake, make: Make) -> None:
    with pytest.raises(BenchmarkError, match=r"no release 'abc' in this lake \(it has: none\)"):
        make("abc")
    there = make().manifest.info["release"]
    with pytest.raises(BenchmarkError, match=there):
        make("abc")


def test_a_kept_release_that_was_changed_is_not_used(lake: Lake, make: Make) -> None:
    old = make().manifest.info["release"]
    refresh(lake)
    make("new")
    (file,) = lake.folder(BENCHMARK_RELEASES.name, f"{BASE}@{old}").glob("rows-*.parquet")
    pl.read_parquet(file).with_columns(pl.lit("What?").alias("query")).write_parquet(file)
    with pytest.raises(LakeError, match="differ from the manifest's content hash"):
        make(old)


def test_a_benchmark_without_items_is_no_release(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "pocket")
    put(lake, DESCRIPTIONS, "kitchen", [])
    settings = settings_for(tmp_path)
    draw_base(settings, lake)
    assert kept_releases(lake, SAFEVIDBENCH_BASE) == []


def test_a_misspelt_benchmark_in_the_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"evaluation\.releases\.safevidbench_bas"):
        settings_for(tmp_path, releases={"safevidbench_bas": "new"})


def test_kept_releases_are_counted_once_in_the_flow(lake: Lake, make: Make) -> None:
    make()
    stages = {stage.asset: stage for stage in read_flow(lake, build_registry(load_settings("pocket"))).stages}
    assert BENCHMARK_RELEASES.name not in stages
    assert stages[BASE].rows == lake.read(SAFEVIDBENCH_BASE).height


def test_an_item_that_a_later_clip_copies_is_a_leak(lake: Lake, make: Make) -> None:
    make()
    clip = lake.read(SAFEVIDBENCH_BASE).filter(pl.col("scene") == "kitchen")["clip_id"][0]
    corpus = lake.read(VIDEO_CORPUS, "kitchen").drop("profile").to_dicts()
    train = next(row for row in corpus if row["split"] == "train")
    assert benchmark_leaks(lake) == []
    rewrite(
        lake, SCENE_ASSIGNMENTS, WHOLE,
        lambda row: row | {"near_copy_of": train["clip_id"] if row["clip_id"] == clip else None},
    )  # fmt: skip
    rewrite(lake, VIDEO_CORPUS, "kitchen", lambda row: None if row["clip_id"] == clip else row)
    (found,) = benchmark_leaks(lake)
    assert clip in found
    assert "near-duplicate group" in found
    make()
    assert benchmark_leaks(lake) == [found], "the release is kept, and so is the leak"


def test_an_item_whose_clip_changes_sides_is_a_leak(lake: Lake, make: Make) -> None:
    make()
    clip = lake.read(SAFEVIDBENCH_BASE).filter(pl.col("scene") == "kitchen")["clip_id"][0]
    rewrite(
        lake,
        VIDEO_CORPUS,
        "kitchen",
        lambda row: row | ({"split": "train"} if row["clip_id"] == clip else {}),
    )
    assert any(clip in line for line in benchmark_leaks(lake))


def evaluated(lake: Lake, system: str, releases: dict[str, str]) -> None:
    settings = settings_for(lake.root, max_items=24, modality_items=0, releases=releases)
    gateway = Gateway(settings)
    run_stage(settings, lake, "benchmark_responses", f"{system}|{BASE}", gateway)
    run_stage(settings, lake, "benchmark_scores", f"{system}|{BASE}", gateway)


def test_systems_on_two_releases_are_not_compared(lake: Lake, make: Make) -> None:
    old = make().manifest.info["release"]
    settings = settings_for(lake.root, max_items=24, modality_items=0)
    for system in ("always_refuse", "always_comply"):
        evaluated(lake, system, {})
        for asset in (BENCHMARK_RESPONSES.name, BENCHMARK_SCORES.name):
            assert release_of(lake, asset, f"{system}|{BASE}") == old
    assert measure(settings, lake, BASE).release == old
    refresh(lake)
    new = make("new").manifest.info["release"]
    with pytest.raises(BenchmarkError, match="answers of always_refuse") as caught:
        run_stage(settings, lake, "benchmark_scores", f"always_refuse|{BASE}", Gateway(settings))
    assert old in str(caught.value)
    assert new in str(caught.value)
    evaluated(lake, "always_refuse", {})
    with pytest.raises(BenchmarkError, match="always_comply") as caught:
        measure(settings, lake, BASE)
    assert old in str(caught.value)
    assert new in str(caught.value)
    assert "\n" not in str(caught.value)
    evaluated(lake, "always_comply", {})
    assert measure(settings, lake, BASE).release == new


def test_a_release_that_comes_back_finds_its_verdicts_again(lake: Lake, make: Make) -> None:
    old = make().manifest.info["release"]
    evaluated(lake, "always_refuse", {})
    refresh(lake)
    make("new")
    use_release(lake, SAFEVIDBENCH_BASE, old)
    settings = settings_for(lake.root, max_items=24, modality_items=0)
    assert not run_stage(
        settings, lake, "benchmark_scores", f"always_refuse|{BASE}", Gateway(settings)
    ).computed
    assert measure(settings, lake, BASE).release == old


def test_runs_are_compared_by_the_release_that_is_known() -> None:
    refuse_other_release(BASE, {"one run": "a", "another": "a", "an older one": None})
    with pytest.raises(BenchmarkError, match="one run is of release a and the third of release b"):
        refuse_other_release(BASE, {"one run": "a", "another": None, "the third": "b"})


def test_a_kept_release_reads_back_whole(lake: Lake, make: Make) -> None:
    release = make().manifest.info["release"]
    stage = read_release(lake, SAFEVIDBENCH_BASE, release)
    assert stage.rows["item_id"].to_list() == lake.read(SAFEVIDBENCH_BASE)["item_id"].to_list()
    outcomes = lake.outcomes(BASE).sort("input_id")
    assert sorted(stage.outcomes) == sorted(tuple(row) for row in outcomes.iter_rows())


def test_a_subcategory_that_goes_leaves_the_release_and_a_new_one_lacks_it(lake: Lake, make: Make) -> None:
    old = make().manifest.info["release"]
    kept = [each.id for each in load_taxonomy(settings_for(lake.root)).subcategories][:-4]
    fewer = load_settings(
        "pocket",
        overrides={
            "root": str(lake.root), "taxonomy": {"subcategories": kept}, "evaluation": {"max_items": 24}
        },
    )  # fmt: skip
    report = draw_base(fewer, lake)
    assert report.manifest.info["release"] == old
    assert report.manifest.info["changed_since"] == ["taxonomy"]
    again = fewer.evaluation.model_copy(update={"releases": {BASE: "new"}})
    report = draw_base(fewer.model_copy(update={"evaluation": again}), lake)
    assert report.manifest.info["release"] != old
    assert set(lake.read(SAFEVIDBENCH_BASE)["subcategory"]) <= set(kept)


def test_the_plan_stays_while_its_release_is_in_use(lake: Lake, make: Make) -> None:
    make()
    plan = lake.read(SAFEVIDBENCH_PLAN)
    refresh(lake)
    settings = settings_for(lake.root, max_items=24)
    assert not run_stage(settings, lake, SAFEVIDBENCH_PLAN.name).computed
    assert lake.read(SAFEVIDBENCH_PLAN).equals(plan)
    make("new")
    assert not lake.read(SAFEVIDBENCH_PLAN).equals(plan)
