"""`make ui` serves the graph on localhost, and a backfill started from there runs to success."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.command import PROJECT, command_line

SCENES = ["kitchen", "street", "sky"]
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def query(port: int, text: str, **variables: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": text, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        body = json.load(answer)
    assert "errors" not in body, body["errors"]
    return body["data"]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    root = tmp_path_factory.mktemp("ui") / "safevid"
    environment = {**os.environ, "SAFEVID_ROOT": str(root), "PYTHONPATH": str(PROJECT)}
    with served(command_line(), PROJECT, environment) as port:
        yield port


@contextlib.contextmanager
def served(safevid: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """The port at which `safevid ui` answers while the block runs.

    Args:
        safevid: The command `safevid`, as the beginning of a command line.
        folder: The working folder.
        environment: All variables of the process.
    """
    port = free_port()
    # `dagster dev` outlives a signal to itself alone: it gets a process group of its own.
    server = subprocess.Popen(
        [*safevid, "ui", "--port", str(port)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: answers(port), 180, "the webserver")
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        time.sleep(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def wait_for(ready: Any, seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(2)
    pytest.fail(f"{what} was not ready after {seconds} s")


def launch(port: int, assets: list[str], partitions: list[str] | None) -> str:
    data = query(
        port,
        """mutation Launch($params: LaunchBackfillParams!) {
          launchPartitionBackfill(backfillParams: $params) {
            __typename
            ... on LaunchBackfillSuccess { backfillId }
            ... on PythonError { message }
          }
        }""",
        params={
            "assetSelection": [{"path": [asset]} for asset in assets],
            **({"partitionNames": partitions} if partitions else {"allPartitions": True}),
            "tags": [],
        },
    )["launchPartitionBackfill"]
    assert data["__typename"] == "LaunchBackfillSuccess", data
    return data["backfillId"]


def backfill_status(port: int, backfill: str) -> str | None:
    data = query(
        port,
        """query Status($id: String!) {
          partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
        }""",
        id=backfill,
    )
    status = data["partitionBackfillOrError"]["status"]
    return None if status in ("REQUESTED", "STARTED") else status


def test_a_backfill_of_three_scenes_succeeds(ui: int) -> None:
    sources = ["pocket_clips", "clip_manifest", "scene_assignments", "corpus_split"]
    first = launch(ui, sources, None)
    assert wait_for(lambda: backfill_status(ui, first), 300, "the sources") == "COMPLETED_SUCCESS"
    scenes = launch(ui, ["video_corpus", "signal_descriptions"], SCENES)
    assert wait_for(lambda: backfill_status(ui, scenes), 300, "the backfill") == "COMPLETED_SUCCESS"
    statuses = query(
        ui,
        """query Partitions { assetNodeOrError(assetKey: {path: ["signal_descriptions"]}) {
          ... on AssetNode { assetPartitionStatuses {
            ... on DefaultPartitionStatuses { materializedPartitions failedPartitions }
          } } } }""",
    )["assetNodeOrError"]["assetPartitionStatuses"]
    assert sorted(statuses["materializedPartitions"]) == sorted(SCENES)
    assert statuses["failedPartitions"] == []
