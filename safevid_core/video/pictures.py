"""Still pictures out of files that others made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from safevid_core.video.decoding import VideoError, quoted

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
# A small file may unfold into gigabytes; no benchmark's picture comes near this.
_MOST_PIXELS = 64_000_000


def read_picture(path: str | Path) -> np.ndarray:
    """A picture upright as uint8 RGB `[H, W, 3]`; of a moving one the first frame.

    Raises:
        VideoError: If the file is missing, no picture, damaged, or larger than 64 million pixels.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_FORMATS) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                size = f"{picture.width} x {picture.height}"
                raise VideoError(f"{quoted(path)} has {size} pixels; the most is {_MOST_PIXELS:,}")
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, VideoError):
            raise
        words = str(getattr(error, "strerror", None) or "it is none, or damaged")
        raise VideoError(f"{quoted(path)} cannot be read as a picture: {words}; fetch it again") from None
