"""The same seed gives the same tables, whatever root they are written to."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import run_demo
from tests.end_to_end.test_demo import committed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# All stages, with fewer clips, one seed a policy, so that two runs take minutes.
SMALL = {
    "corpus": {"sources": [{"kind": "pocket", "clips_per_scene": 6, "twin_groups_per_scene": 2}]},
    "alignment": {"policies": {"pocket": {"seeds": [0]}}},
    "evaluation": {"max_items": 120, "modality_items": 10, "controls": ["always_refuse"]},
}


def test_two_roots_hold_the_same_rows(tmp_path: Path) -> None:
    settings = tmp_path / "small.yaml"
    settings.write_text(yaml.safe_dump(SMALL))
    hashes = []
    for name in ("one", "two"):
        run_demo(tmp_path / name, SAFEVID_SETTINGS=str(settings))
        hashes.append({table: content for table, (content, _) in committed(tmp_path / name).items()})
    differing = {table for table in hashes[0] if hashes[0][table] != hashes[1].get(table)}
    assert hashes[0].keys() == hashes[1].keys()
    assert not differing
