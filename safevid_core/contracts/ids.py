"""Stable ids, made from what the thing is."""

from __future__ import annotations

import hashlib


def content_id(*parts: object, length: int = 20) -> str:
    """A stable id from the parts: hex SHA-256 over their texts, each length-prefixed.

    The prefix keeps ``("ab", "c")`` and ``("a", "bc")`` apart.
    """
    digest = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        digest.update(f"{len(text)}:".encode() + text)
    return digest.hexdigest()[:length]
