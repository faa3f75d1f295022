"""Embeds clips and prompts with an open_clip model. Vectors are stored, so each clip is embedded once."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from safevid_core.contracts.errors import SafeVidError
from safevid_core.contracts.ids import content_id
from safevid_core.contracts.rows import ClipSpan, columns_of, rows_of
from safevid_core.corpus.near_copies import THUMBNAIL_SIDE
from safevid_core.settings import Embedder
from safevid_core.storage.lake import Lake, directory_hash, write_atomically
from safevid_core.storage.media import MediaFile
from safevid_core.video.decoding import DECODING_REVISION, VideoError, quoted, resize
from safevid_core.video.identity import content_key
from safevid_core.video.uniform_frames import uniform_frames

_STORE = ("blobs", "embeddings")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
# Decimals of a stored vector. The rounded values do not depend on the batch in which a clip was embedded.
_DECIMALS = 5


class EmbedderError(SafeVidError, RuntimeError):
    """An embedder cannot be loaded. The message names the setting and says what to do."""


@dataclass(frozen=True)
class ClipVector:
    """A clip's embedding, a unit vector float32 `[D]`, and its thumbnails, uint8 `[T, 32, 32, 3]`."""

    embedding: np.ndarray
    thumbnails: np.ndarray


def embedder_identity(embedder: Embedder) -> str:
    """A hash of what the vectors depend on: the weights and the frames.

    The weights are identified by the content of their folder, or by name and tag.
    """
    folder = Path(embedder.model)
    weights = directory_hash(folder) if folder.is_dir() else f"{embedder.model}|{embedder.pretrained}"
    return content_id("embedder", weights, embedder.revision, embedder.frames, DECODING_REVISION)


def embedder_files(embedder: Embedder) -> list[Path]:
    """The folder of the embedder's weights. Empty if the weights are not local."""
    folder = Path(embedder.model)
    return [folder] if folder.is_dir() else []


