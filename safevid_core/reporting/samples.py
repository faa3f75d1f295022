"""Sample rows for the scorecard: one benchmark item each, from the clip's frames to verdict and reason."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.intent import HARMFUL, UNSAFE_TO_HELP
from safevid_core.contracts.rows import BenchmarkScore, DescribedItem, MediaSpan, Pair, rows_of
from safevid_core.contracts.tables import (
    BENCHMARK_RESPONSES,
    PAIRS,
    SIGNAL_DESCRIPTIONS,
    Table,
    candidate_table,
)
from safevid_core.corpus.names import ClipNames
from safevid_core.measurement.measurement import Measurement
from safevid_core.queries.styles import IMPLICIT
from safevid_core.settings import Settings
from safevid_core.storage.frames import FrameCache
from safevid_core.storage.lake import Lake
from safevid_core.storage.media import MediaIndex
from safevid_core.video.decoding import VideoError
from safevid_core.video.pictures import read_picture
from safevid_core.video.uniform_frames import uniform_frames

_FRAMES = 4
_FRAME_SIDE = 128  # pixels of the longer side
_JPEG_QUALITY = 78
_LONGEST_TEXT = 1_200  # characters of any text that are shown


@dataclass(frozen=True)
class ShownResponse:
    """What a system answered to an item, and the verdict; `agreeing` of `seeds` seeds came out the same."""

    system: str
    text: str
    success: bool
    refused: bool | None
    expected: str
    reason: str
    seeds: int
    agreeing: int

    @property
    def harmful(self) -> bool:
        """Whether the text may help a harm, because the judge found it unsafe."""
        return self.expected in UNSAFE_TO_HELP and not self.success


@dataclass(frozen=True)
class SampleRow:
    """One item with its trail.

    Attributes:
        title: Why this row is shown.
        file: What a person calls the clip.
        film: A strip of frames as a JPEG data URI; None where the clip cannot be decoded.
        candidates: (describer, text) of each description that was reconciled.
        pair: A training pair that wants the same of the answer, about another clip; None if there is none.
        pair_file: What a person calls that clip.
    """

    title: str
    file: str
    item: DescribedItem
    film: str | None
    candidates: list[tuple[str, str]]
    answers: list[ShownResponse]
    pair: Pair | None
    pair_film: str | None
    pair_file: str


def sample_rows(settings: Settings, lake: Lake, measured: Measurement) -> list[SampleRow]:
    """Five items: a hazard only the pixels show, its harmless twin, a disguised one, a premise, a failure."""
    if measured.before is None:
        return []
    systems = [system for system in (measured.before, measured.after) if system is not None]
    verdicts = {system.name: _by_item(measured.scores[system.name]) for system in systems}
    chosen = _choose(measured, verdicts, [system.name for system in systems])
    texts = {system.name: _texts(lake, f"{system.name}|{measured.benchmark}") for system in systems}
    pairs, names = lake.read(PAIRS), ClipNames(lake)
    return [
        SampleRow(
            title=title,
            file=names(item.clip_id, item.media_sha256),
            item=replace(item, query=shorten(item.query), description=shorten(item.description)),
            film=film_strip(item, lake.media, lake.frames),
            candidates=_candidates(settings, lake, item),
            answers=[
                _answer(name, verdicts[name][item.item_id], texts[name])
                for name in verdicts
                if item.item_id in verdicts[name]
            ],
            pair=(pair := _pair_like(pairs, item)),
            pair_film=film_strip(pair, lake.media, lake.frames) if pair else None,
            pair_file=names(pair.clip_id, pair.media_sha256) if pair else "",
        )
        for title, item in chosen
    ]


def film_strip(clip: MediaSpan, media: MediaIndex, stored: FrameCache | None = None) -> str | None:
    """Uniform frames side by side, or the picture, as a data URI; None where there is nothing to show.

    Args:
        clip: The video or the picture.
        media: Finds the file.
        stored: Cache of decoded frames. None decodes them.
    """
    strip = strip_jpeg(clip, media, _FRAME_SIDE, _JPEG_QUALITY, stored)
    return None if strip is None else "data:image/jpeg;base64," + base64.b64encode(strip).decode()


def strip_jpeg(
    clip: MediaSpan, media: MediaIndex, side: int, quality: int, stored: FrameCache | None = None
) -> bytes | None:
    """The same as JPEG bytes, each frame `side` pixels on its longer side."""
    from PIL import Image

    pixels = _pixels(clip, media, stored)
    if pixels is None:
        return None
    height, width = pixels.shape[1:3]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    strip = Image.new("RGB", (size[0] * len(pixels), size[1]))
    for place, frame in enumerate(pixels):
        strip.paste(Image.fromarray(frame).resize(size), (place * size[0], 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _pixels(clip: MediaSpan, media: MediaIndex, stored: FrameCache | None) -> np.ndarray | None:
    """Frames `[T, H, W, 3]`: of a clip four, of a picture itself; None where nothing can be decoded."""
    file = media.file(clip.media_sha256)
    if file is None:
        return None
    try:
        if clip.is_picture:
            return read_picture(file)[None]
        return uniform_frames(
            file, _FRAMES, clip.start_s, clip.end_s, media_sha256=clip.media_sha256, stored=stored
        ).pixels
    except (VideoError, OSError):
        return None


def shorten(text: object, most: int = _LONGEST_TEXT) -> str:
    """The text on at most `most` characters; what was cut is counted."""
    whole = "" if text is None else str(text)
    return whole if len(whole) <= most else f"{whole[:most]}… ({len(whole) - most:,} more characters)"


_Verdicts = Mapping[str, list[BenchmarkScore]]


def _choose(
    measured: Measurement, verdicts: Mapping[str, _Verdicts], systems: Sequence[str]
) -> list[tuple[str, DescribedItem]]:
    """Items by what they show of the method, the gained ones first; the last is one that still fails."""
    before, after = verdicts[systems[0]], verdicts[systems[-1]]
    items = [item for item in rows_of(measured.items, DescribedItem) if item.item_id in before]
    items.sort(key=lambda item: content_id("sample", item.item_id))

    def gain(item: DescribedItem) -> float:
        return _share(after.get(item.item_id)) - _share(before[item.item_id])

    def expected(item: DescribedItem) -> str:
        return before[item.item_id][0].expected

    chosen: list[tuple[str, DescribedItem]] = []

    def take(title: str, fits: Callable[[DescribedItem], bool]) -> DescribedItem | None:
        taken = {item.item_id for _, item in chosen}
        fitting = [item for item in items if item.item_id not in taken and fits(item)]
        best = max(fitting, key=gain, default=None)
        if best is not None:
            chosen.append((title, best))
        return best

    hazard = take(
        "Only the pixels tell: a hazardous clip",
        lambda i: i.style == IMPLICIT and expected(i) in HARMFUL and i.twin_group is not None,
    )
    if hazard is not None:
        take(
            "The same words beside its harmless twin",
            lambda i: (i.twin_group, i.query) == (hazard.twin_group, hazard.query),
        )
    take("The text names a harm", lambda i: bool(i.explicit))
    take("The text takes something false for granted", lambda i: expected(i) == "correct")
    take("Still wrong after alignment", lambda i: i.item_id in after and _share(after[i.item_id]) < 0.5)
    while len(chosen) < 5 and take("Another item", lambda i: True):
        pass
    return chosen


def _share(verdicts: Sequence[BenchmarkScore] | None) -> float:
    """The share of successes over the seeds; 0 where there is no verdict."""
    return sum(verdict.success for verdict in verdicts) / len(verdicts) if verdicts else 0.0


def _by_item(scores: pl.DataFrame) -> dict[str, list[BenchmarkScore]]:
    found: dict[str, list[BenchmarkScore]] = {}
    right = scores.filter(pl.col("variant") == "right").sort("item_id", "seed")
    for score in rows_of(right, BenchmarkScore):
        found.setdefault(score.item_id, []).append(score)
    return found


def _texts(lake: Lake, partition: str) -> dict[str, str]:
    rows = lake.scan(BENCHMARK_RESPONSES, [partition]).select("response_id", "text").collect()
    return dict(rows.iter_rows())


def _answer(system: str, verdicts: Sequence[BenchmarkScore], texts: Mapping[str, str]) -> ShownResponse:
    """The answer of the first seed that came out as most did, with how many those are.

    Where half of the seeds succeed it is one that failed.
    """
    succeeds = _share(verdicts) > 0.5
    first = next(verdict for verdict in verdicts if verdict.success == succeeds)
    return ShownResponse(
        system=system,
        text=shorten(texts.get(first.response_id, "")),
        success=first.success,
        refused=first.refused,
        expected=first.expected,
        reason=shorten(first.reason, 300),
        seeds=len(verdicts),
        agreeing=sum(verdict.success == first.success for verdict in verdicts),
    )


def _candidates(settings: Settings, lake: Lake, item: DescribedItem) -> list[tuple[str, str]]:
    tables: list[tuple[str, Table]] = [
        *((name, candidate_table(name)) for name in settings.descriptions.describers),
        ("signal", SIGNAL_DESCRIPTIONS),
    ]
    found: list[tuple[str, str]] = []
    if item.scene is None:
        return found
    for name, table in tables:
        partitions = [item.scene] if lake.manifest(table.name, item.scene) else []
        rows = lake.scan(table, partitions).filter(pl.col("clip_id") == item.clip_id).collect()
        found += [(name, shorten(text)) for text in rows["text"].to_list()]
    return found


def _pair_like(pairs: pl.DataFrame, item: DescribedItem) -> Pair | None:
    """A training pair that wants the same of the answer, of the same subcategory and style if there is."""

    def distance(pair: Pair) -> tuple[bool, bool, str]:
        other_topic, other_style = pair.subcategory != item.subcategory, pair.style != item.style
        return other_topic, other_style, content_id(item.item_id, pair.pair_id)

    alike = rows_of(pairs.filter(pl.col("expectation") == item.expectation), Pair)
    best = min(alike, key=distance, default=None)
    if best is None:
        return None
    return replace(
        best, prompt=shorten(best.prompt), chosen=shorten(best.chosen), rejected=shorten(best.rejected)
    )
