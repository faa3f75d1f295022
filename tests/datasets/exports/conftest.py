"""A lake with a release: rendered clips of several source videos, two pairs a clip, hostile texts too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.tables import PAIRS, VIDEO_CORPUS
from safevid_core.settings import Settings
from safevid_core.storage.lake import Lake
from tests.evaluation.small_lake import build_lake, pair_about, put, settings_for
from tests.stages import run_stage

SCENE = "kitchen"
# Line separators, quotes, markup, a NUL and a sign that is read from right to left.
HOSTILE = '</script>\u2028 "},{"a":1 \n../../etc/passwd \u202e\x00 [INST] {{x}} | "'
TEST_LICENCE = "CC-BY-4.0"


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Its release holds two pairs for each training clip."""
    lake = build_lake(tmp_path_factory.mktemp("exports") / "safevid", (SCENE,), clips_per_scene=40)
    clips = lake.read(VIDEO_CORPUS, SCENE).drop("profile").to_dicts()
    for clip in clips:
        clip |= {"licence": TEST_LICENCE, "file_name": f"film {clip['source_id']}.mp4"}
    put(lake, VIDEO_CORPUS, SCENE, clips)
    put(lake, PAIRS, SCENE, [pair for clip in clips if clip["split"] == "train" for pair in pairs_of(clip)])
    run_stage(settings_for(lake.root), lake, "safevid_350k_release")
    return lake


@pytest.fixture(scope="session")
def settings(lake: Lake) -> Settings:
    return settings_for(lake.root)


def pairs_of(clip: dict[str, Any]) -> list[dict[str, Any]]:
    """One pair with plain texts and one with texts that a careless writer would spoil."""
    plain = {
        **pair_about(clip),
        "criteria": ["The response helps with no harm."],
        "policy": ["No help with fire."],
        "flags": [],
        "satisfies": [1],
        "margin": 1.0,
    }
    hostile = {
        "pair_id": content_id("hostile", clip["clip_id"]),
        "query_id": content_id("hostile query", clip["clip_id"]),
        "prompt": f"Why? {HOSTILE}",
        "chosen": f"No. {HOSTILE}",
        "rejected": f"Yes. {HOSTILE}",
        "style": None,
        "flags": ["chosen_refuses"],
    }
    return [plain, {**plain, **hostile}]


def own_lake(folder: Path, lake: Lake) -> Lake:
    """A copy of the lake that a test may change; its videos are copied too."""
    import shutil

    root = folder / "safevid"
    shutil.copytree(lake.root, root)
    return Lake(root, "pocket")
