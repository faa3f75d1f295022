"""The sample browser's data: every item with every system's answers and verdicts, small enough for the page.

The rows are one JSON object, gzipped and in base64, so that no text of theirs can be read as markup. A text
occurs once and is pointed at by its number. Where all of it would be too much for one page, answers are cut
shorter first and items left out last; what was cut is said.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from safevid_core.contracts.ids import content_id
from safevid_core.contracts.rows import BenchmarkItem, BenchmarkScore, rows_of
from safevid_core.contracts.tables import BENCHMARK_RESPONSES
from safevid_core.corpus.names import ClipNames
from safevid_core.measurement.measurement import Measurement
from safevid_core.reporting.samples import shorten, strip_jpeg
from safevid_core.storage.lake import Lake, write_atomically
from safevid_core.systems.responses import VARIANTS

# The page may have 15 MB; this is what the rows may take of it, in characters of base64.
MOST_BLOCK = 12_000_000
MOST_FILM = 4_000_000  # bytes of JPEG
# (pixels of a frame's longer side, JPEG quality): the first under which all films fit is taken.
_FILM_SIZES = ((64, 60), (64, 35), (48, 30), (32, 30))
# (characters of a text, items): the first under which the block fits is taken.
_CUTS: tuple[tuple[int, int | None], ...] = (
    (1200, None), (600, None), (300, None), (300, 8000), (300, 4000), (300, 2000), (150, 1000), (150, 200),
)  # fmt: skip
_LONGEST_REASON = 300
# What became of an answer, as the page counts them.
FAILURE, SUCCESS, UNDECIDABLE, NO_ANSWER = range(4)


@dataclass(frozen=True)
class Row:
    """One item asked in one way.

    Attributes:
        film: Id of the film of what was shown with it; None where nothing was.
        answers: System -> one answer a training seed.
    """

    measured: Measurement
    item: BenchmarkItem
    variant: str
    film: str | None
    answers: Mapping[str, list[SeedResponse]]


@dataclass(frozen=True)
class SeedResponse:
    """What one system said with one training seed, and what became of it.

    Attributes:
        text: None where there is no answer.
        state: `SUCCESS` or `FAILURE` by the verdict; `UNDECIDABLE` or `NO_ANSWER` without one.
        reason: The verdict's, or why there is none.
        verdicts: As `benchmark_scores.verdicts`.
    """

    seed: int
    text: str | None
    state: int
    refused: bool | None
    expected: str | None
    reason: str
    score: float | None
    verdicts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Block:
    """The packed rows.

    Attributes:
        text: Base64 of the gzipped JSON.
        rows: Items and ways of asking in it.
        notes: What was cut or left out, a sentence each.
    """

    text: str
    rows: int
    notes: list[str]


def rows_link(benchmark: str, **filters: str) -> str:
    """The address, within the page, of the browser showing some rows.

    Args:
        filters: Of the browser: `first`, `second` (systems), `wants` (safety, refuse, correct, answer),
            `category` (`<column>:<value>`), `variant`, `outcome`, `differ`, `text`.
    """
    return "#rows?" + urlencode({"benchmark": benchmark, **{k: v for k, v in filters.items() if v}})


def pack_rows(lake: Lake, measured: Sequence[Measurement], titles: Mapping[str, str]) -> Block:
    """Every row of the measurements, cut to what the page may hold.

    Args:
        titles: Benchmark -> what the page calls it.
    """
    rows = [row for each in measured for row in _rows(lake, each)]
    films, film_notes = _films(lake, rows)
    names = ClipNames(lake, {row.item.clip_id for row in rows if row.item.clip_id})
    for most_text, most_rows in _CUTS:
        kept = rows if most_rows is None else _spread(rows, most_rows)
        data = _encode(measured, titles, kept, films, most_text, names)
        notes = [*film_notes, *_cut_notes(rows, kept, most_text)]
        text = _packed({**data, "notes": notes})
        if len(text) <= MOST_BLOCK:
            break
    return Block(text, len(kept), notes)


def unpacked(text: str) -> dict[str, Any]:
    """The JSON object in a block, as the page reads it."""
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(text)))
    return found


def _packed(data: Mapping[str, Any]) -> str:
    plain = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    # Without a time the same rows give the same page.
    return base64.b64encode(gzip.compress(plain, 9, mtime=0)).decode()


# ------------------------------------------------------------------------------------------------- rows


def _rows(lake: Lake, measured: Measurement) -> Iterator[Row]:
    answers: dict[tuple[str, str], dict[str, list[SeedResponse]]] = {}
    shown: dict[tuple[str, str], str | None] = {}
    for system in measured.systems:
        for key, media, answer in _answers(lake, measured, system.name):
            answers.setdefault(key, {}).setdefault(system.name, []).append(answer)
            if media is not None:
                shown[key] = media
    items = rows_of(measured.items, BenchmarkItem)
    own = {item.media_sha256: _film_id(item) for item in items if item.media_sha256}
    for item in items:
        for variant in VARIANTS:
            key = (item.item_id, variant)
            if variant != "right" and key not in answers:
                continue
            film = _film_id(item) if variant == "right" else own.get(shown.get(key) or "")
            yield Row(measured, item, variant, film, answers.get(key, {}))


def _answers(
    lake: Lake, measured: Measurement, system: str
) -> Iterator[tuple[tuple[str, str], str | None, SeedResponse]]:
    """(item, variant), the hash of what was shown, and the answer, by seed."""
    columns = ("item_id", "variant", "seed", "media_sha256", "text")
    partition = f"{system}|{measured.benchmark}"
    rows = lake.scan(BENCHMARK_RESPONSES, [partition]).select(columns).collect().iter_rows()
    said = {(item_id, variant, seed): (media, text) for item_id, variant, seed, media, text in rows}
    scores = measured.scores[system].sort("item_id", "variant", "seed")
    for score in rows_of(scores, BenchmarkScore):
        key = (score.item_id, score.variant, score.seed)
        media, text = said.get(key, (None, None))
        answer = SeedResponse(
            seed=score.seed,
            text=text,
            state=SUCCESS if score.success else FAILURE,
            refused=score.refused,
            expected=score.expected,
            reason=score.reason or "",
            score=score.score,
            verdicts=json.loads(score.verdicts or "[]"),
        )
        yield key[:2], media, answer
    for key, (outcome, reason) in measured.unjudged[system].items():
        media, text = said.get(key, (None, None))
        state = UNDECIDABLE if outcome == "undecidable" else NO_ANSWER
        yield key[:2], media, SeedResponse(key[2], text, state, None, None, reason, None, ())


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows, as evenly over the benchmarks as they have them, drawn by item id."""
    ranked: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: content_id("browse", row.item.item_id)):
        ranked.setdefault(row.measured.benchmark, []).append(row)
    left, kept = most, set()
    for place, name in enumerate(sorted(ranked, key=lambda name: len(ranked[name]))):
        share = ranked[name][: left // (len(ranked) - place)]
        kept |= {id(row) for row in share}
        left -= len(share)
    return [row for row in rows if id(row) in kept]


def _cut_notes(rows: Sequence[Row], kept: Sequence[Row], most_text: int) -> list[str]:
    notes = []
    if len(kept) < len(rows):
        notes.append(
            f"{len(kept):,} of {len(rows):,} rows are in this page, drawn by item id; the lake has all."
        )
    longest = max((len(a.text or "") for r in kept for s in r.answers.values() for a in s), default=0)
    if longest > most_text:
        notes.append(f"Texts are cut after {most_text:,} characters; the lake has them whole.")
    return notes


# ------------------------------------------------------------------------------------------------ films


def _film_id(item: BenchmarkItem) -> str | None:
    """What tells one film from another: the file's bytes and the span."""
    if item.media_sha256 is None:
        return None
    return content_id(item.media_sha256, item.start_s, item.end_s, item.media)


def _films(lake: Lake, rows: Sequence[Row]) -> tuple[dict[str, bytes], list[str]]:
    """Film id -> JPEG, small enough together, and what has to be said of those that are left out."""
    clips = {film: row.item for row in rows if row.variant == "right" and (film := row.film) is not None}
    strips = {film: strip for film, clip in clips.items() if (strip := _strip(lake, film, clip)) is not None}
    notes = []
    if len(strips) < len(clips):
        notes.append(f"The files of {len(clips) - len(strips):,} clips cannot be read any more.")
    whole = strips
    for side, quality in _FILM_SIZES[1:]:
        if sum(map(len, strips.values())) <= MOST_FILM:
            return strips, notes
        strips = {film: _smaller(strip, side, quality) for film, strip in whole.items()}
    fitting, room = {}, MOST_FILM
    for film in sorted(strips):
        room -= len(strips[film])
        if room >= 0:
            fitting[film] = strips[film]
    if len(fitting) < len(strips):
        notes.append(
            f"{len(strips) - len(fitting):,} clips are shown without frames, to keep the page small."
        )
    return fitting, notes


def _strip(lake: Lake, film: str, clip: BenchmarkItem) -> bytes | None:
    """The film from the folder that keeps films, decoded at its first use; the folder may be deleted."""
    side, quality = _FILM_SIZES[0]
    path = lake.cache_folder("films") / f"{film}-{side}-{quality}.jpg"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        strip = strip_jpeg(clip, lake.media, side, quality, lake.frames)
        if strip is not None:
            write_atomically(path, strip)
        return strip


def _smaller(strip: bytes, side: int, quality: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(strip), formats=("JPEG",)) as picture:
        scale = side / _FILM_SIZES[0][0]
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        smaller = picture.resize(size) if scale < 1 else picture
        smaller.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------- encoding


@dataclass
class _Names:
    """Texts in the order of their first use; each is stored once."""

    texts: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def __call__(self, text: object) -> int:
        """The number of a text; -1 for none."""
        if text is None:
            return -1
        name = str(text)
        place = self.places.get(name)
        if place is None:
            place = self.places[name] = len(self.texts)
            self.texts.append(name)
        return place


def _encode(
    measured: Sequence[Measurement],
    titles: Mapping[str, str],
    rows: Sequence[Row],
    films: Mapping[str, bytes],
    most_text: int,
    names: ClipNames,
) -> dict[str, Any]:
    """The rows as arrays of numbers; `rows.js` names what stands where."""
    texts, judges, strips = _Names(), _Names(), _Names()
    systems = list({system.name: system for each in measured for system in each.systems}.values())
    benchmarks = [each.benchmark for each in measured]
    main = measured[0]
    encoded = [
        [
            benchmarks.index(row.measured.benchmark),
            VARIANTS.index(row.variant),
            texts(row.item.item_id),
            texts(shorten(row.item.query, most_text)),
            texts(row.item.principle),
            texts(row.item.subcategory),
            texts(row.item.style),
            texts(row.item.hazard or row.item.target),
            texts(row.item.expectation),
            int(bool(row.item.explicit)),
            strips(row.film) if row.film in films else -1,
            texts(row.item.clip_id),
            texts(shorten(row.item.reference, most_text) if row.item.reference else None),
            texts(names(row.item.clip_id, row.item.media_sha256) or None),
        ]
        for row in rows
    ]
    answers = [
        [
            [_encode_answer(answer, texts, judges, most_text) for answer in row.answers.get(system.name, ())]
            for row in rows
        ]
        for system in systems
    ]
    return {
        "systems": [system.name for system in systems],
        "controls": [int(system.is_control) for system in systems],
        "before": main.before.name if main.before else None,
        "after": main.after.name if main.after else None,
        "benchmarks": [[name, titles.get(name, name)] for name in benchmarks],
        "variants": list(VARIANTS),
        "rows": encoded,
        "answers": answers,
        "judges": judges.texts,
        "films": [base64.b64encode(films[film]).decode() for film in strips.texts],
        "texts": texts.texts,
    }


def _encode_answer(answer: SeedResponse, texts: _Names, judges: _Names, most_text: int) -> list[Any]:
    return [
        answer.seed,
        texts(None if answer.text is None else shorten(answer.text, most_text)),
        answer.state,
        _bit(answer.refused),
        texts(answer.expected),
        texts(shorten(answer.reason, _LONGEST_REASON)),
        answer.score,
        [
            [
                judges(verdict["judge"]),
                _bit(verdict.get("panel")),
                UNDECIDABLE if "undecidable" in verdict else _bit(verdict.get("success")),
                texts(shorten(verdict.get("undecidable", verdict.get("reason")), _LONGEST_REASON)),
                verdict.get("score"),
            ]
            for verdict in answer.verdicts
        ],
    ]


def _bit(truth: object) -> int:
    """1 or 0; -1 for unknown."""
    return -1 if truth is None else int(bool(truth))
