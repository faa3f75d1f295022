"""The side of a source video is decided once: whatever is added, copied, bridged, cut out or brought back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.rows import ClipSpan, rows_of
from safevid_core.contracts.tables import (
    BENCHMARK_RELEASES,
    CLIP_MANIFEST,
    CORPUS_SPLIT,
    DECIDED_SIDES,
    PAIRS,
    SCENE_ASSIGNMENTS,
)
from safevid_core.corpus import decided, split
from safevid_core.corpus.decided import read_record
from safevid_core.corpus.embeddings import ClipVector, _file_of, _packed
from safevid_core.corpus.near_copies import PIXEL_COSINE, near_copy_pairs, pixel_vectors
from safevid_core.corpus.split import side_of
from safevid_core.settings import Settings, load_settings
from safevid_core.storage.lake import Lake, LakeError, audit_partition, write_atomically
from tests.stages import run_stage

EMBEDDER = "an embedder"


@dataclass(frozen=True)
class Clip:
    """A clip whose pictures are one grey: two show the same where their greys differ by at most 9."""

    name: str
    source: str
    grey: int
    media: str = ""
    twins: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        return {
            "clip_id": self.name,
            "source_id": self.source,
            "media_sha256": self.media or f"bytes of {self.name}",
            "start_s": 0.0,
            "end_s": 2.0,
            "twin_group": self.twins,
        }


def vector(grey: int) -> ClipVector:
    return ClipVector(np.ones(1, np.float32), np.full((1, 32, 32, 3), grey, np.uint8))


def put(lake: Lake, clips: Sequence[Clip]) -> None:
    """The tables that the split is made from, and the pictures of the clips in the store."""
    for clip in clips:
        span = ClipSpan(clip.row["media_sha256"], 0.0, 2.0, clip.name)
        write_atomically(_file_of(lake, EMBEDDER, span), _packed(vector(clip.grey)))
    near: dict[str, list[str]] = {clip.name: [] for clip in clips}
    if clips:
        thumbnails = np.stack([vector(clip.grey).thumbnails for clip in clips])
        for i, j in near_copy_pairs(np.ones((len(clips), 1)), thumbnails, 0.9):
            near[clips[i].name].append(clips[j].name)
            near[clips[j].name].append(clips[i].name)
    assigned = [
        {name: clip.row[name] for name in ("clip_id", "source_id", "twin_group")}
        | {"near_copies": near[clip.name], "embedder": EMBEDDER, "scene": "park", "embedding": [1.0]}
        for clip in clips
    ]
    for table, rows in (
        (CLIP_MANIFEST, [clip.row | {"source_row": clip.name} for clip in clips]),
        (SCENE_ASSIGNMENTS, assigned),
    ):
        stage = StageRows(table.frame(rows), [(clip.name, "ok", "") for clip in clips])
        lake.commit(table, "all", stage, "made for a test", {})


def settings_with(lake: Lake, fraction: float = 0.5) -> Settings:
    return load_settings(
        "pocket", overrides={"root": str(lake.root), "corpus": {"benchmark_fraction": fraction}}
    )


def divide(lake: Lake, *clips: Clip, fraction: float = 0.5) -> dict[str, str]:
    """Clip -> its side, or `aside`."""
    put(lake, clips)
    run_stage(settings_with(lake, fraction), lake, "corpus_split")
    audit_partition(lake, CORPUS_SPLIT, "all")
    sides = dict(lake.read(CORPUS_SPLIT).select("clip_id", "split").iter_rows())
    outcomes = lake.outcomes(CORPUS_SPLIT.name)
    assert sorted(outcomes["input_id"]) == sorted(clip.name for clip in clips)
    aside = outcomes.filter(outcome="filtered")["input_id"].to_list()
    assert not set(sides) & set(aside)
    return sides | dict.fromkeys(aside, "aside")


def source_of(side: str, number: int = 0) -> str:
    """A source video that the hash puts on a side."""
    names = (f"source {i}" for i in range(1000))
    fitting = [n for n in names if side_of(content_id("group", "a source", n), 0.5) == side]
    return fitting[number]


TRAIN, BENCHMARK = source_of("train"), source_of("benchmark")
A, B = Clip("a", TRAIN, 40), Clip("b", BENCHMARK, 52)
SIDES = {"a": "train", "b": "benchmark"}
BRIDGES = [
    Clip("0 by pictures", "0", 46),
    Clip("0 by source and file", TRAIN, 200, media="bytes of b"),
    Clip("0 by source and pictures", BENCHMARK, 33),
    Clip("0 by file and pictures", "0", 60, media="bytes of a"),
]


def reasons(lake: Lake) -> list[str]:
    return lake.outcomes(CORPUS_SPLIT.name).filter(outcome="filtered")["reason"].to_list()


@pytest.mark.parametrize("bridge", BRIDGES, ids=lambda clip: clip.name)
def test_a_clip_that_ties_the_sides_is_set_aside_and_nothing_moves(lake: Lake, bridge: Clip) -> None:
    assert divide(lake, A, B) == SIDES
    assert divide(lake, A, B, bridge) == SIDES | {bridge.name: "aside"}
    (reason,) = reasons(lake)
    assert f"train clip a (source video {TRAIN})" in reason
    assert f"benchmark clip b (source video {BENCHMARK})" in reason
    run_stage(settings_with(lake), lake, "video_corpus", "park")
    outcomes = {row["input_id"]: row for row in lake.outcomes("video_corpus").iter_rows(named=True)}
    assert outcomes["a"]["outcome"] == outcomes["b"]["outcome"] == "ok", "neither is taken for a copy"
    assert outcomes[bridge.name]["outcome"] == "filtered"
    assert outcomes[bridge.name]["reason"] == reason
    assert divide(lake, A, B) == SIDES
    assert divide(lake, B, bridge)["b"] == "benchmark"


def test_a_twin_group_with_a_member_on_each_side_keeps_the_first(lake: Lake) -> None:
    assert divide(lake, A, replace(B, twins="t")) == SIDES
    new = Clip("c", TRAIN, 200, twins="t")
    assert divide(lake, A, replace(B, twins="t"), new) == SIDES | {"c": "aside"}
    edited = replace(A, twins="t")
    assert divide(lake, edited, replace(B, twins="t")) == SIDES | {"a": "aside"}
    assert divide(lake, A, replace(B, twins="t")) == SIDES, "its side was kept"


@pytest.mark.parametrize("fresh", ["0", "~"], ids=["sorts first", "sorts last"])
@pytest.mark.parametrize("old", [A, B], ids=["train", "benchmark"])
def test_what_is_tied_to_a_side_takes_it_also_after_the_other_is_gone(
    lake: Lake, old: Clip, fresh: str
) -> None:
    """Re-uploads, identical files under other names, twins, other spans; whatever their names hash to."""
    side = divide(lake, A, B)[old.name]
    for gone in (False, True):
        others = [clip for clip in (A, B) if clip != old or not gone]
        for number in range(2):
            name = f"{fresh}{gone}{number}"
            grey = old.grey + (-3 if old is A else 3)
            for clip in (
                Clip(f"{name} re-upload", f"{name} other", grey),
                Clip(f"{name} span", old.source, 250 - 10 * number),
                Clip(f"{name} file", f"{name} another", 200 - 10 * number, media=old.row["media_sha256"]),
            ):
                assert divide(lake, *others, clip)[clip.name] == side, clip
    assert divide(lake, A, B) == SIDES


def test_a_clip_that_comes_back_changed_comes_back_to_its_side(lake: Lake) -> None:
    divide(lake, A, B)
    divide(lake)
    assert lake.read(CORPUS_SPLIT).is_empty()
    again = replace(A, media="other bytes", grey=120)
    assert divide(lake, again, fraction=0.99) == {"a": "train"}
    copy = Clip("0", "nobody's", 122)
    assert divide(lake, copy, fraction=0.99) == {"0": "train"}
    assert divide(lake, Clip("1", "nobody's own", 39), fraction=0.99) == {"1": "train"}


def test_a_clip_whose_file_now_shows_the_other_side_is_set_aside(lake: Lake) -> None:
    assert divide(lake, A, B) == SIDES
    changed = replace(A, media="other bytes", grey=46)
    assert divide(lake, changed, B) == SIDES | {"a": "aside"}, "what was not changed stays"
    assert divide(lake, changed) == {"a": "aside"}, "also where the other is gone"
    copy = Clip("0", "0", 37)
    assert divide(lake, replace(A, twins="t"), replace(B, twins="t"), copy) == {
        "a": "train", "b": "aside", "0": "train",
    }  # fmt: skip
    assert divide(lake, A, B, copy) == SIDES | {"0": "train"}


def test_a_copy_of_what_is_set_aside_is_set_aside_too(lake: Lake) -> None:
    divide(lake, A, replace(B, twins="t"))
    tied = replace(A, twins="t")
    assert divide(lake, tied, replace(B, twins="t"), Clip("0", "0", 35)) == SIDES | {
        "a": "aside",
        "0": "aside",
    }
    assert divide(lake, A, replace(B, twins="t"), Clip("0", "0", 35)) == SIDES | {"0": "train"}


def test_a_re_upload_of_what_another_embedder_saw_takes_its_side(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(lake, A, B)
    monkeypatch.setattr("tests.corpus.test_split_record.EMBEDDER", "another embedder")
    copies = [Clip(f"{i}", f"{i}", grey) for i, grey in enumerate([36, 56, 32, 60])]
    sides = divide(lake, *copies)
    assert [sides[copy.name] for copy in copies] == ["train", "benchmark"] * 2
    shutil.rmtree(lake.root / "blobs" / "embeddings")
    divide(lake, Clip("9", "9", 200))
    manifest = lake.manifest(CORPUS_SPLIT.name)
    assert manifest is not None
    assert "6 decided clips are missing from the corpus" in manifest.info["warnings"][0]


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(0, 255))
def test_near_copies_are_never_beyond_the_bound_of_their_pictures(seed: int, share: float, grey: int) -> None:
    random = np.random.default_rng(seed)
    one = random.integers(0, grey + 1, (2, 32, 32, 3)).astype(np.uint8)
    change = random.choice([0, 42], p=[1 - share, share], size=(2, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    other = np.clip(one.astype(int) + change * random.choice([-1, 1]), 0, 255).astype(np.uint8)
    pair = np.stack([one, other])
    if near_copy_pairs(np.ones((2, 1)), pair, 0.9):
        cosine = float(np.prod(pixel_vectors(pair), axis=0).sum())
        assert cosine >= PIXEL_COSINE - 1e-6
        assert near_copy_pairs(pixel_vectors(pair), pair, PIXEL_COSINE - 1e-6) == [(0, 1)]


def test_a_change_of_the_fraction_is_for_new_sources_and_says_so(lake: Lake) -> None:
    clips = [Clip(f"c{i}", f"s{i}", 10 * i) for i in range(20)]
    before = divide(lake, *clips[:10], fraction=0.2)
    after = divide(lake, *clips, fraction=0.999)
    assert before.items() <= after.items()
    assert "train" in before.values()
    assert {after[clip.name] for clip in clips[10:]} == {"benchmark"}
    manifest = lake.manifest(CORPUS_SPLIT.name)
    assert manifest is not None
    (warning,) = manifest.info["warnings"]
    assert "benchmark_fraction is 0.999; 10 source videos were decided at 0.2" in warning
    assert not run_stage(settings_with(lake, 0.999), lake, "corpus_split").computed


def test_the_first_of_its_copies_stands_for_them_whatever_is_added(lake: Lake) -> None:
    divide(lake, A, B)
    divide(lake, A, B, Clip("0", "0", 36))
    copies = dict(lake.read(CORPUS_SPLIT).select("clip_id", "near_copy_of").iter_rows())
    assert copies == {"0": "a", "a": None, "b": None}


def test_a_lake_from_before_keeps_the_sides_of_its_table(lake: Lake) -> None:
    """Also of clips that are gone: those with pairs are train, those of a release benchmark."""
    other = {"train": "benchmark", "benchmark": "train"}
    put(lake, [A, B])
    old = [
        {"clip_id": clip.name, "source_id": clip.source, "group_id": clip.name, "split": other[side]}
        for clip, side in ((A, "train"), (B, "benchmark"))
    ]
    schema = pl.Schema(dict.fromkeys(("clip_id", "source_id", "group_id", "split"), pl.String))
    before = replace(CORPUS_SPLIT, schema=schema)
    lake.commit(before, "all", StageRows(before.frame(old), [(x["clip_id"], "ok", "") for x in old]), "", {})
    gone = [Clip("trained", BENCHMARK + " of old", 150), Clip("asked", "s", 180)]
    for table, partition, clip in ((PAIRS, "park", gone[0]), (BENCHMARK_RELEASES, "x@1", gone[1])):
        row = {name: value for name, value in clip.row.items() if name in table.schema}
        row |= {table.key: clip.name, table.parent or "": clip.name}
        lake.commit(table, partition, StageRows(table.frame([row]), [(clip.name, "ok", "")]), "", {})
        span = ClipSpan(clip.row["media_sha256"], 0.0, 2.0, clip.name)
        write_atomically(_file_of(lake, EMBEDDER, span), _packed(vector(clip.grey)))
    new = [replace(gone[0], grey=151), gone[1], Clip("copy", BENCHMARK, 181), Clip("n", TRAIN, 250)]
    copies = [Clip(f"{i} re-upload", f"{i}", 150) for i in range(3)]
    assert divide(lake, A, B, *new, *copies) == {
        "a": "benchmark", "b": "train", "trained": "train", "asked": "benchmark", "copy": "aside",
        "n": "benchmark", **{clip.name: "train" for clip in copies},
    }  # fmt: skip


def test_two_runs_at_once_decide_alike(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each knows a source video of its own and clips that tie it to the other's."""
    left = [Clip("a", TRAIN, 40), Clip("c", "c", 46)]
    right = [Clip("b", BENCHMARK, 52), Clip("c", "c", 46)]
    other = Lake(lake.root / "other", "pocket")
    put(lake, left)
    put(other, right)
    both = threading.Barrier(2)
    append = decided.append

    def at_once(lake_: Lake, record: decided.Record, rows: Any) -> bool:
        if record.last == 0:
            both.wait(20)
        return append(lake_, record, rows)

    monkeypatch.setattr(split, "append", at_once)
    shutil.rmtree(other.folder(DECIDED_SIDES.name).parent, ignore_errors=True)
    other.folder(DECIDED_SIDES.name).parent.symlink_to(lake.folder(DECIDED_SIDES.name).parent)
    lake.folder(DECIDED_SIDES.name).parent.mkdir(parents=True)
    runs = [
        threading.Thread(target=run_stage, args=(settings_with(each), each, "corpus_split"))
        for each in (lake, other)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
    assert len(read_record(lake).rows.filter(clip_id="c")) == 1
    found = [dict(each.read(CORPUS_SPLIT).select("clip_id", "split").iter_rows()) for each in (lake, other)]
    sides = {c: s for each in found for c, s in each.items()}
    assert all(sides[clip] == side for each in found for clip, side in each.items())
    put(lake, [*left, right[0]])
    run_stage(settings_with(lake), lake, "corpus_split")
    after = dict(lake.read(CORPUS_SPLIT).select("clip_id", "split").iter_rows())
    assert after.items() <= sides.items()
    assert after["a"] == sides["a"]


def test_a_run_that_dies_between_record_and_table_changes_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, [A, B])
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_stage(settings_with(lake), lake, "corpus_split")
    assert lake.manifest(CORPUS_SPLIT.name) is None
    record = read_record(lake)
    assert divide(lake, A, B, fraction=0.001) == SIDES
    assert read_record(lake).identity == record.identity


