"""The clips as the model takes them, once a clip: pixels, or the frozen vision tower's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from safevid_core.models.families import family_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Inputs of the model that say how a video lies in time and space.
GRIDS = ("video_grid_thw", "second_per_grid_ts")


class ClipStore(Protocol):
    """Model arguments for clips that were added by key."""

    def add(self, key: str, inputs: dict[str, torch.Tensor]) -> None:
        """Keep one clip: its processor outputs, which for several clips are joined along dimension 0."""

    def batch(self, keys: Sequence[str]) -> dict[str, Any]:
        """Model arguments for a batch with one row a key; a key may come more than once."""

    def grids(self, key: str) -> dict[str, torch.Tensor]:
        """What of them says how a clip lies in time and space, where positions depend on it."""


class PixelStore:
    """Keeps pixels: the vision tower runs in every forward pass. The plain path, as trl would have it."""

    def __init__(self) -> None:
        self._clips: dict[str, dict[str, torch.Tensor]] = {}

    def add(self, key: str, inputs: dict[str, torch.Tensor]) -> None:
        self._clips[key] = inputs

    def batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return _joined([self._clips[key] for key in keys])

    def grids(self, key: str) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self._clips[key].items() if name in GRIDS}


class FeatureStore:
    """Keeps what the frozen tower and projector make of a clip, computed once when it is added.

    The model merges them at the placeholders exactly as it does its own; only the pixels are dropped.
    Features stay in memory, in the model's dtype: clips x visual tokens x hidden size x bytes.
    """

    def __init__(self, model: PreTrainedModel, family: str) -> None:
        self._family = family_of(family)
        self._encode = getattr(model.model, f"get_{self._family.feature_key}_features")
        self._model = model
        self._features: dict[str, Any] = {}
        self._beside: dict[str, dict[str, torch.Tensor]] = {}

    @staticmethod
    def suits(model: PreTrainedModel) -> bool:
        """Whether this model's forward takes features in place of pixels."""
        import inspect

        return "mm_encoder_outputs" in inspect.signature(type(model.model).forward).parameters

    def add(self, key: str, inputs: dict[str, torch.Tensor]) -> None:
        self.keep(key, inputs)
        self._beside[key] = {name: value for name, value in inputs.items() if name != self._family.pixels}

    def batch(self, keys: Sequence[str]) -> dict[str, Any]:
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        features = [self.kept(key) for key in keys]
        whole: Any
        if isinstance(features[0], torch.Tensor):
            whole = torch.cat(features)
        else:  # Qwen2.5-VL gives one tensor a video
            whole = [each for clip in features for each in clip]
        outputs = {self._family.feature_key: BaseModelOutputWithPooling(pooler_output=whole)}
        return {**_joined([self._beside[key] for key in keys]), "mm_encoder_outputs": outputs}

    def grids(self, key: str) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self._beside[key].items() if name in GRIDS}

    def encode(self, inputs: dict[str, torch.Tensor]) -> Any:
        """The features of one clip: a tensor, or a tuple of one."""
        import torch

        pixels = inputs[self._family.pixels].to(self._model.device, self._model.dtype)
        # Qwen2.5-VL's tower also needs to know how the pixels lie in time and space.
        grid = {k: v.to(self._model.device) for k, v in inputs.items() if k == "video_grid_thw"}
        with torch.no_grad():
            return self._encode(pixels, **grid, return_dict=True).pooler_output

    def keep(self, key: str, inputs: dict[str, torch.Tensor]) -> None:
        """Have the features of a clip at hand from now on."""
        self._features[key] = self.encode(inputs)

    def kept(self, key: str) -> Any:
        """The features of a clip, as :meth:`encode` gives them."""
        return self._features[key]


class NoClips:
    """For training on text alone: nothing is kept, and a batch has no video."""

    def add(self, key: str, inputs: dict[str, torch.Tensor]) -> None:
        """Leaves the clip out."""

    def batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return {}

    def grids(self, key: str) -> dict[str, torch.Tensor]:
        return {}


def open_clip_store(model: PreTrainedModel, family: str) -> ClipStore:
    """Features once a clip where the model takes them, pixels where it does not (older transformers)."""
    return FeatureStore(model, family) if FeatureStore.suits(model) else PixelStore()


def _joined(clips: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}
