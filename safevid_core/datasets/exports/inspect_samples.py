"""Queries with their videos as samples of inspect_ai: JSON lines that its `json_dataset` reads.

A sample asks what the pair asks. Its target is the chosen response, and its metadata holds the rejected one,
the policy and the criteria of a safe response.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safevid_core.contracts.intent import INTENT_COLUMNS
from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.release_rows import ExportRow, ReleaseRows
from safevid_core.datasets.exports.text_rows import write_json_lines

# The video formats of inspect_ai's `ContentVideo`.
_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mpeg": "mpeg", ".mpg": "mpeg"}
_METADATA = (
    "clip_id", "media_sha256", "start_s", "end_s", "scene", "principle", "dimension", "subcategory", "style",
    *INTENT_COLUMNS, "policy", "rejected", "margin",
)  # fmt: skip


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `<split>.jsonl` for each split."""
    for split in rows.splits:
        write_json_lines(folder / f"{split}.jsonl", map(_sample, rows.rows(split)))


def _sample(row: ExportRow) -> dict[str, Any]:
    pair, video = row.pair, str(row.video)
    found = {name: value for name in _METADATA if (value := getattr(pair, name)) is not None}
    content = [
        {"type": "video", "video": video, "format": _FORMATS[Path(video).suffix.lower()]},
        {"type": "text", "text": pair.prompt},
    ]
    return {
        "id": pair.pair_id,
        "input": [{"role": "user", "content": content}],
        "target": pair.chosen,
        "metadata": {**found, "source_id": row.source_id, "licence": row.licence},
    }


EXPORT = Export(name="inspect", reader="inspect_ai", write=write, suffixes=tuple(_FORMATS))
