"""File cache of vision features. Each clip is encoded once for all pairs, epochs, data scales and seeds."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safevid_core.alignment.clips import FeatureStore
from safevid_core.alignment.errors import AlignmentError
from safevid_core.storage.lake import write_atomically

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class FeatureFolder:
    """A folder with one memory-mapped float16 file for each clip. Several processes may write to it at once.

    Args:
        path: The folder. It must belong to one checkpoint and one way of sampling frames.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __contains__(self, clip: str) -> bool:
        return self._file(clip).exists()

    def read(self, clip: str) -> np.ndarray:
        """Return the float16 features of a clip, memory-mapped, in the shape that was written."""
        return np.load(self._file(clip), mmap_mode="r")

    def write(self, clip: str, features: np.ndarray) -> None:
        """Store features as float16.

        Raises:
            AlignmentError: If a value is too large for float16.
        """
        with np.errstate(over="ignore"):
            halved = features.astype(np.float16)
        if not np.isfinite(halved).all():
            raise AlignmentError(
                f"clip {clip}: a vision feature of {np.abs(features).max():.3g} is too large for float16; "
                "set alignment.store_features to false"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, halved)
        write_atomically(self._file(clip), buffer.getvalue())

    def make_room(self, clips: int, bytes_a_clip: int) -> None:
        """Check and print the disk space that further clips need, before the first is written.

        Args:
            clips: Number of clips.
            bytes_a_clip: Bytes for each clip.

        Raises:
            AlignmentError: If the disk has too little free space.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        needed, free = clips * bytes_a_clip, shutil.disk_usage(self.path).free
        size = f"vision features of {clips} clips take {_readable(needed)} in {self.path}"
        if needed > free:
            raise AlignmentError(
                f"{size}, where {_readable(free)} are free; free some, or set alignment.store_features to "
                "false"
            )
        print(f"{size}; {_readable(free)} are free", flush=True)

    def _file(self, clip: str) -> Path:
        return self.path / f"{clip}.npy"


class StoredFeatures(FeatureStore):
    """A feature store whose features are in a folder. A clip in the folder is not encoded again.

    Args:
        model: The video language model.
        family: Name of its family.
        folder: The folder.
        clips: Number of clips that will be added. It serves the forecast of the disk space.
        projected: See :class:`FeatureStore`. One folder must have one value only.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        family: str,
        folder: FeatureFolder,
        clips: int,
        *,
        projected: bool = True,
    ) -> None:
        super().__init__(model, family, projected=projected)
        self._folder = folder
        self._clips_left = clips
        self._checked_space = False

    def keep(self, clip: str, inputs: dict[str, torch.Tensor]) -> None:
        if clip not in self._folder:
            features = _array(self.encode(inputs))
            if not self._checked_space:
                self._folder.make_room(self._clips_left, features.size * 2)
                self._checked_space = True
            self._folder.write(clip, features)
        self._clips_left -= 1

    def kept(self, clip: str) -> Any:
        import torch

        features = torch.from_numpy(np.array(self._folder.read(clip)))
        features = features.to(self._model.device, self._model.dtype)
        # Qwen2.5-VL's features are one tensor for each video.
        return features if features.ndim == 3 else [features]


def _array(features: torch.Tensor | Sequence[torch.Tensor]) -> np.ndarray:
    import torch

    whole = features if isinstance(features, torch.Tensor) else features[0]
    return whole.float().cpu().numpy()


def _readable(size: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 10_000:
            return f"{size:.0f} {unit}"
        size //= 1000
    return f"{size:.0f} TB"
