"""Still pictures out of files that others made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from safevid_core.video.errors import VideoError, passes, quoted
from safevid_core.video.light import over_white

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
# A small file may unfold into gigabytes; no benchmark's picture comes near this.
_MOST_PIXELS = 64_000_000
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def read_picture(path: str | Path) -> np.ndarray:
    """A picture upright over white as uint8 RGB `[H, W, 3]`; of a moving one the first frame.

    Raises:
        VideoError: If the file is missing, no picture, damaged, or larger than 64 million pixels.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_FORMATS) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                size = f"{picture.width} x {picture.height}"
                raise VideoError(f"{quoted(path)} has {size} pixels; the most is {_MOST_PIXELS:,}")
            return _to_rgb(ImageOps.exif_transpose(picture))
    except (VideoError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        words = str(getattr(error, "strerror", None) or "it is none, or damaged")
        line = f"{quoted(path)} cannot be read as a picture: {words}; fetch it again"
        raise VideoError(line, of_the_moment=passes(error)) from None


def _to_rgb(picture: Any) -> np.ndarray:
    transparent = picture.info.get("transparency")
    if picture.mode in _DEEP_MODES:
        deep = np.asarray(picture).astype(np.int64)
        grey = ((deep.clip(0, 65535) * 255 + 32767) // 65535).astype(np.uint8)
        alpha = np.full_like(grey, 255) if transparent is None else np.where(deep == transparent, 0, 255)
        return over_white(np.dstack([grey, grey, grey, alpha.astype(np.uint8)]))
    if transparent is not None or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        return over_white(np.asarray(picture.convert("RGBA")))
    return np.array(picture.convert("RGB"))
