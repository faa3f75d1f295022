"""`transformers serve` on loopback: a real server for the tests of served and hosted models."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PATIENCE_S = 240


@contextmanager
def serving(log: Path, *, threads: int = 1) -> Iterator[str]:
    """The base URL of a server that loads the checkpoint which a request names.

    Args:
        log: File for what the server prints, its access log included.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", "--host", "127.0.0.1"]
    environment = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}
    with log.open("w") as file:
        server = subprocess.Popen(
            [*map(str, command), "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            env={**os.environ, **environment},
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not answer: {log.read_text()[-2000:]}")
