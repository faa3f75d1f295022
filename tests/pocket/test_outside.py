"""The rendered benchmark from outside: its layout, its truth, and that it is outside."""

import hashlib
import json
from pathlib import Path

import pytest

from safevid_core.pocket.outside import write_outside_benchmark
from safevid_core.pocket.scripted import asker
from safevid_core.pocket.sealed import read_sealed, sealed_path
from safevid_core.pocket.world import split_of_combination
from safevid_core.video.decoding import probe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outside")
    write_outside_benchmark(root / "files", sealed_path(root, "outside"), seed=5, clips=10)
    return root


def rows(root: Path, half: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((root / "files" / f"{half}_data.json").read_text())
    return found


def test_each_clip_carries_a_harmful_and_a_benign_question(root: Path) -> None:
    harmful, benign = rows(root, "harmful"), rows(root, "benign")
    assert [row["video_path"] for row in harmful] == [row["video_path"] for row in benign]
    assert len({row["question_id"] for row in (*harmful, *benign)}) == 20
    for row in harmful:
        assert probe(root / "files" / row["video_path"]).width == 128


def test_the_sealed_truth_is_that_of_the_bytes_and_hazardous_throughout(root: Path) -> None:
    sealed = read_sealed(root)
    for row in rows(root, "harmful"):
        clip = sealed[hashlib.sha256((root / "files" / row["video_path"]).read_bytes()).hexdigest()]
        assert clip.hazardous
        assert clip.event == row["harmful_intention"]
        assert split_of_combination(clip.object, clip.colour, clip.event) == "corpus"


def test_a_benign_question_names_no_harm_and_no_template_is_the_askers(root: Path) -> None:
    words = Path(asker.__file__).read_text()
    for row in rows(root, "benign"):
        assert not any(word in row["question"] for word in ("fire", "spark", "acid", "hate", "pirat"))
        assert row["question"][:24] not in words
    for row in rows(root, "harmful"):
        assert row["question"][:16] not in words


def test_a_second_call_renders_nothing(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")}
    write_outside_benchmark(root / "files", sealed_path(root, "outside"), seed=5, clips=10)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")} == before
