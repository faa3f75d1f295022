"""Identity, hash and shared chat of a video model in the settings."""

from __future__ import annotations

from functools import lru_cache

from safevid_core.execution.memory import return_memory
from safevid_core.models.llm import Gateway
from safevid_core.models.video_chat import VideoChat, checkpoint_identity, open_video_chat
from safevid_core.settings import VideoModel
from safevid_core.storage.lake import settings_hash


def video_model_identity(model: VideoModel) -> str:
    """Return the identity of the weights: the hash of a local checkpoint, else name and revision."""
    return f"{model.path}@{model.revision}" if model.served_at else checkpoint_identity(model)


def video_model_hash(model: VideoModel) -> str:
    """Return a hash of everything that changes a video model's responses.

    Path, device and batch size are not part of it.
    """
    decides = (model.family, model.frames, model.precision, model.max_new_tokens, *model.decoding)
    return settings_hash(video_model_identity(model), *decides)


def shared_video_chat(model: VideoModel, gateway: Gateway) -> VideoChat:
    """Return the chat with a model. The last one stays loaded, so a run over all scenes loads it once."""
    return _open(model, gateway, video_model_identity(model))


# Only one stays loaded, because two large checkpoints may not fit on one device.
@lru_cache(maxsize=1)
def _open(model: VideoModel, gateway: Gateway, identity: str) -> VideoChat:
    return open_video_chat(model, gateway)


def release_models() -> None:
    """Unload the shared model and return its memory. It is loaded again when the next question needs it.

    This is called before another process loads a model, as a training does. Without it the weights of two
    models and the memory that generation used would be held at the same time.
    """
    _open.cache_clear()
    return_memory()
