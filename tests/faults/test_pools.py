"""`kill -9` in every asset with a pool, and in a namespace of its own: the next run goes on, and says why."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from safevid_dagster.liveness import active_runs, end_dead_runs
from tests.living_runs import PROJECT, kill, make_home, pools, start, wait_for
from tests.ui.test_backfill import answers, free_port, launch

SOURCE = {"kind": "pocket", "clips_per_scene": 6, "twin_groups_per_scene": 1, "licence": "Apache-2.0"}
SMALL = {"SAFEVID_CORPUS__SOURCES": json.dumps([SOURCE])}

ASSETS = [(asset, pool) for pool, assets in sorted(pools().items()) for asset in sorted(assets)]
pytestmark = pytest.mark.faults


@pytest.mark.parametrize(("asset", "pool"), ASSETS)
def test_killed_in_an_asset_with_a_pool(tmp_path: Path, asset: str, pool: str) -> None:
    home = make_home(tmp_path / "dagster")
    process, ready = start(home, asset, pool, 600)
    wait_for(ready.exists)
    kill(process)
    following, _ = start(home, asset, pool, 0)
    said = following.communicate(timeout=120)[0].splitlines()
    assert f"run {ready.read_text()} ({asset}) has no process any more: marked as failed" in said[0]
    assert said[1].startswith("made ")


def test_every_pool_is_killed_in() -> None:
    assert {pool for _, pool in ASSETS} == {"training", "video_model"}
    assert len(ASSETS) >= 8


def test_a_run_in_another_pid_namespace_lives_until_it_is_killed(tmp_path: Path) -> None:
    isolated = ("unshare", "--pid", "--fork", "--kill-child")
    if shutil.which("unshare") is None or subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("this machine makes no PID namespaces")
    home = make_home(tmp_path / "dagster")
    process, ready = start(home, "dpo_checkpoint", "training", 600, before=isolated)
    wait_for(ready.exists)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert end_dead_runs(instance) == []
        assert active_runs(instance) == [f"run {ready.read_text()} (dpo_checkpoint) is at work"]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda: end_dead_runs(instance))
        assert [run.status.value for run in instance.get_runs()] == ["FAILURE"]


def test_a_killed_ui_leaves_no_slot_taken(tmp_path: Path) -> None:
    """The server, its daemon and its run workers, all at once, while a run holds a slot."""
    root, port = tmp_path / "safevid", free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "safevid_dagster.cli", "ui", "--port", str(port)],
        cwd=PROJECT,
        env={**os.environ, "SAFEVID_ROOT": str(root), "PYTHONPATH": str(PROJECT), **SMALL},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: answers(port), 180)
        sources = ["pocket_clips", "clip_manifest", "scene_assignments", "corpus_split", "video_corpus"]
        launch(port, [*sources, "llava_next_video_descriptions"], None)
        with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
            wait_for(lambda: holders(instance), 300)
            assert end_dead_runs(instance) == [], "it lives"
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            said: list[str] = []
            wait_for(lambda: said.extend(end_dead_runs(instance)) or not holders(instance))
            assert any("its slot of pool video_model is free again" in line for line in said)
            assert active_runs(instance) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def holders(instance: dg.DagsterInstance) -> set[str]:
    return instance.event_log_storage.get_concurrency_info("video_model").active_run_ids
