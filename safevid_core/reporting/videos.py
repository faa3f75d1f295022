"""What was said about a person's own videos: one page by file name, and a table with a row a file.

A video is a person's own if it came from a folder or a manifest; rendered clips are not. The row says how far
the video came, what each describer and the reconciler said, and how many queries and pairs were made from it.
Where it stopped, the row names the asset and its reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from safevid_core.contracts.outcomes import Outcome, StageRows
from safevid_core.contracts.rows import ClipSpan, rows_of
from safevid_core.contracts.tables import (
    CLIP_MANIFEST,
    CORPUS_SPLIT,
    DESCRIPTIONS,
    PAIRS,
    SCENE_ASSIGNMENTS,
    SIGNAL_DESCRIPTIONS,
    TAXONOMY_QUERIES,
    VIDEO_CORPUS,
    VIDEO_REPORT,
    Table,
    candidate_table,
)
from safevid_core.corpus.names import ClipNames
from safevid_core.corpus.sources import BELOW
from safevid_core.reporting.pages import template_environment
from safevid_core.reporting.report import TEMPLATES
from safevid_core.reporting.samples import film_strip, shorten
from safevid_core.settings import Settings
from safevid_core.stages.stage import Plan, Stage, Tools
from safevid_core.storage.lake import (
    Lake,
    directory_hash,
    frame_hash,
    settings_hash,
)

REPORT = "videos.html"  # a report of the lake
# Videos on the page; the table has all.
MOST_VIDEOS = 200
_RENDERED = "pocket"


@dataclass(frozen=True, slots=True)
class ShownClip(ClipSpan):
    """A clip of the manifest, with what the page says of its file."""

    source_row: str
    duration_s: float
    width: int
    height: int
    codec: str


@dataclass(frozen=True, slots=True)
class ShownQuery:
    """A query about a video. `chosen` is the chosen response of its pair, None without a pair."""

    query: str
    subcategory: str
    style: str
    chosen: str | None


class End(NamedTuple):
    """The asset at which a video ended, and its outcome there. `ok`: the video has a description."""

    asset: str
    reason: str
    outcome: Outcome


_DESCRIBED = End("", "", "ok")
_NOT_YET = End(DESCRIPTIONS.name, "it is not described yet; materialise the assets up to it", "failed")


@dataclass(frozen=True)
class Video:
    """One of a person's videos.

    Attributes:
        file: Its name for people.
        clip: None if the file could not be used.
        said: (who, what) of every describer.
        dropped: (claim, why) of what the reconciler left out.
        pairs: Number of preference pairs about it.
    """

    source_row: str
    file: str
    end: End
    clip: ShownClip | None
    scene: str | None
    split: str | None
    text: str | None
    said: Sequence[tuple[str, str]]
    dropped: Sequence[tuple[str, str]]
    queries: Sequence[ShownQuery]
    pairs: int

    @property
    def outcome(self) -> tuple[str, Outcome, str]:
        """The outcome of its file or line."""
        if self.end.outcome == "ok":
            return self.source_row, "ok", ""
        return self.source_row, self.end.outcome, f"{self.end.asset}: {self.end.reason}"

    @property
    def row(self) -> dict[str, Any]:
        """The row of `video_report`."""
        return {
            "source_row": self.source_row,
            "clip_id": self.clip.clip_id if self.clip else None,
            "file": self.file,
            "scene": self.scene,
            "split": self.split,
            "text": self.text,
            "said": json.dumps(dict(self.said), ensure_ascii=False),
            "queries": len(self.queries),
            "pairs": self.pairs,
            "stopped_at": self.end.asset,
            "why": self.end.reason,
        }


def plan_video_report(tools: Tools, partition: str) -> Plan:
    """Plan `video_report` and `reports/videos.html`; one outcome for each of a person's files and lines."""
    settings, lake = tools.settings, tools.lake
    tables = _Tables(settings, lake)

    def make(source_rows: Sequence[str]) -> StageRows:
        videos = [tables.video(source_row) for source_row in tables.own]
        write_page(settings, lake, videos)
        described = [video.row for video in videos if video.end.outcome == "ok"]
        info = {"videos": len(videos), "described": len(described), "page": f"reports/{REPORT}"}
        return StageRows(VIDEO_REPORT.frame(described), [video.outcome for video in videos], info)

    def on_fresh() -> None:
        if not lake.has_report(REPORT):
            write_page(settings, lake, [tables.video(source_row) for source_row in tables.own])

    inputs = {
        **tables.hashes,
        "page": directory_hash(TEMPLATES),
        "describers": settings_hash(list(settings.descriptions.describers)),
    }
    return Plan(inputs, tables.own, make, on_fresh=on_fresh)


def stage(settings: Settings) -> Stage:
    """The stage `video_report`, which tells how far each video came."""
    reads = (
        CLIP_MANIFEST, SCENE_ASSIGNMENTS, CORPUS_SPLIT, VIDEO_CORPUS, SIGNAL_DESCRIPTIONS, DESCRIPTIONS,
        TAXONOMY_QUERIES, PAIRS,
    )  # fmt: skip
    return Stage(
        VIDEO_REPORT,
        "evaluation",
        "What was said about your own videos, by file name: a page, and a table with a row a file.",
        plan_video_report,
        reads=(*(table.name for table in reads), *settings.descriptions.candidate_tables),
        optional=frozenset({SCENE_ASSIGNMENTS.name, CORPUS_SPLIT.name}),
        writes=lambda settings: [settings.root / "reports" / REPORT],
    )


