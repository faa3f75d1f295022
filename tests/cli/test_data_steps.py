"""The end of the demo exports, traces and withdraws, and leaves the lake as it was."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import pytest

from safevid_core.contracts.tables import PAIRS, RELEASE, VIDEO_CORPUS, WITHDRAWN
from safevid_core.datasets.exports import EXPORTS
from safevid_core.datasets.withdraw import withdraw
from safevid_core.models.ledger import Call, Ledger
from safevid_core.models.llm import Gateway
from safevid_core.pipeline import build_registry
from safevid_core.settings import Settings
from safevid_core.stages.stage import Tools
from safevid_core.storage.lake import Lake
from safevid_dagster.data_steps import copied_lake, data_steps
from tests.datasets.exports.conftest import pairs_of
from tests.evaluation.small_lake import build_lake, put, settings_for
from tests.stages import run_stage

KEY, TEXT = "chosen key", "a sentence about the clip"


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    lake = build_lake(tmp_path / "safevid", ["kitchen"], clips_per_scene=8, twin_groups=0)
    clips = lake.read(VIDEO_CORPUS, "kitchen").drop("profile").to_dicts()
    pairs = [
        {**pair, "chosen_request_key": KEY}
        for clip in clips
        if clip["split"] == "train"
        for pair in pairs_of(clip)[:1]
    ]
    put(lake, PAIRS, "kitchen", pairs)
    settings = settings_for(lake.root)
    run_stage(settings, lake, RELEASE.name)
    return tools_of(settings, lake)


def tools_of(settings: Settings, lake: Lake) -> Tools:
    with closing(Ledger(settings.ledger_url)) as ledger:
        ledger.store([Call(KEY, "scripted/responder", "1", PAIRS.name, "ok", text=TEXT)], run="r")
    return Tools(settings, lake, build_registry(settings), lambda: Gateway(settings))


def texts(settings: Settings) -> list[str | None]:
    with closing(Ledger(settings.ledger_url)) as ledger:
        return [ledger.answers([KEY])[KEY].text]


def files(root: Path) -> dict[str, str]:
    """Hash of each file but exports, locks and databases, whose bytes change when they are read."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
        and ".sqlite" not in path.name
        and path.parts[len(root.parts)] not in ("exports", "locks")
    }


def test_it_exports_traces_and_withdraws_and_the_lake_stays_as_it_is(tools: Tools) -> None:
    before = files(tools.lake.root)
    lines = list(data_steps(tools, again=True))
    release = tools.lake.read(RELEASE)["release"][0]
    below = tools.lake.root / "exports" / f"pairs-{release}"
    written = {path.name for path in below.iterdir() if path.is_dir() and any(path.iterdir())}
    assert written == set(EXPORTS) - {"webdataset"}
    text = "\n".join(lines)
    clip = tools.lake.read(RELEASE).sort("pair_id")["clip_id"][0]
    assert "  led to 1 safevid_350k_release" in text
    assert f"Clip {clip}, withdrawn from a copy of the lake (this lake keeps it):" in lines
    assert "  model calls without text: 0" in text or "  model calls without text: 1" in text
    assert "safevid_350k_release[all]" in next(line for line in lines if "sealed: " in line)
    after = files(tools.lake.root)
    assert before.items() <= after.items()
    assert all(name.startswith("cache/frames/") for name in after.keys() - before.keys()), "decoded for trl"
    assert not list(tools.lake.root.glob(".rehearsal-*"))
    assert tools.lake.read(WITHDRAWN).height == 0
    assert texts(tools.settings) == [TEXT]


def test_with_nothing_made_since_it_tells_what_it_told(tools: Tools) -> None:
    first = list(data_steps(tools, again=True))
    exports = {path: path.stat().st_mtime_ns for path in (tools.lake.root / "exports").rglob("*")}
    assert list(data_steps(tools, again=False)) == first[:-1], "but for the seconds that it took"
    assert {path: path.stat().st_mtime_ns for path in (tools.lake.root / "exports").rglob("*")} == exports


def test_without_a_pair_there_is_nothing_to_do(tmp_path: Path) -> None:
    settings, lake = settings_for(tmp_path), Lake(tmp_path, "pocket")
    (line,) = data_steps(tools_of(settings, lake), again=True)
    assert line == "There is no released pair: nothing to export, to trace or to withdraw."


def test_a_ledger_outside_the_root_is_not_touched(tools: Tools, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    models = tools.settings.models.model_copy(update={"ledger_url": url})
    shared = tools_of(tools.settings.model_copy(update={"models": models}), tools.lake)
    list(data_steps(shared, again=True))
    assert texts(shared.settings) == [TEXT]


def test_a_withdrawal_from_the_copy_is_a_whole_one(tools: Tools) -> None:
    clip = tools.lake.read(RELEASE).sort("pair_id")["clip_id"][0]
    with copied_lake(tools.settings) as copy:
        assert copy.lake.root != tools.lake.root
        report = withdraw(copy, clip, "a rehearsal")
        assert report["files_removed"]["media"] == 1
        assert report["releases"]
        assert clip not in copy.lake.read(VIDEO_CORPUS)["clip_id"].to_list()
    assert clip in tools.lake.read(VIDEO_CORPUS)["clip_id"].to_list()


def test_a_real_withdrawal_removes_the_exports(tools: Tools) -> None:
    list(data_steps(tools, again=True))
    withdraw(tools, tools.lake.read(RELEASE).sort("pair_id")["clip_id"][0], "the person asked for it")
    assert not (tools.lake.root / "exports").exists()