class OpenClip:
    """An open_clip model with its preprocessing and tokenizer, loaded at the first use.

    `embedder.model` is a folder with `open_clip_config.json` and weights, or the name of an open_clip model.
    `embedder.pretrained` is the tag of its weights. Example: `ViT-B-32` with `laion2b_s34b_b79k`.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._loaded: tuple[Any, Any, Any] | None = None

    def embed_frames(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 RGB frames `[H, W, 3]` of any sizes -> unit vectors float32 `[N, D]`."""
        import torch
        from PIL import Image

        model, preprocess, _ = self._model()
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(frames), self.embedder.batch_size):
                chunk = frames[start : start + self.embedder.batch_size]
                batch = torch.stack([preprocess(Image.fromarray(frame)) for frame in chunk])
                vectors.append(model.encode_image(batch.to(self.embedder.device)).float().cpu().numpy())
        return _unit(np.concatenate(vectors))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> unit vectors float32 `[N, D]`."""
        import torch

        model, _, tokenizer = self._model()
        with torch.inference_mode():
            tokens = tokenizer(list(texts)).to(self.embedder.device)
            return _unit(model.encode_text(tokens).float().cpu().numpy())

    def _model(self) -> tuple[Any, Any, Any]:
        if self._loaded is None:
            self._loaded = _load(self.embedder)
        return self._loaded


def clip_vectors(
    lake: Lake, embedder: Embedder, clips: Iterable[ClipSpan]
) -> tuple[dict[str, ClipVector], dict[str, str], int]:
    """Return the vectors of clips. Those that the lake does not have are computed and stored.

    Args:
        lake: Stores the vectors under the embedder's identity and a hash of the file's hash and the span.
        embedder: Settings of the model.
        clips: The clips, each id once.

    Returns:
        Clip id -> vector, clip id -> reason for clips that cannot be decoded, and the number of computed
        vectors.
    """
    identity = embedder_identity(embedder)
    vectors: dict[str, ClipVector] = {}
    missing: list[tuple[ClipSpan, Path]] = []
    for clip in clips:
        file = _file_of(lake, identity, clip)
        stored = _read(file)
        if stored is None:
            missing.append((clip, file))
        else:
            vectors[clip.clip_id] = stored
    failures: dict[str, str] = {}
    computed = 0
    for clip, file, vector in _compute(lake, embedder, missing, failures):
        write_atomically(file, _packed(vector))
        vectors[clip.clip_id] = vector
        computed += 1
    return vectors, failures, computed


def stored_vectors(lake: Lake, identity: str, clips: pl.DataFrame) -> dict[str, ClipVector]:
    """Clip id -> vector, for the clips that the embedder of this identity has embedded.

    Args:
        clips: Columns `clip_id, media_sha256, start_s, end_s`.
    """
    spans = clips.select(list(columns_of(ClipSpan))).drop_nulls()
    found = ((clip.clip_id, _read(_file_of(lake, identity, clip))) for clip in rows_of(spans, ClipSpan))
    return {clip_id: vector for clip_id, vector in found if vector is not None}


def stored_thumbnails(lake: Lake, clips: pl.DataFrame) -> dict[str, np.ndarray]:
    """Clip id -> thumbnails, for the clips that any embedder has embedded.

    Args:
        clips: Columns `clip_id, media_sha256, start_s, end_s`.
    """
    found: dict[str, np.ndarray] = {}
    for folder in sorted(lake.local_path(*_STORE).glob("*")):
        left = clips.filter(~pl.col("clip_id").is_in(list(found)))
        found |= {clip: each.thumbnails for clip, each in stored_vectors(lake, folder.name, left).items()}
    return found


def vector_files(lake: Lake, media_sha256: str, start_s: float, end_s: float) -> list[Path]:
    """The files with the vectors of a clip, one for each embedder that has seen it."""
    key = content_key(media_sha256, start_s, end_s)
    return sorted(lake.local_path(*_STORE).glob(f"*/{key[:2]}/{key}.npz"))


def _file_of(lake: Lake, identity: str, clip: ClipSpan) -> Path:
    key = content_key(clip.media_sha256, clip.start_s, clip.end_s)
    return lake.local_path(*_STORE) / identity / key[:2] / f"{key}.npz"


def _compute(
    lake: Lake,
    embedder: Embedder,
    missing: list[tuple[ClipSpan, Path]],
    failures: dict[str, str],
) -> Iterator[tuple[ClipSpan, Path, ClipVector]]:
    """Decode and embed batches of clips. Reasons of clips that cannot be decoded go to `failures`."""
    model = OpenClip(embedder)
    clips_at_once = max(1, embedder.batch_size // embedder.frames)
    for start in range(0, len(missing), clips_at_once):
        decoded = []
        for clip, file in missing[start : start + clips_at_once]:
            try:
                frames = uniform_frames(
                    MediaFile(clip.media_sha256, lake.media),
                    embedder.frames,
                    clip.start_s,
                    clip.end_s,
                    media_sha256=clip.media_sha256,
                    stored=lake.frames,
                )
                decoded.append((clip, file, frames.pixels))
            except VideoError as error:
                failures[clip.clip_id] = str(error)
        if not decoded:
            continue
        by_frame = model.embed_frames([frame for _, _, pixels in decoded for frame in pixels])
        by_clip = _unit(by_frame.reshape(len(decoded), embedder.frames, -1).mean(axis=1))
        for (clip, file, pixels), embedding in zip(decoded, np.round(by_clip, _DECIMALS), strict=True):
            thumbnails = np.stack([resize(frame, (THUMBNAIL_SIDE, THUMBNAIL_SIDE)) for frame in pixels])
            yield clip, file, ClipVector(embedding, thumbnails)


def _load(embedder: Embedder) -> tuple[Any, Any, Any]:
    import open_clip

    folder = Path(embedder.model)
    name = f"local-dir:{folder}" if folder.is_dir() else embedder.model
    _refuse_random_weights(embedder, folder)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=embedder.pretrained, device=embedder.device
        )
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip raises many types for a wrong name, tag or file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EmbedderError(
            f"corpus.embedder.model {quoted(embedder.model)} (pretrained {embedder.pretrained!r}) cannot be "
            f"loaded: {reason}; give an open_clip name and tag, or a folder with open_clip_config.json"
        ) from error
    return model.eval(), preprocess, tokenizer


def _refuse_random_weights(embedder: Embedder, folder: Path) -> None:
    """Raise an error if there are no weights. open_clip only warns and uses random weights."""
    if folder.is_dir():
        if not any(path.suffix in _WEIGHTS for path in folder.iterdir()):
            raise EmbedderError(f"corpus.embedder.model {quoted(folder)} holds no weights; copy them there")
    elif embedder.pretrained is None and ":" not in embedder.model:
        raise EmbedderError(
            f"corpus.embedder.model {quoted(embedder.model)} needs a tag of weights; "
            "set corpus.embedder.pretrained"
        )


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)


def _packed(vector: ClipVector) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, embedding=vector.embedding, thumbnails=vector.thumbnails)
    return buffer.getvalue()


def _read(file: Path) -> ClipVector | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return ClipVector(arrays["embedding"], arrays["thumbnails"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
