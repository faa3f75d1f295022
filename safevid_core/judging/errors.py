"""The error of the room `judging/`."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError


class JudgeError(SafeVidError, ValueError):
    """A judge cannot be used. The message names it and the setting to change."""
