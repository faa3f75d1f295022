"""Exports a release for review: the sheet to fill in, and a page with frames of every clip."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from safevid_core.benchmarks.releases import read_release
from safevid_core.benchmarks.safevidbench_challenge import options_of
from safevid_core.contracts.rows import MediaSpan
from safevid_core.contracts.tables import SAFEVIDBENCH_CHALLENGE
from safevid_core.corpus.names import ClipNames
from safevid_core.reporting.pages import template_environment
from safevid_core.reporting.samples import strip_jpeg
from safevid_core.review.challenge.sheet import sheet_bytes
from safevid_core.review.errors import ReviewError
from safevid_core.storage.lake import Lake, write_atomically
from safevid_core.storage.media import MediaIndex
from safevid_core.systems.responses import read_items

_FRAME_SIDE, _JPEG_QUALITY = 112, 60


def export_review(lake: Lake, to: Path, release: str | None = None) -> tuple[Path, Path]:
    """Write `safevidbench_challenge-<release>.csv` and `.html` below `to`. Returns both paths.

    Args:
        release: Defaults to the release in use.

    Raises:
        BenchmarkError: If there is no such release.
        ReviewError: If the sheet exists already, because people may have filled it in.
    """
    items = release_items(lake, release)
    name = f"{SAFEVIDBENCH_CHALLENGE.name}-{items[0]['release']}"
    sheet, page = to / f"{name}.csv", to / f"{name}.html"
    if sheet.exists():
        raise ReviewError(f"{sheet} is there already and may be filled in; move it, or export elsewhere")
    write_atomically(sheet, sheet_bytes(map(_shown, items)))
    write_atomically(page, review_page(items, lake.media).encode())
    return sheet, page


def release_items(lake: Lake, release: str | None) -> list[dict[str, Any]]:
    """The items of a release, by scene and clip, with one more field: `file`, the clip's name for people.

    Args:
        release: Defaults to the release in use.

    Raises:
        BenchmarkError: If there is no such release.
    """
    if release is None:
        items = read_items(lake, SAFEVIDBENCH_CHALLENGE.name)
    else:
        items = read_release(lake, SAFEVIDBENCH_CHALLENGE, release).rows
    names = ClipNames(lake)
    ordered = items.sort("scene", "clip_id", "item_id")
    files = [names(*clip) for clip in ordered.select("clip_id", "media_sha256").iter_rows()]
    return ordered.with_columns(file=pl.Series(files, dtype=pl.String)).to_dicts()


def review_page(items: Sequence[Mapping[str, Any]], media: MediaIndex) -> str:
    """One HTML page that opens offline and has no script. The responses of the panel are folded.

    Args:
        items: Rows of a release. Rows of one clip follow each other.
        media: Finds the clips by their hashes.
    """
    template = template_environment(Path(__file__).parent).get_template("review.html.j2")
    return template.render(release=items[0]["release"], count=len(items), clips=list(_clips(items, media)))


def _clips(items: Sequence[Mapping[str, Any]], media: MediaIndex) -> Iterator[dict[str, Any]]:
    for clip_id, some in groupby(items, key=lambda item: item["clip_id"]):
        asked = list(some)
        span = MediaSpan(*(asked[0][name] for name in ("media_sha256", "start_s", "end_s")))
        strip = strip_jpeg(span, media, _FRAME_SIDE, _JPEG_QUALITY)
        film = None if strip is None else f"data:image/jpeg;base64,{base64.b64encode(strip).decode()}"
        queries = [{**item, "options": options_of(item)} for item in asked]
        yield {
            "clip_id": clip_id,
            "file": asked[0].get("file", ""),
            "scene": asked[0]["scene"],
            "film": film,
            "items": queries,
        }


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    """An item as the sheet shows it. Only the page shows the responses of the panel."""
    options = options_of(item)
    failed = [result["system"] for result in options["panel"] if result["success"] is False]
    return {**item, "category": options["category"], "failed_by": ", ".join(failed)}