def test_of_many_that_write_a_number_at_once_one_does(lake: Lake) -> None:
    start, done = threading.Barrier(8), []

    def write(writer: int) -> None:
        stage = StageRows(CORPUS_SPLIT.frame([]), [], {"writer": writer})
        start.wait(20)
        done.append(lake.commit_once(CORPUS_SPLIT, "000001", stage, {}))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (first,) = (manifest for manifest in done if manifest is not None)
    assert lake.manifest(CORPUS_SPLIT.name, "000001") == first
    audit_partition(lake, CORPUS_SPLIT, "000001")


def test_a_number_of_the_record_is_written_once(lake: Lake) -> None:
    stage = StageRows(CORPUS_SPLIT.frame([]), [])
    assert lake.commit_once(CORPUS_SPLIT, "000001", stage, {}) is not None
    before = sorted(path.name for path in lake.folder(CORPUS_SPLIT.name, "000001").iterdir())
    assert lake.commit_once(CORPUS_SPLIT, "000001", stage, {}) is None
    assert sorted(path.name for path in lake.folder(CORPUS_SPLIT.name, "000001").iterdir()) == before
    assert lake.partitions(CORPUS_SPLIT.name) == ["000001"]
    assert not list(lake.root.rglob(".new-*"))


def test_a_folder_in_the_way_of_the_record_is_named(lake: Lake) -> None:
    divide(lake, A)
    (lake.folder(DECIDED_SIDES.name, "000002") / "x").mkdir(parents=True)
    with pytest.raises(LakeError, match="000002 has no manifest; move it away"):
        divide(lake, A, B)
    shutil.rmtree(lake.folder(DECIDED_SIDES.name, "000002"))
    assert divide(lake, A, B) == SIDES


