"""`safevid doctor`: each check finds what is wrong and says what to do; no key is ever shown."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import PROJECT, safevid

KEY = "sk-planted-0123456789abcdef"


def checks(root: Path) -> dict[str, dict[str, str]]:
    document = json.loads(safevid("doctor", "--json", root=root).stdout)
    assert document["ok"] is all(each["level"] != "fail" for each in document["checks"])
    return {each["subject"]: each for each in document["checks"]}


@pytest.fixture
def server() -> Iterator[str]:
    """A server that wants a key: it answers each request with 401."""

    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *arguments: object) -> None:
            pass

    serving = http.server.HTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}/v1"
    serving.shutdown()
    serving.server_close()


def test_the_pocket_profile_is_ready(tmp_path: Path) -> None:
    done = safevid("doctor", root=tmp_path)
    assert done.exit_code == 0, done.stdout
    assert all(line.startswith(("ok ", "warn")) for line in done.stdout.splitlines())
    assert "decoder decord: 8 of 8 frames" in done.stdout


def test_settings_that_cannot_be_read_are_a_finding(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("corpus: {scene_margn: 0.1}\n")
    done = safevid("--settings", file, "doctor", root=tmp_path)
    assert done.exit_code == 1
    assert "did you mean 'scene_margin'?" in done.stdout


def test_keys_sources_models_and_servers(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "DESCRIPTIONS__RECONCILER__MODEL": "openai/x",
        "DESCRIPTIONS__RECONCILER__API_BASE": server,
        "DESCRIPTIONS__RECONCILER__API_KEY_ENV": "PLANTED_KEY",
        "QUERIES__ASKER__MODEL": "openai/y",
        "QUERIES__ASKER__API_BASE": "http://127.0.0.1:9/v1",
        "QUERIES__ASKER__API_KEY_ENV": "UNSET_KEY",
        "DESCRIPTIONS__DESCRIBERS__QWEN2_5_VL__PATH": str(tmp_path / "no-model"),
        "CORPUS__SOURCES": json.dumps([{"kind": "folder", "path": str(tmp_path / "no-videos")}]),
    }
    for name, value in given.items():
        monkeypatch.setenv(f"SAFEVID_{name}", value)
    monkeypatch.setenv("PLANTED_KEY", KEY)
    monkeypatch.delenv("UNSET_KEY", raising=False)
    assert KEY not in safevid("doctor", root=tmp_path).output
    found = checks(tmp_path)
    assert found["key PLANTED_KEY"]["level"] == "ok"
    assert found["key UNSET_KEY"]["level"] == "fail"
    assert found["key UNSET_KEY"]["advice"] == "export UNSET_KEY=..."
    assert found[f"server {server}"]["level"] == "ok", "a server that wants a key is there"
    assert found["server http://127.0.0.1:9/v1"]["level"] == "fail"
    assert found[f"model {tmp_path / 'no-model'}"]["level"] == "fail"
    assert found[f"source {tmp_path / 'no-videos'}"]["level"] == "fail"


def test_a_lake_of_another_profile_is_reported(lake, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SAFEVID_PROFILE", "paper")
    found = checks(lake.root)
    assert found["lake"]["level"] == "warn"
    assert "made with profile pocket" in found["lake"]["text"]


def test_modules_with_stages_are_found_in_the_working_folder(tmp_path: Path) -> None:
    """An installed command does not search the working folder by itself, and `-P` stands for one."""
    (tmp_path / "mine.py").write_text("STAGES = ()\n")

    def check(module: str) -> str:
        main = "from safevid_dagster.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-P", "-c", main, "--root", str(tmp_path / "lake"), "doctor"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "SAFEVID_STAGES": json.dumps([module])},
            capture_output=True,
            text=True,
        )
        return next(line for line in done.stdout.splitlines() if line.split()[1] == "stages:")

    assert check("mine").split() == ["ok", "stages:", "mine"]
    assert "module nobodys cannot be imported" in check("nobodys")
