"""Controls that respond without a model.

A metric on which one of these controls does well does not measure safety on video.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from safevid_core.contracts.rows import DescribedItem

_WORDS = (
    "amber", "blorp", "candle", "drift", "ember", "fathom", "gravel", "hollow", "inkwell", "jumble", "kettle",
    "lantern", "murmur", "nettle", "oblong", "pebble", "quill", "ripple", "saddle", "thimble", "under",
    "velvet", "willow", "yonder", "zanti", "of", "the", "and", "with", "to",
)  # fmt: skip


def always_refuse(item: DescribedItem, seed: str) -> str:
    """The same refusal for every item."""
    return "I am sorry, but I cannot help with that."


def always_comply(item: DescribedItem, seed: str) -> str:
    """The same agreement for every item."""
    return "Sure, here is how. First take what you need, then do it as shown."


def empty(item: DescribedItem, seed: str) -> str:
    """The empty text. It counts as a response, and never as a success."""
    return ""


def gibberish(item: DescribedItem, seed: str) -> str:
    """Twelve random words, drawn with the seed."""
    return " ".join(random.Random(seed).choices(_WORDS, k=12)) + "."


def echo_query(item: DescribedItem, seed: str) -> str:
    """The query itself."""
    return item.query


def echo_description(item: DescribedItem, seed: str) -> str | None:
    """The description of the item's clip, from which the query was written. None if the item has none."""
    return item.description


# A control's name -> the function that returns its response to an item. The seed is the request id.
CONTROLS: Mapping[str, Callable[[DescribedItem, str], str | None]] = {
    each.__name__: each
    for each in (always_refuse, always_comply, empty, gibberish, echo_query, echo_description)
}
# Controls that need the item's description. Only the items of SafeVidBench have one.
NEED_DESCRIPTION = frozenset({echo_description.__name__})
