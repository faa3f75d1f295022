"""A partition is held by one process at a time, and is free again when that process ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from safevid_core.storage.lake import Lake, LakeError, PartitionHeld

HOLDER = textwrap.dedent("""
    import os, sys, time
    from safevid_core.storage.lake import Lake
    with Lake(sys.argv[1], "pocket").hold("descriptions", "kitchen", "run one"):
        if len(sys.argv) > 2 and os.fork() == 0:
            os.write(1, f"{os.getpid()}\\n".encode())
            time.sleep(60)
            os._exit(0)
        os.write(1, b"held\\n")
        time.sleep(60)
""")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path, "pocket")


def holder(lake: Lake, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lake.root), *more],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_another_process_learns_who_holds_the_partition(lake: Lake) -> None:
    with holder(lake) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        message = r"descriptions\[kitchen\] is being made by run one \(process \d+ on .+\) since 20.+; wait"
        with (
            pytest.raises(PartitionHeld, match=message) as caught,
            lake.hold("descriptions", "kitchen", "two"),
        ):
            pass
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, LakeError)
        with lake.hold("descriptions", "bathroom", "two"):
            pass
        process.kill()
        process.wait(30)
        with lake.hold("descriptions", "kitchen", "two"):
            pass


def test_a_child_of_a_killed_holder_does_not_hold_on(lake: Lake) -> None:
    with holder(lake, "fork") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(2)]
        child = int(next(line for line in lines if line != "held"))
        try:
            process.kill()
            process.wait(30)
            with lake.hold("descriptions", "kitchen", "two"):
                pass
        finally:
            os.kill(child, 9)


def test_a_process_does_not_hold_a_partition_twice(lake: Lake) -> None:
    with lake.hold("descriptions", "a/b", "one\ntwo"):
        with pytest.raises(PartitionHeld, match="by one two"), lake.hold("descriptions", "a/b", "three"):
            pass
        with pytest.raises(PartitionHeld, match="by one two"), lake.hold("descriptions", "a/b", "three"):
            pass
    with lake.hold("descriptions", "a/b", "three"):
        pass


def test_a_forked_child_may_leave_the_block(lake: Lake) -> None:
    with lake.hold("descriptions", "kitchen", "one"):
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            with pytest.raises(PartitionHeld, match="by one"), lake.hold("descriptions", "kitchen", "two"):
                pass
    if not child:
        os._exit(0)
    with lake.hold("descriptions", "kitchen", "two"):
        pass


def test_an_error_frees_the_partition(lake: Lake) -> None:
    with pytest.raises(ValueError, match="broken"), lake.hold("descriptions", "kitchen", "one"):
        raise ValueError("broken")
    with lake.hold("descriptions", "kitchen", "two"):
        pass
