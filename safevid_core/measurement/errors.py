"""The error of the room `measurement/`."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError


class MeasurementError(SafeVidError, ValueError):
    """Nothing can be measured; the message says why."""
