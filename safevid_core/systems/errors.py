"""The error of the room `systems/`."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError


class ResponseError(SafeVidError, ValueError):
    """A system or a benchmark cannot be used. The message names it and what to do."""
