"""Turns the exceptions of decoders into :class:`VideoError`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safevid_core.contracts.errors import VideoError

__all__ = ["VideoError", "is_transient", "only_video_errors", "quoted", "words_of"]

# Errors of a share, disk or network. The file itself may be intact.
_TRANSIENT = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.ECONNREFUSED,
        errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN,
        errno.ENETRESET, errno.EPIPE, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EMFILE, errno.ENFILE,
        errno.ENOMEM, errno.EREMOTEIO, errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN, errno.ENOLINK,
    }
)  # fmt: skip


def is_transient(error: BaseException) -> bool:
    """Whether a later attempt may succeed: the error comes from a share or disk and not from the file."""
    if isinstance(error, VideoError):
        return error.transient
    return isinstance(error, OSError) and error.errno in _TRANSIENT


def quoted(path: str | Path) -> str:
    """A path fit for one line of a message: quotes, newlines and undecodable bytes are escaped."""
    return repr(str(path))


def words_of(error: Exception) -> str:
    """The first line of a library's error message."""
    text = str(getattr(error, "strerror", None) or error).splitlines()
    words = text[0].rstrip(".") if text else type(error).__name__
    return "it is not a video container" if words == "Invalid argument" else words


@contextmanager
def only_video_errors(path: Path) -> Iterator[None]:
    """Turn any exception that a decoder raises on a file into a :class:`VideoError`.

    Decoders raise ValueError, TypeError, AttributeError and others on files that are damaged on purpose. Only
    a MemoryError of Python is not turned, because its cause is the machine and not the file.
    """
    import av

    try:
        yield
    except VideoError:
        raise
    except (av.FFmpegError, OSError) as error:
        what = "cannot be read" if is_transient(error) else "is damaged"
        raise VideoError(
            f"{quoted(path)} {what}: {words_of(error)}; fetch or encode it again",
            transient=is_transient(error),
        ) from None
    except MemoryError:
        raise
    except Exception as error:
        raise VideoError(
            f"{quoted(path)} cannot be decoded ({type(error).__name__}: {words_of(error)}); "
            "fetch or encode it again"
        ) from error
