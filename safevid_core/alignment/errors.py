"""The error of training."""

from safevid_core.contracts.errors import SafeVidError


class AlignmentError(SafeVidError, RuntimeError):
    """A training run cannot start or continue. The message names the cause and what to do."""
