"""The error of promotion."""

from __future__ import annotations

from safevid_core.contracts.errors import SafeVidError


class PromotionError(SafeVidError, ValueError):
    """No decision on the candidate is possible. The message names the candidate and says what to do."""
