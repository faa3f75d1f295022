"""Splits the corpus into train and benchmark. The side of a source video is decided once and never changes.

Two clips are *tied* if they share a source video, a file or a twin group, or are near-duplicates. A clip that
is tied to a decided clip gets the side of that clip. Clips that are tied to no decided clip get a side by the
hash of their group. A clip that is tied to both sides is set aside. So no clip moves from train to benchmark
or back. Example: clip 5 is a near-duplicate of clip 1 (train) and a twin of clip 2 (benchmark). Clip 5 is
set aside, and clips 1 and 2 keep their sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.outcomes import StageRows
from safevid_core.contracts.rows import rows_of
from safevid_core.contracts.tables import CLIP_MANIFEST, CORPUS_SPLIT, SCENE_ASSIGNMENTS
from safevid_core.corpus.decided import (
    DecidedSide,
    Key,
    Record,
    RecordedSide,
    TiedClip,
    adopted,
    append,
    decision_id,
    read_record,
)
from safevid_core.corpus.embeddings import stored_thumbnails, stored_vectors
from safevid_core.corpus.near_copies import (
    PIXEL_COSINE,
    connected_groups,
    copies_of,
    near_copy_pairs,
    pixel_vectors,
)
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import (
    Lake,
    LakeError,
    frame_hash,
    settings_hash,
)

# Clip -> the ids of decisions about missing or changed clips of which it is a near-duplicate.
Departed = Mapping[str, Iterable[str]]


def plan_corpus_split(tools: Tools, partition: str) -> Plan:
    """Plan to put every assigned clip on one side, with its source video, near-duplicates and twins.

    Raises:
        LakeError: If `scene_assignments` is of an earlier version.
    """
    lake, corpus = tools.lake, tools.settings.corpus
    clips, embedder = _clips(lake)

    def inputs() -> dict[str, str]:
        return {
            "clips": frame_hash(clips),
            "decided": read_record(lake).identity,
            "benchmark_fraction": settings_hash(corpus.benchmark_fraction),
            "near_copy": settings_hash(corpus.near_copy, embedder),
        }

    def make(clip_ids: Sequence[str]) -> StageRows:
        record, unseen, decided_now = read_record(lake), 0, 0
        while True:
            record = _with_what_was_there(lake, record)
            departed, lost = _copies_of_departed(lake, clips, record, embedder, corpus.near_copy)
            unseen = max(unseen, lost)  # no clips are compared once all clips are decided
            placed = place(clips, record.rows, corpus.benchmark_fraction, departed)
            if not placed.decisions:
                return _stage_rows(clips, record, placed, corpus.benchmark_fraction, unseen, decided_now)
            # Another run may have written first. The sides that count are those that are read back.
            if append(lake, record, placed.decisions):
                decided_now += len({each.clip.clip_id for each in placed.decisions})
            record = read_record(lake)

    # `make` appends to the record of sides, which is an input.
    return Plan(inputs(), clips["clip_id"].to_list(), make, inputs_after_make=inputs)


STAGE = Stage(
    CORPUS_SPLIT,
    "corpus",
    "The permanent side of each clip, train or benchmark, by source video, near-duplicate and twin group.",
    plan_corpus_split,
    reads=("clip_manifest", "scene_assignments"),
)


def side_of(group_id: str, benchmark_fraction: float) -> str:
    """The side of a group by a hash of its id: `benchmark` for a share `benchmark_fraction` of groups."""
    place = int(content_id("split", group_id, length=12), 16) / 16**12
    return "benchmark" if place < benchmark_fraction else "train"


class Decision(NamedTuple):
    """The side of a clip and of every clip that shares a key with it."""

    number: int
    clip_id: str
    source_id: str | None
    split: str
    group_id: str

    def __str__(self) -> str:
        return f"the {self.split} clip {self.clip_id} (source video {self.source_id})"


@dataclass
class Placed:
    """The result of :func:`place`.

    Attributes:
        sides: Clip -> its decision.
        aside: Clip -> why it is set aside.
        decisions: The decisions that are not in the record yet.
    """

    sides: dict[str, Decision] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    decisions: list[DecidedSide] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Clip(TiedClip):
    """An assigned clip, with the ids of its near-duplicates."""

    near_copies: list[str] | None


def place(
    clips: pl.DataFrame, decided: pl.DataFrame, benchmark_fraction: float, departed: Departed
) -> Placed:
    """Decide the side of each clip, given the earlier decisions.

    Args:
        clips: Columns `clip_id, source_id, media_sha256, start_s, end_s, twin_group, near_copies`.
        decided: The field `rows` of :class:`~safevid_core.corpus.decided.Record`.
        departed: Near-duplicates of decided clips that are missing from `clips` or changed in it.
    """
    return _Placing(clips, decided, departed).run(benchmark_fraction)


class _Placing:
    def __init__(self, clips: pl.DataFrame, decided: pl.DataFrame, departed: Departed) -> None:
        self._clips = {clip.clip_id: clip for clip in rows_of(clips.sort("clip_id"), _Clip)}
        self._departed = departed
        self._known: dict[Key, Decision] = {}
        self._by_id: dict[str, Decision] = {}
        for each in rows_of(decided, RecordedSide):
            decision = Decision(each.number, each.clip_id, each.source_id, each.split, each.group_id)
            self._by_id[each.decision_id] = decision
            for key in each.keys:
                self._known.setdefault(key, decision)
        # Decided clip that is set aside -> the two decisions that it ties.
        self._tied: dict[str, tuple[Decision, Decision]] = {}
        self._placed = Placed()

    def run(self, benchmark_fraction: float) -> Placed:
        old = {clip: self._known["clip", clip] for clip in self._clips if ("clip", clip) in self._known}
        # Clips that changed after their decision come last.
        changed = {clip for clip in old if decision_id(self._clips[clip]) not in self._by_id}
        for clip in sorted(old, key=lambda clip: (clip in changed, old[clip].number, clip)):
            self._keep(clip, old[clip])
        undecided = [clip for clip in self._clips if clip not in old]
        for group in self._groups(undecided):
            self._decide(group, benchmark_fraction)
        return self._placed

    def _keep(self, clip: str, mine: Decision) -> None:
        """Leave a decided clip on its side, or set it aside if it is tied to the other side."""
        row = self._clips[clip]
        earlier = [self._placed.sides.get(other) for other in row.near_copies or ()]
        gone = [self._by_id[each] for each in self._departed.get(clip, ())]
        others = [*(self._known.get(key) for key in row.keys), *earlier, *gone]
        against = next((each for each in others if each is not None and each.split != mine.split), None)
        if against is not None:
            self._tied[clip] = (mine, against)
            self._placed.aside[clip] = f"is on the side {mine.split} and is tied to {against}; set aside"
            return
        self._placed.sides[clip] = mine
        self._write_down(row, mine, f"as {mine}")

    def _groups(self, clips: list[str]) -> list[list[str]]:
        """Groups of clips that are tied to each other through keys without a decision."""
        undecided = set(clips)
        links: list[tuple[str, Key | str]] = []
        for clip in clips:
            row = self._clips[clip]
            links += [(clip, key) for key in row.keys if key not in self._known]
            links += [(clip, other) for other in row.near_copies or () if other in undecided]
        return connected_groups(clips, links)

    def _decide(self, group: list[str], benchmark_fraction: float) -> None:
        """Decide the side of a group: the side to which it is tied, or one by the hash of its id."""
        first: dict[str, Decision] = {}
        ties = (each for clip in group for each in self._ties(clip))
        for decision in sorted(ties, key=_when):
            first.setdefault(decision.split, decision)
        if len(first) > 1:
            one, other = sorted(first.values(), key=_when)
            reason = f"it, or a clip that it is tied to, ties {one} to {other}; set aside, both stay"
            self._placed.aside |= dict.fromkeys(group, reason)
            return
        fraction = None
        if first:
            (decision,) = first.values()
            why = f"as {decision}"
        else:
            # Every assigned clip has a source video.
            source = min(str(self._clips[clip].source_id) for clip in group)
            group_id = content_id("group", "a source", source)
            side, fraction = side_of(group_id, benchmark_fraction), benchmark_fraction
            decision = Decision(0, group[0], source, side, group_id)
            why = "by the hash of its group"
        for clip in group:
            row = self._clips[clip]
            mine = decision._replace(clip_id=clip, source_id=row.source_id)
            self._placed.sides[clip] = mine
            self._write_down(row, mine, why, fraction)

    def _ties(self, clip: str) -> Iterable[Decision]:
        row = self._clips[clip]
        yield from (self._known[key] for key in row.keys if key in self._known)
        for other in row.near_copies or ():
            if other in self._tied:
                yield from self._tied[other]
            elif ("clip", other) in self._known:
                yield self._known["clip", other]
        yield from (self._by_id[each] for each in self._departed.get(clip, ()))

    def _write_down(self, row: _Clip, mine: Decision, why: str, fraction: float | None = None) -> None:
        for key in row.keys:
            self._known.setdefault(key, mine)
        if decision_id(row) in self._by_id:
            return
        self._placed.decisions.append(DecidedSide(row, mine.group_id, mine.split, why, fraction))


def _when(decision: Decision) -> tuple[int, str]:
    return decision.number, decision.clip_id


def _clips(lake: Lake) -> tuple[pl.DataFrame, str | None]:
    """The assigned clips with the columns that tie them to others, and the embedder's identity."""
    assigned = lake.scan(SCENE_ASSIGNMENTS)
    if "near_copies" not in assigned.collect_schema().names():
        raise LakeError("scene_assignments is of an earlier version; materialise it again first")
    media = lake.scan(CLIP_MANIFEST).select("clip_id", "media_sha256", "start_s", "end_s")
    clips = (
        assigned.select("clip_id", "source_id", "twin_group", "near_copies", "embedder")
        .join(media, on="clip_id", how="left")
        .sort("clip_id")
        .collect()
    )
    embedder = clips["embedder"].drop_nulls().unique()
    return clips.drop("embedder"), (embedder[0] if len(embedder) else None)


