"""The error of the room `review/`."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError


class ReviewError(SafeVidError, ValueError):
    """A review sheet or sign-off file cannot be used. The message names the file and what to change."""
