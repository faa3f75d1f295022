"""What was said about a person's own videos: one page by file name, and a table with a row a file.

A video is a person's own if it came from a folder or a manifest; rendered clips are not. The row says how far
the video came, what each describer and the reconciler said, and how many queries and pairs were made from it.
Where it stopped, the row names the asset and its reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
_NOT_YET = (DESCRIPTIONS.name, "it is not described yet; materialise the assets up to it", "failed")


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
    """A query about a video. `chosen` is the chosen response of its pair, "" without a pair."""

    query: str
    subcategory: str
    style: str
    chosen: str


@dataclass(frozen=True, slots=True)
class VideoRow:
    """A row of `video_report`, with the outcome of the video.

    Attributes:
        text: The description. None if the video has none; `stopped_at` and `why` then say the reason.
        said: JSON of describer -> text. None if the file could not be used, as are the fields after it.
    """

    source_row: str
    file: str
    outcome: str
    stopped_at: str = ""
    why: str = ""
    clip_id: str | None = None
    scene: str | None = None
    split: str | None = None
    text: str | None = None
    said: str | None = None
    queries: int | None = None
    pairs: int | None = None


@dataclass(frozen=True)
class Video:
    """One of a person's videos on the page.

    Attributes:
        clip: None if the file could not be used.
        said: (who, what) of every describer.
        dropped: (claim, why) of what the reconciler left out.
    """

    row: VideoRow
    clip: ShownClip | None
    film: str | None
    said: list[tuple[str, str]]
    dropped: list[tuple[str, str]]
    queries: Sequence[ShownQuery]


def plan_video_report(tools: Tools, partition: str) -> Plan:
    """Plan `video_report` and `reports/videos.html`; one outcome for each of a person's files and lines."""
    settings, lake = tools.settings, tools.lake
    tables = _Tables(settings, lake)

    def make(source_rows: Sequence[str]) -> StageRows:
        rows = [tables.row(source_row) for source_row in tables.own]
        write_page(settings, lake, tables, rows)
        outcomes = [_outcome(row) for row in rows]
        described = [row for row, (_, outcome, _) in zip(rows, outcomes, strict=True) if outcome == "ok"]
        info = {"videos": len(rows), "described": len(described), "page": f"reports/{REPORT}"}
        return StageRows(VIDEO_REPORT.frame(map(_of_schema, described)), outcomes, info)

    def on_fresh() -> None:
        if not lake.has_report(REPORT):
            write_page(settings, lake, tables, [tables.row(source_row) for source_row in tables.own])

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


def write_page(settings: Settings, lake: Lake, tables: _Tables, rows: Sequence[VideoRow]) -> None:
    """The page: at most `MOST_VIDEOS` videos by file name, those that stopped among them."""
    shown = sorted(rows, key=lambda row: (row.file, row.source_row))[:MOST_VIDEOS]
    page = (
        template_environment(TEMPLATES)
        .get_template("videos.html.j2")
        .render(
            profile=settings.profile,
            videos=[tables.video(row) for row in shown],
            left_out=len(rows) - len(shown),
            by_pocket_models=settings.profile == _RENDERED,
        )
    )
    lake.write_report(REPORT, page.encode())


def _of_schema(row: VideoRow) -> dict[str, Any]:
    """The columns of `video_report`."""
    return {name: getattr(row, name) for name in VIDEO_REPORT.schema}


def _outcome(row: VideoRow) -> tuple[str, Outcome, str]:
    if row.text is not None:
        return row.source_row, "ok", ""
    outcome: Outcome = row.outcome if row.outcome in ("filtered", "undecidable") else "failed"  # type: ignore[assignment]
    return row.source_row, outcome, f"{row.stopped_at}: {row.why}"


