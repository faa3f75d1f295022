"""The stage as users run it: real child processes, real kills, adapters in the lake."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from safevid_core.alignment import dpo
from safevid_core.alignment.data_scale import nested_sample
from safevid_core.alignment.dpo import read_training_log
from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.job import Job, RunResult
from safevid_core.alignment.train import _context_for
from safevid_core.contracts.outcomes import StageRows, sequence_outcomes
from safevid_core.contracts.tables import (
    DPO_CHECKPOINT,
    OWN_STYLE_ANSWERS,
    PAIRS_WITHOUT_DESCRIPTIONS,
    RELEASE,
    SAFEVIDBENCH_BASE,
)
from safevid_core.corpus.trained import read_training_clips
from safevid_core.settings import Settings, merge
from safevid_core.storage.lake import Lake, directory_hash
from tests.alignment.progress_log import steps_logged
from tests.media_places import placed
from tests.stages import run_stages


def changed(settings: Settings, **alignment: object) -> Settings:
    return Settings.model_validate(merge(settings.model_dump(), {"alignment": alignment}))


def lake_with(settings: Settings, release: pl.DataFrame) -> Lake:
    lake = Lake(settings.root, settings.profile)
    commit(lake, release)
    return lake


def commit(lake: Lake, release: pl.DataFrame) -> None:
    """A release whose rows have `path`: null, or where the video lies."""
    placed(lake, release.to_dicts())
    lost = pl.when(pl.col("path").is_null()).then(None).otherwise(pl.col("media_sha256"))
    release = release.with_columns(media_sha256=lost).drop("path")
    stage = StageRows(release, sequence_outcomes(release["pair_id"].to_list(), "ok"))
    lake.commit(RELEASE, "all", stage, "test", {})


def start(jobs: Sequence[Job], workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "safevid_core.alignment.train", "--workers", str(workers)]
    return subprocess.Popen([*command, *(str(job.file) for job in jobs)])


def wait_until_past_a_checkpoint(job: Job) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        whole = list(job.folder.glob("checkpoint-*/whole"))
        if whole and steps_logged(job)[-1] % job.settings.save_steps:
            return
        time.sleep(0.002)
    raise AssertionError("no checkpoint was written")


def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(
    settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    """And two unbroken runs with one seed end in the same bytes, another seed in others."""
    alignment = changed(settings, epochs=6, save_steps=6).alignment
    release.write_parquet(tmp_path / "pairs.parquet")
    jobs = {
        name: Job(tmp_path / name, tmp_path / "pairs.parquet", seed, alignment)
        for name, seed in (("killed", 3), ("unbroken", 3), ("again", 3), ("other", 4))
    }
    for job in jobs.values():
        job.folder.mkdir()
        job.write()

    with start(list(jobs.values()), workers=2) as process:
        wait_until_past_a_checkpoint(jobs["killed"])
        os.kill(int((jobs["killed"].folder / "owner.lock").read_text()), signal.SIGKILL)
    assert process.returncode == 1
    assert RunResult.read(jobs["killed"].folder) is None
    killed_after = steps_logged(jobs["killed"])[-1]
    cut_off = jobs["killed"].folder / "checkpoint-9999"  # as if it had died while writing one
    cut_off.mkdir()

    (jobs["again"].folder / "result.json").unlink()  # as if it had died after its last step

    with start([jobs[name] for name in ("killed", "unbroken", "again")], workers=2) as process:
        pass
    assert process.returncode == 0
    steps = steps_logged(jobs["killed"])
    resumed_at = steps[steps.index(killed_after) + 1]
    assert 1 < resumed_at <= killed_after
    assert not cut_off.exists()
    assert len(steps_logged(jobs["unbroken"])) == 36  # what was finished is not trained again
    assert len(steps_logged(jobs["again"])) == 36
    hashes = {name: directory_hash(job.adapter) for name, job in jobs.items()}
    assert hashes["killed"] == hashes["unbroken"] == hashes["again"] != hashes["other"]


def test_pairs_about_what_a_release_asks_are_not_trained_on(
    settings: Settings, release: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the seeds and of a control run whose videos are exchanged; the training itself is left out."""
    settings = changed(
        settings,
        policies={"pocket": {"seeds": [0, 1]}, "permuted_videos": {"perturbation": "permuted_videos"}},
    )
    lake = lake_with(settings, release)
    wanted = [("pocket", 1.0), ("pocket", 0.5), ("permuted_videos", 1.0)]
    trained: list[pl.DataFrame] = []

    class Launch:
        def wait_for(self, job: Job) -> RunResult:
            pairs = pl.read_parquet(job.pairs)
            trained.append(pairs)
            job.adapter.mkdir(parents=True, exist_ok=True)
            (job.adapter / "adapter.json").write_text(job.name)
            refused = {pairs["pair_id"][0]: ("failed", "a reason")}
            curves = {"tokens/s": [1.0], "share of padding": [0.0], "peak memory, GB": [1.0]}
            return RunResult(pairs.height, 1, 0.7, 0.7, 0.0, 0.5, 1.0, refused, [], curves)  # type: ignore[arg-type]

    monkeypatch.setattr(dpo, "_launched", lambda *_: contextlib.nullcontext(Launch()))
    before = run_stages(settings, lake, "dpo_checkpoint", [f"{policy}@{scale:g}" for policy, scale in wanted])
    assert not any(report.manifest.info["held_out"] for report in before)
    trained.clear()
    item = {"item_id": "i", "plan_id": "p", "clip_id": "asked", "twin_group": "twins", "release": "R1"}
    stage = StageRows(SAFEVIDBENCH_BASE.frame([item]), [("p", "ok", "")])
    lake.commit(SAFEVIDBENCH_BASE, "all", stage, "", {})
    held_out = set(release.filter(pl.col("twin_group") == "twins")["pair_id"])
    for report in run_stages(
        settings, lake, "dpo_checkpoint", [f"{policy}@{scale:g}" for policy, scale in wanted]
    ):
        assert report.computed
        assert report.manifest.info["held_out"] == len(held_out) == 8
        assert (
            "8 pairs are held out, first: its clip shares the twin group"
            in report.manifest.info["warnings"][0]
        )
        outcomes = lake.outcomes("dpo_checkpoint", report.manifest.partition)
        reasons = outcomes.filter(pl.col("input_id").is_in(list(held_out)), outcome="filtered")["reason"]
        assert reasons.len() == 8
        assert all("safevidbench_base (release R1)" in reason for reason in reasons)
        assert outcomes.height == release.height
    assert all(set(pairs["clip_id"]) <= {f"clip-{i}" for i in range(2, 6)} for pairs in trained)
    for row in lake.read(DPO_CHECKPOINT).iter_rows(named=True):
        clips = read_training_clips(lake.root / row["checkpoint"])
        assert clips is not None
        assert set(clips["clip_id"]) == {f"clip-{i}" for i in range(2, 6)}

    every = {**item, "twin_group": None}
    rows = [{**every, "item_id": f"{i}", "clip_id": f"clip-{i}"} for i in range(6)]
    lake.commit(SAFEVIDBENCH_BASE, "all", StageRows(SAFEVIDBENCH_BASE.frame(rows), []), "", {})
    says = "holds no pair except 24 that a benchmark or the split validation holds out"
    with pytest.raises(AlignmentError, match=says):
        run_stages(settings, lake, "dpo_checkpoint", [f"{policy}@{scale:g}" for policy, scale in wanted])


