"""Release folders as earlier versions wrote them: chat messages in `pairs.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safevid_core.contracts.intent import INTENT_COLUMNS

_KEPT = (
    "pair_id", "query_id", "clip_id", "media_sha256", "start_s", "end_s", "twin_group", "scene", "principle",
    "dimension", "subcategory", "style", *INTENT_COLUMNS, "policy", "satisfies", "chosen_score",
    "rejected_score", "margin", "chosen_verdict", "rejected_verdict", "flags", "pair_judge", "chosen_model",
    "rejected_model", "rejected_system", "taxonomy_hash",
)  # fmt: skip


def line_of(pair: dict[str, Any], release: str, licence: str = "CC0-1.0") -> str:
    """A line of `pairs.jsonl`."""
    content = [{"type": "video"}, {"type": "text", "text": pair["prompt"]}]
    turns = {
        name: [{"role": "assistant", "content": [{"type": "text", "text": pair[name]}]}]
        for name in ("chosen", "rejected")
    }
    row = {"prompt": [{"role": "user", "content": content}], **turns, "video": "clips/a.mp4"}
    row |= {"licence": licence, "release": release, **{name: pair.get(name) for name in _KEPT}}
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_old_release(folder: Path, pairs: Iterable[dict[str, Any]], release: str) -> None:
    lines = (line_of(pair, release) for pair in pairs)
    (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "README.md").write_text("a card\n")