def _with_what_was_there(lake: Lake, record: Record) -> Record:
    """The record. An empty record is first filled with the sides that the lake's tables imply."""
    if record.last == 0:
        rows = adopted(lake)
        if rows:
            append(lake, record, rows)
            return read_record(lake)
    return record


def _copies_of_departed(
    lake: Lake, clips: pl.DataFrame, record: Record, embedder: str | None, min_cosine: float
) -> tuple[dict[str, list[str]], int]:
    """Find new and changed clips that are near-duplicates of decided clips that are missing or changed.

    The decided clips are compared by their stored embeddings and thumbnails.

    Returns:
        Clip -> ids of decisions, and the number of decided clips without stored thumbnails.
    """
    seen_as = pl.Series("seen_as", [decision_id(clip) for clip in rows_of(clips, TiedClip)], pl.String)
    new = clips.filter(~seen_as.is_in(record.rows["decision_id"].implode()))
    gone = record.rows.filter(~pl.col("decision_id").is_in(seen_as.implode()))
    if new.is_empty() or gone.is_empty() or embedder is None:
        return {}, 0
    gone = gone.rename({"clip_id": "clip", "decision_id": "clip_id"})
    olds, news = (stored_vectors(lake, embedder, each) for each in (gone, new))
    found: dict[str, list[str]] = defaultdict(list)
    if olds and news:
        names, vectors = [*news, *olds], [*news.values(), *olds.values()]
        embeddings = np.stack([each.embedding for each in vectors])
        thumbnails = np.stack([each.thumbnails for each in vectors])
        for i, j in near_copy_pairs(embeddings, thumbnails, min_cosine, between=len(news)):
            found[names[i]].append(names[j])
    # Clips that only another embedder has embedded are compared by their thumbnails.
    others = stored_thumbnails(lake, gone.filter(~pl.col("clip_id").is_in(list(olds))))
    frames = next(iter(news.values())).thumbnails.shape if news else None
    others = {clip: each for clip, each in others.items() if each.shape == frames}
    if others:
        names = [*news, *others]
        thumbnails = np.stack([*(each.thumbnails for each in news.values()), *others.values()])
        pairs = near_copy_pairs(pixel_vectors(thumbnails), thumbnails, PIXEL_COSINE, between=len(news))
        for i, j in pairs:
            found[names[i]].append(names[j])
    seen = gone.filter(pl.col("clip_id").is_in([*olds, *others]))["clip"].n_unique()
    return found, gone["clip"].n_unique() - seen


