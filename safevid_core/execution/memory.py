"""Returns memory that this process no longer needs to the system and to the GPU, for other processes."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress


def return_memory() -> None:
    """Collect garbage, and return free memory of the C library and of torch's cache on a GPU.

    glibc keeps freed memory for later requests of this process: several gigabytes after a local model has
    answered. Other C libraries have no `malloc_trim`, and nothing is done there. torch is not imported.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
