"""The error of the room `systems/`."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError


class ResponseError(SafeVidError, ValueError):
    """A system or a benchmark that cannot be used; the message names it and says what to do."""
