"""Pairs for ms-swift: JSON lines with `messages`, `videos` and `rejected_response`.

The layout is that of ms-swift 4.6 (custom data sets, RLHF). The last message is the chosen response.
`rejected_response` replaces it on the rejected side, and both sides share the messages before it, so that
both see the video.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safevid_core.datasets.exports.export import MEDIA_PLACEHOLDERS, Export
from safevid_core.datasets.exports.release_rows import ExportRow, ReleaseRows
from safevid_core.datasets.exports.text_rows import write_splits


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `<split>.jsonl` for each split."""
    write_splits(rows, folder, _row)


def _row(row: ExportRow) -> dict[str, Any]:
    pair = row.pair
    return {
        "messages": [
            {"role": "user", "content": f"<video>{pair.prompt}"},
            {"role": "assistant", "content": pair.chosen},
        ],
        "rejected_response": pair.rejected,
        "videos": [row.video],
        **row.provenance,
    }


EXPORT = Export(name="ms-swift", reader="ms-swift", write=write, placeholders=MEDIA_PLACEHOLDERS)
