"""Number and rank of the processes of one training, from the environment of `accelerate launch`."""

from __future__ import annotations

import os
from typing import TypeVar

Thing = TypeVar("Thing")


def process_count() -> int:
    """Return the number of processes. 1 without `accelerate launch`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Return whether this process has rank 0. Only that process writes files."""
    return os.environ.get("RANK", "0") == "0"


def on_first_process(thing: Thing) -> Thing:
    """Return the value of the first process in all processes."""
    if process_count() == 1:
        return thing
    from accelerate.utils import broadcast_object_list

    things = [thing]
    broadcast_object_list(things)
    return things[0]


def wait_for_all() -> None:
    """Block until all processes have called this function."""
    if process_count() > 1:
        from accelerate.utils import wait_for_everyone

        wait_for_everyone()