def test_tables_of_an_earlier_version_are_named(lake: Lake) -> None:
    put(lake, [A])
    columns = [name for name in SCENE_ASSIGNMENTS.schema if name != "near_copies"]
    old = replace(SCENE_ASSIGNMENTS, schema=lake.read(SCENE_ASSIGNMENTS).select(columns).schema)
    lake.commit(old, "all", StageRows(lake.read(SCENE_ASSIGNMENTS).select(columns), []), "", {})
    with pytest.raises(LakeError, match="scene_assignments is of an earlier version; materialise it again"):
        run_stage(settings_with(lake), lake, "corpus_split")


def test_many_clips_are_divided_in_seconds() -> None:
    """Long chains of ties too: what grows is the time, not its square."""
    count = 20_000
    clips = pl.DataFrame(
        [
            Clip(f"{i:06d}", f"s{i // 3}", 0, twins=f"t{i // 2000}").row
            | {"near_copies": [f"{i + 1:06d}"] if i % 500 else []}
            for i in range(count)
        ]
    )
    placed = split.place(clips, pl.DataFrame(schema=RECORD), 0.5, {})
    assert len(placed.sides) == count
    assert len({side.group_id for side in placed.sides.values()}) <= 10


COLUMNS = ("clip_id", "source_id", "media_sha256", "start_s", "end_s", "twin_group")
CLIPS = {
    **{name: DECIDED_SIDES.schema[name] for name in COLUMNS},
    "near_copies": pl.List(pl.String),
}
RECORD = {**DECIDED_SIDES.schema, "number": pl.Int64}


