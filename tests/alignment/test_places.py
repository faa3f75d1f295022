"""A job has the places of its videos at the time when it is written; the table of pairs has none."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from safevid_core.alignment.clips import PixelStore
from safevid_core.alignment.encoding import encode_pairs
from safevid_core.alignment.job import with_places
from safevid_core.contracts.errors import READ_AGAIN
from safevid_core.contracts.tables import RELEASE
from safevid_core.models.video_chat import load_local
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.media_places import placed


def test_a_job_has_the_places_of_its_videos_and_why_one_has_none(
    settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    lake = Lake(tmp_path / "lake", "pocket")
    placed(lake, release.filter(pl.col("clip_id") != "clip-2").to_dicts())
    placed(lake, [{"media_sha256": release["media_sha256"][2], "path": tmp_path / "gone.mp4"}])
    pairs = release.drop("path")
    assert pairs.columns == RELEASE.schema.names()
    job = with_places(pairs, lake.media)
    there = pl.col("clip_id") != "clip-2"
    assert job.filter(there)["path"].equals(release.filter(there)["path"])
    assert job.filter(there)["missing"].null_count() == job.filter(there).height
    assert job.filter(~there)["path"].null_count() == 4

    _, processor = load_local(settings.alignment.base)
    encoded = encode_pairs(job, settings.alignment, processor, PixelStore())
    assert len(encoded.pairs) == 20
    assert set(encoded.refused) == set(release.filter(~there)["pair_id"])
    for outcome, reason in encoded.refused.values():
        assert outcome == "failed"
        assert "gone.mp4' is gone; put it back" in reason
        assert READ_AGAIN not in reason
        assert "\n" not in reason
