"""Sizes of rooms and files that docs/architecture.md promises."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).parents[2]
CORE = PROJECT / "safevid_core"
LONGEST = 400
LARGEST_ROOM = 0.15


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_every_long_file_has_its_reason_in_the_architecture() -> None:
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    long = [path for path in CORE.rglob("*.py") if lines_of(path) > LONGEST]
    assert long
    unnamed = [path.relative_to(CORE).as_posix() for path in long if f"{path.name}`" not in page]
    assert not unnamed


def test_no_room_holds_more_than_its_share_of_the_core() -> None:
    rooms = {room.name: sum(map(lines_of, room.rglob("*.py"))) for room in CORE.iterdir() if room.is_dir()}
    total = sum(rooms.values())
    assert {name: share for name, lines in rooms.items() if (share := lines / total) > LARGEST_ROOM} == {}
