"""What a report must say of the models behind its figures: which are scripted, and which were trained here.

A scripted model is a program and no language model. A checkpoint that a package of ours built has a record
`vision.json` beside its folder, which says what was trained here and whether the model was shown to see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from safevid_core.settings import Settings, TextModel, VideoModel

SCRIPTED = "scripted/"
RECORD = "vision.json"


def notices(settings: Settings) -> list[str]:
    """The notices of all models that the settings name, one sentence or two each. Empty if there are none."""
    scripted = [place for place, model in _models(settings, TextModel) if model.model.startswith(SCRIPTED)]
    lines = []
    if scripted:
        lines.append(
            f"Scripted, and no language model: {', '.join(scripted)}. Their figures show that the method "
            "runs, not that it is valid."
        )
    folders: dict[str, str] = {}
    for place, model in _models(settings, VideoModel):
        if model.served_at is None:
            folders.setdefault(model.path, place)
    for path, place in folders.items():
        record = read_record(Path(path))
        if record is not None:
            lines.append(f"{place} ({Path(path).name}): {sight_of(record)}")
    return lines


def read_record(checkpoint: Path) -> dict[str, Any] | None:
    """The record beside a checkpoint's folder. None if there is none, or if it is not readable."""
    try:
        found = json.loads((checkpoint.parent / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"about", "vision"} <= found.keys() else None


def sight_of(record: dict[str, Any]) -> str:
    """What a record says of the model's origin and of its sight."""
    if record["vision"] == "claimed":
        return f"{record['about']} On held-out clips it tells {', '.join(record['sees'])} better than blind."
    return (
        f"{record['about']} Text only: on held-out clips it does not tell the event better than without the "
        "video, and no figure here rests on what it sees."
    )


def _models(group: BaseModel, kind: type[Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """All models of one type below a group, each with its dotted key."""
    for name in type(group).model_fields:
        yield from _models_in(getattr(group, name), kind, f"{place}.{name}" if place else name)


def _models_in(value: Any, kind: type[Any], place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, kind):
        yield place, value
    if isinstance(value, BaseModel):
        yield from _models(value, kind, place)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _models_in(each, kind, f"{place}.{key}")
    elif isinstance(value, tuple | list):
        for number, each in enumerate(value):
            yield from _models_in(each, kind, f"{place}.{number}")
