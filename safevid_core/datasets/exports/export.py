"""What an export of pairs is, and the errors that it may end with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safevid_core.contracts.errors import SafeVidError
from safevid_core.datasets.exports.release_rows import ReleaseRows

Media = Literal["none", "videos", "frames"]


class ExportError(SafeVidError, ValueError):
    """An export that cannot be made; the message is one line and says what to do."""


# Texts in the place of media, for readers that take video, pictures and sound.
MEDIA_PLACEHOLDERS = ("<video>", "<image>", "<audio>")


@dataclass(frozen=True)
class Export:
    """A format that other tools read.

    Attributes:
        name: As the command takes it, such as `llama-factory`.
        reader: The tool that reads it, as a sentence names it.
        write: Writes the files of the release into an empty folder.
        media: What of the videos it holds. `none` names them by hash, `videos` by path, and `frames` holds
            pictures, for which a person must have asked with a number of frames.
        placeholders: Texts that the reader replaces by media. A pair with one of them in its query or
            responses is left out, because the reader would count one video too many.
        suffixes: Endings of video files that the reader takes. Empty means all.
    """

    name: str
    reader: str
    write: Callable[[ReleaseRows, Path], None]
    media: Media = "videos"
    placeholders: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """What an export wrote.

    Attributes:
        pairs: Split -> number of pairs.
        left_out: Reason -> number of pairs of the release that are not in the export.
    """

    folder: Path
    release: str
    pairs: Mapping[str, int]
    left_out: Mapping[str, int]