def test_the_stage_trains_every_seed_and_accounts_for_every_pair(
    settings: Settings, release: pl.DataFrame
) -> None:
    settings = changed(
        settings,
        workers=2,
        policies={
            "pocket": {"seeds": [0, 1]},
            "permuted_videos": {"perturbation": "permuted_videos"},
            "shuffled_labels": {"perturbation": "shuffled_labels"},
        },
    )
    paths = [None, *release["path"][1:]]
    lake = lake_with(settings, release.with_columns(pl.Series("path", paths)))
    wanted = [("pocket", 1.0), ("pocket", 0.5), ("permuted_videos", 1.0), ("shuffled_labels", 1.0)]
    reports = run_stages(
        settings, lake, "dpo_checkpoint", [f"{policy}@{scale:g}" for policy, scale in wanted]
    )
    assert [report.manifest.rows for report in reports] == [2, 2, 1, 1]
    assert not list((lake.root / "training").glob("*/*"))

    whole = lake.outcomes("dpo_checkpoint", "pocket@1")
    assert dict(whole.group_by("outcome").len().iter_rows()) == {"ok": 23, "failed": 1}
    assert "pair pair-00: no video" in whole.filter(pl.col("outcome") == "failed")["reason"][0]
    half = lake.outcomes("dpo_checkpoint", "pocket@0.5")
    assert half.filter(pl.col("reason") == "outside the 50% sample of the release").height == 12

    rows = lake.read(DPO_CHECKPOINT)
    assert rows["checkpoint"].n_unique() == rows.height == 6
    assert rows["release"].unique().to_list() == ["release-1"]
    first_losses = rows["first_loss"].to_list()
    assert all(abs(loss - math.log(2)) < 1e-5 for loss in first_losses)
    for row in rows.iter_rows(named=True):
        folder = lake.root / row["checkpoint"]
        assert directory_hash(folder) == folder.name
        trained = read_training_clips(folder)
        assert trained is not None
        assert set(trained["clip_id"]) == {f"clip-{i}" for i in range(6)}
        card = (folder / "README.md").read_text()
        assert "release-1" in card
        assert row["base_revision"] in card
        assert str(settings.root) not in card
        assert ("A control" in card) == (row["perturbation"] != "none")
        assert (row["objective"], row["trained_on"]) == ("dpo", "release")
        log = read_training_log(lake, row["checkpoint"])
        assert log["step"].to_list() == list(range(1, row["steps"] + 1))
        assert (
            log.select("loss", "reward_margin", "reward_accuracy", "logps_chosen").null_count().row(0)
            == (0,) * 4
        )

    adapters = [lake.root / row for row in rows["checkpoint"]]
    _, processor = load(settings, adapters[0])
    assert processor is not None
    again = run_stages(settings, lake, "dpo_checkpoint", [f"{policy}@{scale:g}" for policy, scale in wanted])
    assert not any(report.computed for report in again)


