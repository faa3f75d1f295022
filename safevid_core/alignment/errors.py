"""What a user can do wrong in training."""


class AlignmentError(RuntimeError):
    """A training run that cannot start or go on; the message names the thing and the mend."""
