"""The clips as the model takes them, once a clip: pixels, or the frozen vision tower's features."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
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

    Args:
        projected: Whether features are kept as the projector leaves them. Defaults to true; for a projector
            that trains, what it takes is kept, and the model goes on from there in every pass.
    """

    def __init__(self, model: PreTrainedModel, family: str, *, projected: bool = True) -> None:
        self._family = family_of(family)
        name = f"get_{self._family.feature_key}_features"
        self._encode = getattr(type(model.model), name).__get__(model.model)
        self._model = model
        self._projected = projected
        if not projected:
            setattr(model.model, name, self._project)
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
        if not self._projected:
            pixels = whole if isinstance(whole, torch.Tensor) else torch.cat(whole)
            return {**_joined([self._beside[key] for key in keys]), self._family.pixels: pixels}
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
        with torch.no_grad(), contextlib.nullcontext() if self._projected else self._without_projector():
            return self._encode(pixels, **grid, return_dict=True).pooler_output

    @property
    def _group(self) -> int:
        """Features of the tower that the projector makes one token of."""
        return int(getattr(self._model.config.vision_config, "spatial_merge_size", 1)) ** 2

    @contextlib.contextmanager
    def _without_projector(self) -> Iterator[None]:
        """The tower's features come out as the projector would take them, a token's side by side."""
        projector = self._model.model.get_submodule(self._family.projector)
        group = self._group

        def forward(features: torch.Tensor) -> torch.Tensor:
            return features if group == 1 else features.reshape(-1, group * features.shape[-1])

        projector.forward = forward
        try:
            yield
        finally:
            del projector.forward

    def _project(self, features: torch.Tensor | None = None, grid: Any = None, **others: Any) -> Any:
        """In place of the model's own way from pixels to tokens: the rest of it, behind the tower."""
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        taken = others[self._family.pixels] if features is None else features
        if self._group > 1:
            taken = taken.reshape(-1, taken.shape[-1] // self._group)
        tokens = self._model.model.get_submodule(self._family.projector)(taken)
        grid = others.get("video_grid_thw", grid)
        if self._group > 1:
            tokens = torch.split(tokens, (grid.prod(-1) // self._group).tolist())
        return BaseModelOutputWithPooling(pooler_output=tokens)

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


def open_clip_store(model: PreTrainedModel, family: str, *, projected: bool = True) -> ClipStore:
    """Features once a clip where the model takes them, pixels where it does not (older transformers)."""
    return FeatureStore(model, family, projected=projected) if FeatureStore.suits(model) else PixelStore()


def _joined(clips: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}
