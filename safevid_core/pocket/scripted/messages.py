"""Reads the chat messages that a scripted model gets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def last_object(messages: Sequence[Mapping[str, Any]], *keys: str) -> dict[str, Any]:
    """The JSON object with these keys in the last user message that holds one. Empty if there is none."""
    for message in reversed(messages):
        if message.get("role") != "user":
            continue
        try:
            found = json.loads(str(message.get("content")))
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and found.keys() >= set(keys):
            return found
    return {}
