"""Pairs for LLaMA-Factory: sharegpt conversations with a ranking, and `dataset_info.json`.

The layout is that of LLaMA-Factory 0.9.5 (`data/README.md`, "Preference Dataset"). A query starts with
`<video>`, once for each path in `videos`; a relative path is relative to `dataset_dir`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safevid_core.datasets.exports.export import MEDIA_PLACEHOLDERS, Export
from safevid_core.datasets.exports.release_rows import ExportRow, ReleaseRows
from safevid_core.datasets.exports.text_rows import write_json_list

_COLUMNS = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "videos": "videos"}


def write(rows: ReleaseRows, folder: Path) -> None:
    """Write `dataset_info.json` and a list of pairs for each split."""
    files = {split: f"safevid_{split}.json" for split in rows.splits}
    info = {
        f"safevid_{split}": {
            "file_name": name,
            "formatting": "sharegpt",
            "ranking": True,
            "columns": _COLUMNS,
        }
        for split, name in files.items()
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    for split, name in files.items():
        write_json_list(folder / name, map(_row, rows.rows(split)))


def _row(row: ExportRow) -> dict[str, Any]:
    pair = row.pair
    return {
        "conversations": [{"from": "human", "value": f"<video>{pair.prompt}"}],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        "videos": [row.video],
        **row.provenance,
    }


EXPORT = Export(name="llama-factory", reader="LLaMA-Factory", write=write, placeholders=MEDIA_PLACEHOLDERS)
