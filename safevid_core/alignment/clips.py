"""Stores of model inputs for clips. Each clip is stored once, as pixels or as vision features."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from safevid_core.models.families import family_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Model inputs that describe the time and space grid of a video.
GRIDS = ("video_grid_thw", "second_per_grid_ts")


class ClipStore(Protocol):
    """Returns model arguments for clips that were added by key."""

    def add(self, key: str, inputs: dict[str, torch.Tensor]) -> None:
        """Store the processor outputs of one clip. :meth:`batch` joins clips along dimension 0."""

    def batch(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the model arguments of a batch with one row for each key. Keys may repeat."""

    def grids(self, key: str) -> dict[str, torch.Tensor]:
        """Return the clip's inputs that are named in :data:`GRIDS`. Empty if the family has none."""


class PixelStore:
    """Stores pixels, as stock trl does. The vision tower runs in every forward pass."""

    def __init__(self) -> None:
        self._clips: dict[str, dict[str, torch.Tensor]] = {}

    def add(self, key: str, inputs: dict[str, torch.Tensor]) -> None:
        self._clips[key] = inputs

    def batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return _joined([self._clips[key] for key in keys])

    def grids(self, key: str) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self._clips[key].items() if name in GRIDS}


class FeatureStore:
    """Stores the features of the frozen vision tower and projector. They are computed when a clip is added.

    The model merges stored features at the video placeholders, exactly as it merges its own. The store holds
    no pixels. Features stay in memory in the model's dtype: clips x visual tokens x hidden size x bytes.

    Args:
        model: The video language model.
        family: Name of its family. Example: `qwen2_5_vl`.
        projected: Whether the store holds the projector's outputs. Defaults to true. False stores the
            projector's inputs: use it if the projector trains. Each forward pass then runs the projector.
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
        """Return whether this model's forward function accepts features in place of pixels."""
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
        else:  # Qwen2.5-VL returns one tensor for each video
            whole = [each for clip in features for each in clip]
        if not self._projected:
            pixels = whole if isinstance(whole, torch.Tensor) else torch.cat(whole)
            return {**_joined([self._beside[key] for key in keys]), self._family.pixels: pixels}
        outputs = {self._family.feature_key: BaseModelOutputWithPooling(pooler_output=whole)}
        return {**_joined([self._beside[key] for key in keys]), "mm_encoder_outputs": outputs}

    def grids(self, key: str) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self._beside[key].items() if name in GRIDS}

    def encode(self, inputs: dict[str, torch.Tensor]) -> Any:
        """Return the features of one clip: a tensor, or a tuple with one tensor."""
        import torch

        pixels = inputs[self._family.pixels].to(self._model.device, self._model.dtype)
        # The tower of Qwen2.5-VL also needs the time and space grid of the pixels.
        grid = {k: v.to(self._model.device) for k, v in inputs.items() if k == "video_grid_thw"}
        with torch.no_grad(), contextlib.nullcontext() if self._projected else self._without_projector():
            return self._encode(pixels, **grid, return_dict=True).pooler_output

    @property
    def _group(self) -> int:
        """Number of tower features that the projector merges into one token. 4 for Qwen2.5-VL."""
        return int(getattr(self._model.config.vision_config, "spatial_merge_size", 1)) ** 2

    @contextlib.contextmanager
    def _without_projector(self) -> Iterator[None]:
        """Within the block the projector returns its input, with the features of one token side by side."""
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
        """Return tokens from stored tower features. Replaces the model's function from pixels to tokens."""
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
        """Compute and store the features of a clip."""
        self._features[key] = self.encode(inputs)

    def kept(self, key: str) -> Any:
        """Return the stored features of a clip in the form of :meth:`encode`."""
        return self._features[key]


class NoClips:
    """The store of a training on text alone. It stores nothing, and its batches have no video."""

    def add(self, key: str, inputs: dict[str, torch.Tensor]) -> None:
        """Do nothing."""

    def batch(self, keys: Sequence[str]) -> dict[str, Any]:
        return {}

    def grids(self, key: str) -> dict[str, torch.Tensor]:
        return {}


def open_clip_store(model: PreTrainedModel, family: str, *, projected: bool = True) -> ClipStore:
    """Return a `FeatureStore` if the model accepts features, else a `PixelStore` (older transformers).

    Args:
        projected: See :class:`FeatureStore`.
    """
    return FeatureStore(model, family, projected=projected) if FeatureStore.suits(model) else PixelStore()


def _joined(clips: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}
