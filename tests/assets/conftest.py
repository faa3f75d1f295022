"""Assets materialised in process over a small lake, with a hosted teacher on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from safevid_core.storage.lake import Lake
from safevid_core.taxonomy.taxonomy import load_scenes
from tests.descriptions.candidates import BALL, CRATE, DESCRIBERS, commit_candidates, commit_corpus
from tests.models.chat_server import ChatServer, says
from tests.stages import commit_empty

DESCRIBED = says('{"description": "A crate moves.", "claims": [{"text": "A crate moves."}]}')
TEACHER = "openai/loopback"
PLANTED = "sk-planted-0123456789abcdef"

Materialise = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two scenes of two described clips each; their descriptions are still to be reconciled."""
    lake, scenes = Lake(tmp_path, "pocket"), ("kitchen", "bathroom")
    commit_empty(lake, ["video_corpus"], [scene for scene in load_scenes().ids if scene not in scenes])
    for scene in scenes:
        clips = {f"{scene}-a": f"{CRATE} A {scene}.", f"{scene}-b": f"{BALL} A {scene}."}
        commit_corpus(lake, tuple(clips), scene)
        for describer in DESCRIBERS:
            commit_candidates(lake, describer, clips, scene)
        commit_empty(lake, ["signal_descriptions"], [scene])
    return lake


@pytest.fixture
def environment(
    server: ChatServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[pytest.MonkeyPatch]:
    """Settings by the environment, as a run has them, with a key that must show nowhere."""
    from safevid_dagster.defs.resources import shared_gateway

    given = {
        "ROOT": str(tmp_path),
        "MODELS__MAX_ATTEMPTS": "1",
        "MODELS__CONCURRENCY": "1",
        "DESCRIPTIONS__RECONCILER__MODEL": TEACHER,
        "DESCRIPTIONS__RECONCILER__API_BASE": server.url,
        "DESCRIPTIONS__RECONCILER__API_KEY_ENV": "LOOPBACK_API_KEY",
        "QUERIES__ASKER__MODEL": TEACHER,
        "QUERIES__ASKER__FAMILY": "loopback",
        "QUERIES__ASKER__API_BASE": server.url,
    }
    for name, value in given.items():
        monkeypatch.setenv(f"SAFEVID_{name}", value)
    monkeypatch.setenv("LOOPBACK_API_KEY", PLANTED)
    shared_gateway.cache_clear()
    yield monkeypatch
    shared_gateway.cache_clear()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose event log lies on disk, where a planted key can be looked for."""
    with dg.instance_for_test(temp_dir=str(_made(tmp_path / "dagster"))) as made:
        yield made


@pytest.fixture
def materialise(environment: pytest.MonkeyPatch, lake: Lake, instance: dg.DagsterInstance) -> Materialise:
    """Materialises one asset over some scenes in one run, as the launchpad does.

    Keyword `of` is the asset's own config, the others are the resource's.
    """
    from safevid_dagster.definitions import defs

    definitions = defs()

    def make(
        asset: str, *scenes: str, of: dict[str, object] | None = None, **config: object
    ) -> dg.ExecuteInProcessResult:
        tags = {}
        if scenes:
            tags = {
                "dagster/asset_partition_range_start": scenes[0],
                "dagster/asset_partition_range_end": scenes[-1],
            }
        return dg.materialize(
            list(definitions.assets or ()),
            selection=[asset],
            instance=instance,
            resources=definitions.resources,
            tags=tags,
            run_config={
                **({"resources": {"safevid": {"config": config}}} if config else {}),
                **({"ops": {asset: {"config": of}}} if of else {}),
            },
            raise_on_error=False,
        )

    return make


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