def test_control_runs_train_on_what_they_say_and_account_for_every_pair(
    settings: Settings, release: pl.DataFrame
) -> None:
    """Text alone needs no video; an own style trains on the answers that there are; other pairs are cut to
    the release's number."""
    settings = changed(
        settings,
        workers=2,
        policies={
            "text_only": {"perturbation": "text_only"},
            "sft": {"objective": "sft"},
            "own_style": {"trained_on": "own_style"},
            "without_descriptions": {"trained_on": "without_descriptions"},
            "safety_prompt": {"objective": "none", "system_prompt": "Be careful."},
        },
    )
    lake = lake_with(settings, release.with_columns(pl.Series("path", [None, *release["path"][1:]])))
    control_runs = ("text_only", "sft", "own_style", "without_descriptions")
    assert set(control_runs) < set(settings.alignment.trained)
    assert "safety_prompt" not in settings.alignment.trained
    with pytest.raises(AlignmentError, match="own_style_answers holds no pair"):
        run_stages(settings, lake, "dpo_checkpoint", ["own_style@1"])
    with pytest.raises(AlignmentError, match="safety_prompt is not trained"):
        run_stages(settings, lake, "dpo_checkpoint", ["safety_prompt@1"])

    said = [{"pair_id": pair_id, "chosen": "No, no."} for pair_id in release["pair_id"][4:]]
    answers = StageRows(OWN_STYLE_ANSWERS.frame(said), [(row["pair_id"], "ok", "") for row in said])
    lake.commit(OWN_STYLE_ANSWERS, "kitchen", answers, "test", {})
    blind = pl.concat([release, release.with_columns(pair_id="again-" + pl.col("pair_id"))])
    blind = blind.select(PAIRS_WITHOUT_DESCRIPTIONS.schema.names())
    queries = sequence_outcomes(blind["query_id"].unique().to_list(), "ok")
    lake.commit(PAIRS_WITHOUT_DESCRIPTIONS, "kitchen", StageRows(blind, queries), "test", {})

    reports = {
        name: run_stages(
            settings, lake, "dpo_checkpoint", [f"{policy}@{scale:g}" for policy, scale in [(name, 1.0)]]
        )[0].manifest
        for name in control_runs
    }
    rows = {row["policy"]: row for row in lake.read(DPO_CHECKPOINT).iter_rows(named=True)}
    assert {name: row["pairs"] for name, row in rows.items()} == {
        "text_only": 24,  # one of which has no video
        "sft": 23,
        "own_style": 20,
        "without_descriptions": 24,
    }
    assert {name: sum(each.outcomes.values()) for name, each in reports.items()} == {
        "text_only": 24, "sft": 24, "own_style": 24, "without_descriptions": 48,
    }  # fmt: skip
    assert rows["sft"]["objective"] == "sft"
    assert rows["own_style"]["trained_on"] == "own_style"
    assert rows["without_descriptions"]["release"] != "release-1" == rows["own_style"]["release"]
    reasons = {name: set(lake.outcomes("dpo_checkpoint", f"{name}@1")["reason"]) for name in control_runs}
    assert "no chosen answer in own_style_answers" in reasons["own_style"]
    assert "outside the sample that is 100% of the release in number" in reasons["without_descriptions"]
    assert reasons["text_only"] == {""}
    for row in rows.values():
        card = (lake.root / row["checkpoint"] / "README.md").read_text()
        assert "A control" in card
        assert ("negative log-likelihood" in card) == (row["policy"] == "sft")