class Corpus(RuleBasedStateMachine):
    """Sources that change between runs; each rule changes them, and every run is held to the history."""

    names: Bundle[str] = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.present: dict[str, Clip] = {}
        self.gone: dict[str, Clip] = {}
        self.count = 0
        self.fraction = 0.5
        self.record: list[dict[str, Any]] = []
        self.grey_of: dict[str, int] = {}  # of what a decision was about
        self.history: dict[Clip, str] = {}
        self.sides: dict[str, str] = {}

    def add(self, **values: Any) -> str:
        self.count += 1
        # Half of the names sort before all others.
        name = f"{'ab'[self.count % 2]}{100 - self.count if self.count % 2 else self.count:03d}"
        clip = Clip(name, **{"source": f"of {name}", **values})
        self.present[name] = clip
        return name

    @rule(target=names, grey=st.integers(0, 20), source=st.integers(0, 5), twins=st.integers(0, 5))
    def a_new_clip(self, grey: int, source: int, twins: int) -> str:
        values = {"source": f"shared {source}"} if source < 3 else {}
        return self.add(grey=grey * 7, twins=f"t{twins}" if twins < 2 else None, **values)

    @rule(target=names, of=names, change=st.integers(-9, 9))
    def a_re_upload(self, of: str, change: int) -> str:
        old = self.present.get(of) or self.gone[of]
        return self.add(grey=min(255, max(0, old.grey + change)))

    @rule(target=names, of=names)
    def the_same_file_from_elsewhere(self, of: str) -> str:
        old = self.present.get(of) or self.gone[of]
        return self.add(grey=old.grey, media=old.row["media_sha256"])

    @rule(target=names, one=names, other=names)
    def a_bridge(self, one: str, other: str) -> str:
        old, new = (self.present.get(name) or self.gone[name] for name in (one, other))
        return self.add(grey=old.grey, source=new.source)

    @rule(of=names)
    def deleted(self, of: str) -> None:
        assume(of in self.present)
        self.gone[of] = self.present.pop(of)

    @rule(of=names)
    def back(self, of: str) -> None:
        assume(of in self.gone)
        self.present[of] = self.gone.pop(of)

    @rule(of=names, change=st.integers(-9, 9))
    def encoded_again(self, of: str, change: int) -> None:
        assume(of in self.present)
        self.count += 1
        old = self.present[of]
        grey = min(255, max(0, old.grey + change))
        self.present[of] = replace(old, media=f"again {self.count}", grey=grey)

    @rule(of=names, twins=st.integers(0, 2))
    def twinned(self, of: str, twins: int) -> None:
        assume(of in self.present)
        self.present[of] = replace(self.present[of], twins=f"t{twins}" if twins else None)

    @rule(fraction=st.sampled_from([0.1, 0.5, 0.9]))
    def another_fraction(self, fraction: float) -> None:
        self.fraction = fraction

    def divided(self) -> dict[str, str]:
        """Clip -> its side, or `aside`; as the stage does, but for the lake."""
        greys = {name: clip.grey for name, clip in self.present.items()}
        rows = []
        for clip in self.present.values():
            near = [name for name, grey in greys.items() if abs(grey - clip.grey) <= 9 and name != clip.name]
            rows.append(clip.row | {"near_copies": near})
        clips = pl.DataFrame(rows, CLIPS)
        number = max((row["number"] for row in self.record), default=0) + 1
        while True:
            placed = split.place(clips, pl.DataFrame(self.record, RECORD), self.fraction, self.departed(rows))
            if not placed.decisions:
                break
            for each in placed.decisions:
                self.grey_of[decided.decision_id(each.clip)] = greys[each.clip.clip_id]
                self.record.append(each.row("") | {"number": number})
            number += 1
        assert not placed.sides.keys() & placed.aside.keys()
        return {name: side.split for name, side in placed.sides.items()} | dict.fromkeys(
            placed.aside, "aside"
        )

    def departed(self, rows: list[dict[str, Any]]) -> dict[str, list[str]]:
        known = {row["decision_id"] for row in self.record}
        clips = rows_of(pl.DataFrame(rows, CLIPS), decided.TiedClip)
        seen_as = {decided.decision_id(clip): self.present[clip.clip_id] for clip in clips}
        return {
            clip.name: [each for each in known - seen_as.keys() if abs(self.grey_of[each] - clip.grey) <= 9]
            for key, clip in seen_as.items()
            if key not in known
        }

    @invariant()
    def nothing_moves_and_nothing_meets(self) -> None:
        sides = self.divided()
        assert sides.keys() == self.present.keys()
        for name, side in sides.items():
            clip = self.present[name]
            if side != "aside":
                assert self.sides.setdefault(clip.source, side) == side
                assert self.sides.setdefault(f"clip {name}", side) == side
                self.history[clip] = side
        for old, side in self.history.items():
            for name, now in sides.items():
                if now != "aside" and tied(old, self.present[name]):
                    assert now == side, (old, self.present[name])


def tied(one: Clip, other: Clip) -> bool:
    """By what both are at once, whenever that was."""
    return (
        one.source == other.source
        or one.row["media_sha256"] == other.row["media_sha256"]
        or (one.twins is not None and one.twins == other.twins)
        or abs(one.grey - other.grey) <= 9
    )


TestCorpus = Corpus.TestCase
TestCorpus.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
