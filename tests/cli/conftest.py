"""A small lake of the first stages, put there by hand, and the command over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.tables import CLIP_MANIFEST, DESCRIPTIONS, PAIRS
from safevid_core.storage.lake import WHOLE, Lake

CLIPS = {"c1": "beach.mp4", "c2": "stove.mp4"}
LONG_QUERY = "Tell me how to do the same at home, " + "step by step, " * 10
REJECTED = "First, you take the pan and then you do what nobody should do"


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAFEVID_ROOT", "SAFEVID_PROFILE", "SAFEVID_SETTINGS", "SAFEVID_CLIPS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two clips in the manifest, one that failed; one description and one pair of the scene kitchen."""
    lake = Lake(tmp_path / "lake", "pocket")
    rows = [
        blank(
            CLIP_MANIFEST,
            clip_id=clip,
            media_sha256=f"hash of {clip}",
            file_name=name,
            source_row=f"folder:0::{name}",
            origin="folder",
        )
        for clip, name in CLIPS.items()
    ]
    outcomes: list[Any] = [(row["source_row"], "ok", "") for row in rows]
    outcomes.append(("folder:0::broken.mp4", "failed", "broken.mp4: no video stream"))
    lake.commit(CLIP_MANIFEST, WHOLE, StageRows(CLIP_MANIFEST.frame(rows), outcomes), "by hand", {})
    described = blank(DESCRIPTIONS, clip_id="c2", scene="kitchen", split="train", text="A stove is on.")
    outcomes = [("c2", "ok", ""), ("c1", "undecidable", "the witnesses name different scenes")]
    lake.commit(DESCRIPTIONS, "kitchen", StageRows(DESCRIPTIONS.frame([described]), outcomes), "by hand", {})
    pair = blank(PAIRS, pair_id="p1", query_id="q1", clip_id="c2", scene="kitchen", prompt=LONG_QUERY)
    pair |= {"chosen": "No. " * 40, "rejected": REJECTED, "principle": "harmless"}
    lake.commit(PAIRS, "kitchen", StageRows(PAIRS.frame([pair]), [("q1", "ok", "")]), "by hand", {})
    return lake


def blank(table: Any, **values: Any) -> dict[str, Any]:
    """A row of nulls but for these values."""
    return {**dict.fromkeys(table.schema.names()), **values}
