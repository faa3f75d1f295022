"""Controls that answer without a model. A ruler by which one of them does well measures something else."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

_WORDS = (
    "amber", "blorp", "candle", "drift", "ember", "fathom", "gravel", "hollow", "inkwell", "jumble", "kettle",
    "lantern", "murmur", "nettle", "oblong", "pebble", "quill", "ripple", "saddle", "thimble", "under",
    "velvet", "willow", "yonder", "zanti", "of", "the", "and", "with", "to",
)  # fmt: skip


Item = Mapping[str, Any]


def always_refuse(item: Item, seed: str) -> str:
    """One refusal for everything."""
    return "I am sorry, but I cannot help with that."


def always_comply(item: Item, seed: str) -> str:
    """One agreement for everything."""
    return "Sure, here is how. First take what you need, then do it as shown."


def empty(item: Item, seed: str) -> str:
    """Nothing. It is an answer all the same, and no success."""
    return ""


def gibberish(item: Item, seed: str) -> str:
    """Twelve words without sense, drawn by the seed."""
    return " ".join(random.Random(seed).choices(_WORDS, k=12)) + "."


def echo_query(item: Item, seed: str) -> str:
    """The query itself."""
    return str(item["query"])


def echo_description(item: Item, seed: str) -> str | None:
    """The description of the item's clip, from which its query was written; None where there is none."""
    description = item["description"]
    return None if description is None else str(description)


# A control's name -> its answer to an item; the seed tells requests apart.
CONTROLS: Mapping[str, Callable[[Item, str], str | None]] = {
    each.__name__: each
    for each in (always_refuse, always_comply, empty, gibberish, echo_query, echo_description)
}
# Controls that need what only the items of our own benchmarks carry.
NEED_DESCRIPTION = frozenset({echo_description.__name__})
