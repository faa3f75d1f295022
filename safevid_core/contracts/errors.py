"""The errors that a user can cause. Each message names the thing and says what to do."""

from __future__ import annotations

# The end of a reason that says nothing of the row: what it needs could not be read for a reason of the
# moment, such as a share that was down. The next run makes the partition again.
READ_AGAIN = "(transient error: the next run tries again)"


class SafeVidError(Exception):
    """Base of every error that a user can cause; a command prints its message and ends with status 2."""


class SchemaError(SafeVidError, ValueError):
    """A frame that does not have the columns of its rows; the message names the column."""


class VideoError(SafeVidError, ValueError):
    """A file that cannot be used as a video; the message is one line, names the file and what to do.

    Attributes:
        transient: The file could not be read for a reason that may pass, such as a share that is down.
            It says nothing of the file and is never kept as a fact about it; the message says so at its end.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(f"{message} {READ_AGAIN}" if transient else message)
        self.transient = transient
