"""The errors that a user can cause. Each message names the thing and says what to do."""

from __future__ import annotations

# The end of the reason of a row that failed because of a transient error, such as a share that was down. The
# next run makes the partition again.
READ_AGAIN = "(transient error: the next run tries again)"


class SafeVidError(Exception):
    """Base of every error that a user can cause. A command prints its message and exits with status 2."""


class SchemaError(SafeVidError, ValueError):
    """A frame lacks a column of its rows. The message names the column."""


class VideoError(SafeVidError, ValueError):
    """A file cannot be used as a video. The message is one line, names the file and says what to do.

    Attributes:
        transient: Whether a later attempt may succeed, as after an error of a share that was down. Such an
            error is not stored as a property of the file, and its message ends with `READ_AGAIN`.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(f"{message} {READ_AGAIN}" if transient else message)
        self.transient = transient
