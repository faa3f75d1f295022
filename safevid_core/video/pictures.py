"""Reads the still pictures of benchmarks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from safevid_core.video.errors import VideoError, is_transient, quoted
from safevid_core.video.light import over_white

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
# A small file may decode to gigabytes. The pictures of the benchmarks are far below this limit.
_MOST_PIXELS = 64_000_000
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """An upright picture over a white background, uint8 RGB `[H, W, 3]`. The first frame of an animated one.

    Raises:
        VideoError: If the file is missing, damaged, not a picture, or larger than 64 million pixels.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                size = f"{picture.width} x {picture.height}"
                raise VideoError(
                    f"{quoted(path)} has {size} pixels; the most is {_MOST_PIXELS:,}, so make it smaller"
                )
            return _to_rgb(ImageOps.exif_transpose(picture))
    except (VideoError, MemoryError):
        raise
    except Exception as error:  # Pillow raises errors of many types on damaged files
        words = str(getattr(error, "strerror", None) or "it is damaged or not a picture")
        line = f"{quoted(path)} cannot be read as a picture: {words}; fetch it again"
        raise VideoError(line, transient=is_transient(error)) from None


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