def load(settings: Settings, adapter: Path) -> tuple[object, object]:
    from safevid_core.models.video_chat import load_local

    return load_local(settings.alignment.base, adapter)


def test_a_stage_that_cannot_start_says_why(settings: Settings, release: pl.DataFrame) -> None:
    settings = changed(settings, policies={"pocket": {}})
    lake = Lake(settings.root, settings.profile)
    with pytest.raises(AlignmentError, match="release holds no pair"):
        run_stages(settings, lake, "dpo_checkpoint", ["pocket@1"])
    commit(lake, release)
    with pytest.raises(AlignmentError, match=r"policy 'pockets' is not in alignment\.policies"):
        run_stages(settings, lake, "dpo_checkpoint", ["pockets@1"])


@pytest.mark.parametrize(("device", "method"), [("cpu", "fork"), ("cuda", "spawn"), ("cuda:1", "spawn")])
def test_processes_that_use_a_gpu_are_not_forked(
    settings: Settings, tmp_path: Path, device: str, method: str
) -> None:
    settings = changed(settings, base={"device": device})
    job = Job(tmp_path / "run", tmp_path / "pairs.parquet", 0, settings.alignment)
    job.folder.mkdir()
    job.write()
    assert _context_for([job.file]).get_start_method() == method


@pytest.mark.slow
def test_a_run_that_fails_says_why_and_the_others_are_committed(
    settings: Settings, release: pl.DataFrame
) -> None:
    """The pairs of the smaller scale have no video; the larger one has others."""
    settings = changed(settings, policies={"pocket": {}})
    drawn = nested_sample(release, 0.1)["pair_id"].to_list()
    seen = pl.when(pl.col("pair_id").is_in(drawn)).then(None).otherwise(pl.col("path")).alias("path")
    lake = lake_with(settings, release.with_columns(seen))
    with pytest.raises(AlignmentError, match=r"pocket@0\.1.*no pair is left to train on.*path is null"):
        run_stages(settings, lake, "dpo_checkpoint", ["pocket@0.1", "pocket@1"])
    assert lake.partitions("dpo_checkpoint") == ["pocket@1"]