def _stage_rows(
    clips: pl.DataFrame,
    record: Record,
    placed: Placed,
    benchmark_fraction: float,
    unseen: int,
    decided_now: int,
) -> StageRows:
    order = dict(record.rows.select("clip_id", "number").rows()[::-1])
    number_of = {clip: place for place, clip in enumerate(placed.sides)}
    pairs = (
        (number_of[clip], number_of[other])
        for clip, others in clips.select("clip_id", "near_copies").iter_rows()
        if clip in number_of
        for other in others or ()
        if other in number_of
    )
    twins = dict(clips.select("clip_id", "twin_group").iter_rows())
    copies = copies_of(list(placed.sides), pairs, twins, order)
    rows = [
        {
            "clip_id": clip,
            "source_id": side.source_id,
            "group_id": side.group_id,
            "split": side.split,
            "near_copy_of": copies.get(clip),
        }
        for clip, side in placed.sides.items()
    ]
    outcomes = [
        (clip, "filtered", placed.aside[clip]) if clip in placed.aside else (clip, "ok", "")
        for clip in clips["clip_id"]
    ]
    info: dict[str, Any] = {
        "groups": len({side.group_id for side in placed.sides.values()}),
        "decided_now": decided_now,
        "set_aside": len(placed.aside),
        "warnings": _warnings(record, benchmark_fraction, unseen),
    }
    return StageRows(CORPUS_SPLIT.frame(rows), outcomes, info)  # type: ignore[arg-type]


def _warnings(record: Record, benchmark_fraction: float, unseen: int) -> list[str]:
    found = []
    others = record.rows.filter(pl.col("benchmark_fraction") != benchmark_fraction)
    if others.height:
        fractions = ", ".join(f"{each:g}" for each in others["benchmark_fraction"].unique().sort())
        found.append(
            f"corpus.benchmark_fraction is {benchmark_fraction:g}; {others['source_id'].n_unique()} source "
            f"videos were decided at {fractions} and keep their sides; it applies to new videos only"
        )
    if unseen:
        found.append(
            f"{unseen} decided clips are missing from the corpus and have no stored embeddings; new clips "
            "were compared with them by source video, file and twin group only"
        )
    return found
