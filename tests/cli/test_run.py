"""`safevid run`: what it refuses, what it records, and how it ends."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from safevid_core.contracts.errors import SafeVidError
from safevid_core.stages.selection import select
from safevid_core.storage.lake import Lake
from safevid_dagster.cli.opening import open_planner
from safevid_dagster.running import _failure
from tests.command import PROJECT, command_line, is_one_line, safevid, safevid_process, takes_interrupts

SIX = json.dumps([{"kind": "pocket", "clips_per_scene": 6, "twin_groups_per_scene": 1}])


def test_missing_inputs_are_named_and_upstream_offered(tmp_path: Path) -> None:
    done = safevid("run", "video_corpus", "--scene", "kitchen", root=tmp_path)
    assert is_one_line(done, 2, "video_corpus is made from clip_manifest")
    assert "--upstream" in done.stderr
    assert not (tmp_path / "dagster").exists(), "a refused run is no run of Dagster"


class Held(SafeVidError):
    """Stands for the error of a partition that another run makes."""


def test_a_partition_that_another_run_holds_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def hold(*arguments: str) -> Iterator[None]:
        raise Held("pocket_clips[all] is being made by run 3f2a; wait until that has ended, or stop it")
        yield

    monkeypatch.setattr(Lake, "hold", hold)
    done = safevid("run", "pocket_clips", root=tmp_path)
    assert is_one_line(done, 2, "pocket_clips[all] is being made by run 3f2a")


def test_a_source_that_is_missing_fails_and_is_remembered(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    sources = json.dumps([{"kind": "folder", "path": str(nothing)}])
    root = tmp_path / "root"
    done = safevid_process(
        "--root", root, "run", "clip_manifest", "--upstream", "--json", SAFEVID_CORPUS__SOURCES=sources
    )
    assert done.returncode == 1
    assert f"folder '{nothing}' does not exist" in done.stderr
    assert "Traceback" not in done.stderr
    assert "dagster." not in done.stderr, "no name of a class before the message"
    document = json.loads(done.stdout)
    assert document["succeeded"] is False
    assert [step["stage"] for step in document["steps"]][-1] == "clip_manifest"
    status = safevid_process(
        "--root", root, "status", "clip_manifest", SAFEVID_CORPUS__SOURCES=sources
    ).stdout
    assert "clip_manifest[all] failed: " in status
    assert str(nothing) in status


def test_ctrl_c_ends_with_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command_line("--root", tmp_path, "run", "pocket_clips"),
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=takes_interrupts,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("run "):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert said == "safevid: interrupted; finished work is kept\n"
    assert process.returncode == 130


def test_a_process_of_a_pool_does_not_run_the_command_again() -> None:
    runpy.run_module("safevid_dagster.cli.__main__", run_name="__mp_main__")


# ------------------------------------------------------------------------------------------ selection


def names(*stages: str, root: Path, **options: object) -> list[tuple[str, int]]:
    """Stage and number of partitions of each step of a request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFEVID_ROOT", str(root))
        planner = open_planner()
    return [(stage.name, len(some)) for stage, some in select(planner, stages, **options).steps]  # type: ignore[arg-type]


def test_upstream_is_what_the_partitions_need_and_no_more(tmp_path: Path) -> None:
    assert names("video_corpus", root=tmp_path, partitions=["kitchen"], upstream=True) == [
        ("pocket_clips", 1), ("clip_manifest", 1), ("scene_assignments", 1), ("corpus_split", 1),
        ("video_corpus", 1),
    ]  # fmt: skip
    found = dict(names("safevid_350k_pairs", root=tmp_path, partitions=["kitchen"], upstream=True))
    assert found["descriptions"] == found["taxonomy_queries"] == found["qwen2_5_vl_descriptions"] == 1
    assert "dpo_checkpoint" not in found
    every = dict(names("safevid_350k_release", root=tmp_path, upstream=True))
    assert every["safevid_350k_pairs"] == 30
    assert "lossy_pairs" not in every, "the flow of these settings makes none"


def test_to_is_what_lies_between(tmp_path: Path) -> None:
    between = dict(names("descriptions", root=tmp_path, to="safevid_350k_pairs", partitions=["kitchen"]))
    assert between == {"descriptions": 1, "query_plan": 1, "taxonomy_queries": 1, "safevid_350k_pairs": 1}


# --------------------------------------------------------------------------------- from end to end


@pytest.mark.slow
def test_the_first_stages_from_nothing(tmp_path: Path) -> None:
    """180 rendered clips: run upstream, again, look, and fail on a describer that does not answer."""
    root, small = tmp_path / "root", {"SAFEVID_CORPUS__SOURCES": SIX}
    first = safevid_process("--root", root, "run", "video_corpus", "--upstream", "--json", **small)
    assert first.returncode == 0, first.stderr
    steps = {step["stage"]: step for step in json.loads(first.stdout)["steps"]}
    assert steps["video_corpus"]["outcomes"]["ok"] == 180
    assert steps["video_corpus"]["recomputed"] == 30
    run = steps["video_corpus"]["runs"][0]
    assert run in first.stderr

    again = safevid_process("--root", root, "run", "video_corpus", "--upstream", "--json", **small)
    assert [step["stage"] for step in json.loads(again.stdout)["steps"]] == ["video_corpus"]
    assert json.loads(again.stdout)["steps"][0]["recomputed"] == 0
    status = safevid_process("--root", root, "status", "video_corpus", "--json", **small)
    assert json.loads(status.stdout)["stages"][0]["fresh"] == 30

    silent = {
        "SAFEVID_DESCRIPTIONS__DESCRIBERS__QWEN2_5_VL__SERVED_AT": "http://127.0.0.1:9/v1",
        "SAFEVID_DESCRIPTIONS__DESCRIBERS__QWEN2_5_VL__PATH": "openai/silent",
        "SAFEVID_MODELS__MAX_ATTEMPTS": "1",
        "SAFEVID_MODELS__TERMS": '{"openai/silent": {"usd_per_million_in": 0, "usd_per_million_out": 0}}',
    }
    asked = ("--root", root, "run", "qwen2_5_vl_descriptions", "--scene", "kitchen")
    failed = safevid_process(*asked, **small, **silent)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "qwen2_5_vl_descriptions" in failed.stderr
    assert "openai/silent" in failed.stderr
    assert "audit" not in failed.stderr


def test_a_blocking_check_that_fails_says_why() -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec("enough", asset="pairs", blocking=True)])
    def pairs() -> dg.MaterializeResult:
        problems = {"problems": ["2 pairs are left; lower the limit"]}
        return dg.MaterializeResult(
            check_results=[dg.AssetCheckResult(check_name="enough", passed=False, metadata=problems)]
        )

    result = dg.materialize([pairs], raise_on_error=False)
    assert not result.success
    assert _failure(result) == "check enough failed: 2 pairs are left; lower the limit"