class _Tables:
    """The rows of every table that tell of a person's videos."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        manifest = lake.scan(CLIP_MANIFEST).filter(pl.col("origin") != _RENDERED).collect()
        self._clips = {clip.source_row: clip for clip in rows_of(manifest, ShownClip)}
        self._stored = lake.frames
        ids = manifest["clip_id"].to_list()
        self._names, self._media = ClipNames(lake, ids), lake.media
        line_of_rendered = f"{_RENDERED}{BELOW}"
        own = (
            lake.outcomes(CLIP_MANIFEST.name)
            .filter(~pl.col("input_id").str.starts_with(line_of_rendered))
            .sort("input_id")
        )
        self.own: list[str] = own["input_id"].to_list()
        ends = own.select("input_id", "outcome", "reason").iter_rows()
        self._ends = {source_row: (outcome, reason) for source_row, outcome, reason in ends}
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

    def row(self, source_row: str) -> VideoRow:
        """The row of a file or a line of a manifest."""
        clip = self._clips.get(source_row)
        if clip is None:
            outcome, reason = self._ends[source_row]
            name = source_row.partition(BELOW)[2]
            return VideoRow(source_row, name, outcome, CLIP_MANIFEST.name, reason)
        clip_id = clip.clip_id
        text = self._one("texts", clip_id, "text")
        stopped_at, why, outcome = ("", "", "ok") if text is not None else self._stops.get(clip_id, _NOT_YET)
        return VideoRow(
            source_row=source_row,
            file=self._names(clip_id, clip.media_sha256),
            outcome=outcome,
            stopped_at=stopped_at,
            why=why,
            clip_id=clip_id,
            scene=self._one("scenes", clip_id, "scene"),
            split=self._one("corpus", clip_id, "split"),
            text=text,
            said=json.dumps(dict(self._said.get(clip_id, ())), ensure_ascii=False),
            queries=self._some("queries", clip_id).height,
            pairs=self._some("pairs", clip_id).height,
        )

    def video(self, row: VideoRow) -> Video:
        """What the page shows of such a row."""
        clip = self._clips.get(row.source_row)
        if clip is None:
            return Video(row, None, None, [], [], [])
        clip_id = clip.clip_id
        chosen = dict(self._some("pairs", clip_id).select("query_id", "chosen").iter_rows())
        asked = self._some("queries", clip_id).select("query_id", "query", "subcategory", "style")
        queries = [
            ShownQuery(shorten(query), subcategory, style, shorten(chosen.get(query_id)))
            for query_id, query, subcategory, style in asked.iter_rows()
        ]
        dropped = json.loads(self._one("texts", clip_id, "dropped") or "[]")
        return Video(
            row=row,
            clip=clip,
            film=film_strip(clip, self._media, self._stored),
            said=[(who, shorten(text)) for who, text in self._said.get(clip_id, ())],
            dropped=[(each["text"], each.get("why") or "") for each in dropped],
            queries=queries,
        )

    def _some(self, name: str, clip_id: str) -> pl.DataFrame:
        return self._frames[name].filter(pl.col("clip_id") == clip_id)

    def _one(self, name: str, clip_id: str, column: str) -> Any:
        found = self._some(name, clip_id)
        return found[column][0] if found.height else None


def _of(lake: Lake, table: Table, ids: list[str], columns: tuple[str, ...]) -> pl.DataFrame:
    rows = lake.scan(table).filter(pl.col("clip_id").is_in(ids)).select(columns)
    return rows.sort(columns).collect()


def _stops(settings: Settings, lake: Lake, ids: list[str]) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Clip id and (asset, reason, outcome) of the first asset that did not end `ok`."""
    describers = [f"{name}_descriptions" for name in settings.descriptions.describers]
    assets = (SCENE_ASSIGNMENTS.name, VIDEO_CORPUS.name, *describers, DESCRIPTIONS.name)
    seen: set[str] = set()
    for asset in assets:
        ends = lake.outcomes(asset).filter(pl.col("input_id").is_in(ids), pl.col("outcome") != "ok")
        ends = ends.sort("input_id").select("input_id", "reason", "outcome")
        for clip_id, reason, outcome in ends.iter_rows():
            if clip_id not in seen:
                seen.add(clip_id)
                yield clip_id, (asset, reason, outcome)
