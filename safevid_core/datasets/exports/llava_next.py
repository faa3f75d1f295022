"""Pairs for the DPO recipes of LLaVA-NeXT and LongVPO: JSON lines `{video, question, chosen, rejected}`.

LLaVA-NeXT (`llava/train/train_dpo.py`) reads `prompt` for the question and needs `answer` where it groups
rows by their length, so both are given too. It joins `video` with `--video_folder`, and an absolute path
wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safevid_core.datasets.exports.export import Export
from safevid_core.datasets.exports.release_rows import ExportRow, ReleaseRows
from safevid_core.datasets.exports.text_rows import write_splits


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `<split>.jsonl` for each split."""
    write_splits(rows, folder, _row)


def _row(row: ExportRow) -> dict[str, Any]:
    pair = row.pair
    return {
        "id": pair.pair_id,
        "video": row.video,
        "question": pair.prompt,
        "prompt": pair.prompt,
        "answer": pair.chosen,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "licence": row.licence,
    }


EXPORT = Export(name="llava-next", reader="LLaVA-NeXT", write=write, placeholders=("<image>",))
