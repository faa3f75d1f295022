"""The error of the room `reporting/`."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError


class ReportError(SafeVidError, ValueError):
    """A lake without what a report or an export needs; the message says what to materialise."""
