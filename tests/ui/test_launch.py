"""Errors before the demo or the UI starts are one clear line."""

import logging
import socket
from pathlib import Path

from safevid_dagster.running import Notes
from tests.command import safevid_process


def test_a_taken_port_is_named_with_the_next_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = safevid_process("ui", "--port", str(port), SAFEVID_ROOT=str(tmp_path / "root"))
    assert done.returncode == 2
    assert done.stderr == f"safevid: port {port} is taken; try `safevid ui --port {port + 1}`\n"


def test_an_unwritable_output_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = safevid_process("demo", SAFEVID_ROOT=str(tmp_path / "file" / "root"))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_misspelt_key_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("corpus: {scene_margn: 0.1}\n")
    done = safevid_process("demo", SAFEVID_SETTINGS=str(file), SAFEVID_ROOT=str(tmp_path / "root"))
    assert done.returncode == 2
    assert "did you mean 'scene_margin'?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_warnings_of_a_step_wait_for_its_line_and_are_reported_once() -> None:
    notes = Notes()
    logger = logging.getLogger("safevid_core.somewhere")
    logger.addHandler(notes)
    try:
        for _ in range(2):
            logger.warning("Video-SafetyBench: the files hold %d rows,\nnot all", 120)
        logger.info("nothing to tell")
    finally:
        logger.removeHandler(notes)
    assert notes.taken() == ["Video-SafetyBench: the files hold 120 rows, not all"]
    assert notes.taken() == []