def write_page(settings: Settings, lake: Lake, videos: Sequence[Video]) -> None:
    """The page: at most `MOST_VIDEOS` videos by file name, those that stopped among them."""
    shown = sorted(videos, key=lambda video: (video.file, video.source_row))[:MOST_VIDEOS]
    films = [film_strip(video.clip, lake.media, lake.frames) if video.clip else None for video in shown]
    page = (
        template_environment(TEMPLATES)
        .get_template("videos.html.j2")
        .render(
            profile=settings.profile,
            videos=list(zip(shown, films, strict=True)),
            left_out=len(videos) - len(shown),
            by_pocket_models=settings.profile == _RENDERED,
            shorten=shorten,
        )
    )
    lake.write_report(REPORT, page.encode())


class _Tables:
    """The rows of every table that tell of a person's videos."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        manifest = lake.scan(CLIP_MANIFEST).filter(pl.col("origin") != _RENDERED).collect()
        self._clips = {clip.source_row: clip for clip in rows_of(manifest, ShownClip)}
        ids = manifest["clip_id"].to_list()
        self._names = ClipNames(lake, ids)
        line_of_rendered = f"{_RENDERED}{BELOW}"
        own = (
            lake.outcomes(CLIP_MANIFEST.name)
            .filter(~pl.col("input_id").str.starts_with(line_of_rendered))
            .sort("input_id")
        )
        self.own: list[str] = own["input_id"].to_list()
        ends = own.select("input_id", "reason", "outcome").iter_rows()
        self._ends = {source_row: End(CLIP_MANIFEST.name, *end) for source_row, *end in ends}
        witnesses = [(name, candidate_table(name)) for name in settings.descriptions.describers]
        self._said: dict[str, list[tuple[str, str]]] = {}
        frames = {"manifest": manifest, "read": own}
        for name, table in [*witnesses, ("signal", SIGNAL_DESCRIPTIONS)]:
            frames[name] = _of(lake, table, ids, ("clip_id", "text"))
            for clip_id, text in frames[name].iter_rows():
                self._said.setdefault(clip_id, []).append((name, text or ""))
        frames["scenes"] = _of(lake, SCENE_ASSIGNMENTS, ids, ("clip_id", "scene"))
        frames["corpus"] = _of(lake, VIDEO_CORPUS, ids, ("clip_id", "split"))
        frames["texts"] = _of(lake, DESCRIPTIONS, ids, ("clip_id", "text", "dropped"))
        wanted = ("clip_id", "query_id", "query", "explicit", "subcategory", "style")
        frames["queries"] = _of(lake, TAXONOMY_QUERIES, ids, wanted)
        frames["pairs"] = _of(lake, PAIRS, ids, ("clip_id", "query_id", "chosen"))
        self._frames = frames
        self._stops = dict(_stops(settings, lake, ids))
        self.hashes = {name: frame_hash(frame) for name, frame in frames.items()}
        self.hashes["stops"] = settings_hash(sorted(self._stops.items()))

    def video(self, source_row: str) -> Video:
        """The video of a file or of a line of a manifest."""
        clip = self._clips.get(source_row)
        if clip is None:
            name, end = source_row.partition(BELOW)[2], self._ends[source_row]
            return Video(source_row, name, end, None, None, None, None, [], [], [], 0)
        clip_id = clip.clip_id
        text = self._one("texts", clip_id, "text")
        dropped = json.loads(self._one("texts", clip_id, "dropped") or "[]")
        pairs = self._some("pairs", clip_id)
        chosen = dict(pairs.select("query_id", "chosen").iter_rows())
        queries = self._some("queries", clip_id).select("query_id", "query", "subcategory", "style")
        return Video(
            source_row=source_row,
            file=self._names(clip_id, clip.media_sha256),
            end=_DESCRIBED if text is not None else self._stops.get(clip_id, _NOT_YET),
            clip=clip,
            scene=self._one("scenes", clip_id, "scene"),
            split=self._one("corpus", clip_id, "split"),
            text=text,
            said=self._said.get(clip_id, ()),
            dropped=[(each["text"], each.get("why") or "") for each in dropped],
            queries=[
                ShownQuery(query, subcategory, style, chosen.get(query_id))
                for query_id, query, subcategory, style in queries.iter_rows()
            ],
            pairs=pairs.height,
        )

    def _some(self, name: str, clip_id: str) -> pl.DataFrame:
        return self._frames[name].filter(pl.col("clip_id") == clip_id)

    def _one(self, name: str, clip_id: str, column: str) -> Any:
        found = self._some(name, clip_id)
        return found[column][0] if found.height else None


def _of(lake: Lake, table: Table, ids: list[str], columns: tuple[str, ...]) -> pl.DataFrame:
    rows = lake.scan(table).filter(pl.col("clip_id").is_in(ids)).select(columns)
    return rows.sort(columns).collect()


def _stops(settings: Settings, lake: Lake, ids: list[str]) -> Iterator[tuple[str, End]]:
    """Clip id and its outcome at the first asset where it is not `ok`."""
    describers = [f"{name}_descriptions" for name in settings.descriptions.describers]
    assets = (SCENE_ASSIGNMENTS.name, VIDEO_CORPUS.name, *describers, DESCRIPTIONS.name)
    seen: set[str] = set()
    for asset in assets:
        ends = lake.outcomes(asset).filter(pl.col("input_id").is_in(ids), pl.col("outcome") != "ok")
        ends = ends.sort("input_id").select("input_id", "reason", "outcome")
        for clip_id, reason, outcome in ends.iter_rows():
            if clip_id not in seen:
                seen.add(clip_id)
                yield clip_id, End(asset, reason, outcome)
