"""The processes of one training: how many there are, and which one this is. `accelerate launch` says it."""

from __future__ import annotations

import os
from typing import TypeVar

Thing = TypeVar("Thing")


def process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes what the training leaves behind."""
    return os.environ.get("RANK", "0") == "0"


def on_first_process(thing: Thing) -> Thing:
    """The first process's value, in all of them."""
    if process_count() == 1:
        return thing
    from accelerate.utils import broadcast_object_list

    things = [thing]
    broadcast_object_list(things)
    return things[0]


def wait_for_all() -> None:
    """Return when every process is here."""
    if process_count() > 1:
        from accelerate.utils import wait_for_everyone

        wait_for_everyone()
