from __future__ import annotations

import json
from pathlib import Path

from safevid_core.models.provenance import notices, read_record
from safevid_core.settings import load_settings

ABOUT = "The language model is published. The vision was trained here."


def record_of(root: Path, vision: str, sees: list[str]) -> None:
    (root / "small").mkdir(exist_ok=True)
    (root / "small" / "vision.json").write_text(json.dumps({"about": ABOUT, "vision": vision, "sees": sees}))


def test_scripted_models_are_named_by_their_keys() -> None:
    (notice,) = notices(load_settings("pocket"))
    for key in ("queries.asker", "queries.rater", "preferences.responder", "preferences.judges.rubric"):
        assert key in notice
    assert notices(load_settings("paper")) == []


def test_a_checkpoint_that_was_trained_here_is_reported_with_what_it_sees(tmp_path: Path) -> None:
    settings = load_settings("small", overrides={"root": str(tmp_path)})
    assert settings.alignment.base.path == str(tmp_path / "small" / "llava_next_video")
    assert len(notices(settings)) == 1
    record_of(tmp_path, "claimed", ["colour", "event"])
    scripted, seen = notices(settings)
    assert "evaluation.judge" in scripted
    assert ABOUT in seen
    assert "tells colour, event better than blind" in seen
    record_of(tmp_path, "text only", [])
    assert "Text only" in notices(settings)[1]


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "vision.json").write_text("{")
    assert read_record(tmp_path / "checkpoint") is None
    (tmp_path / "vision.json").write_text('["about"]')
    assert read_record(tmp_path / "checkpoint") is None
