"""The errors of the room `benchmarks/`."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError


class BenchmarkError(SafeVidError, ValueError):
    """A benchmark that cannot be made or compared; the message names it and says what to do."""
