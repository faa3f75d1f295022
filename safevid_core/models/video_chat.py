"""Asks video language models, local or served, through one protocol and one ledger.

A local checkpoint is identified by the hash of its files and of its adapter's files. So an answer of the same
weights to the same question is generated once, also if the folder is renamed. An answer does not depend on
the other questions of its batch, because the sampling noise is seeded with the question's key.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, Protocol

from safevid_core.contracts.errors import SafeVidError
from safevid_core.models.chat import CallResult, ChatAnswer, ChatRequest, request_key, text_of_times
from safevid_core.models.families import conversation, family_of
from safevid_core.models.generation import Generated, generate, read_ids
from safevid_core.models.ledger import Call
from safevid_core.models.llm import Gateway
from safevid_core.models.rope import space_as_trained
from safevid_core.models.shared_videos import AskedVideo, SharedVideos
from safevid_core.settings import TextModel, VideoModel
from safevid_core.storage.file_hashes import FileHashes, file_sha256
from safevid_core.storage.frames import FrameCache
from safevid_core.video.decoding import DECODING_REVISION, Frames, VideoError, blank_like
from safevid_core.video.errors import is_transient
from safevid_core.video.pictures import read_picture
from safevid_core.video.uniform_frames import uniform_frames

# Raised when a change of the inputs or of the sampling changes the answers of a local model.
GENERATION = "generation/2"
# The questions of this many batches are sorted by length together. Their frames are in memory together.
_BATCHES_SORTED_TOGETHER = 16
_JPEG_QUALITY = 90
_PICTURES = ("still", "image")
# The vision tower is small compared to the language model, and its quantisation error lowers the quality.
_NOT_QUANTISED = ("model.vision_tower", "model.visual", "model.multi_modal_projector", "lm_head")


class CheckpointError(SafeVidError, RuntimeError):
    """A checkpoint cannot be loaded. The message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class VideoQuestion:
    """One question, with or without a video.

    Attributes:
        path: The file that is shown, or a `MediaFile`, whose path is looked up when it is opened. Required
            unless `video` is `none`.
        media_sha256: Hash of the file. None computes it.
        start_s: Start of the clip's span in the file, in seconds.
        end_s: End of the span. None means the end of the file.
        video: What is shown. `right`: the clip. `none`: nothing. `blank`: grey frames, as many and as large
            as those of the clip. `still`: a picture as a video of one frame. `image`: a picture in the form
            in which the model takes images.
        system: A system message. None means no system message.
        sample_index: Distinguishes repeated samples of one question.
    """

    prompt: str
    path: str | os.PathLike[str] | None = None
    media_sha256: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    video: Literal["right", "none", "blank", "still", "image"] = "right"
    system: str | None = None
    sample_index: int = 0

    @property
    def kind(self) -> Literal["video", "still", "image", "none"]:
        """The kind of input that the model gets. All questions of a batch have the same kind."""
        if self.video == "right" or self.video == "blank":
            return "video"
        return self.video


class VideoChat(Protocol):
    """A video language model that answers questions."""

    def answer_many(self, questions: Sequence[VideoQuestion], *, asset: str) -> list[ChatAnswer]:
        """The answers in the order of the questions. A question that cannot be asked ends `failed`."""

    def keys(self, questions: Sequence[VideoQuestion]) -> list[str]:
        """The ledger keys of the questions, in their order."""


def open_video_chat(model: VideoModel, gateway: Gateway, *, adapter: Path | None = None) -> VideoChat:
    """Open a model. A local model is loaded when the first question needs it.

    Args:
        adapter: Folder of a peft adapter to merge into a local checkpoint. None means no adapter.

    Raises:
        CheckpointError: If a local folder holds no checkpoint, or if an adapter is given for a model that is
            served or quantised.
        FamilyError: If the family is unknown.
    """
    family_of(model.family)
    if adapter is not None and model.quantisation != "none":
        raise CheckpointError(
            f"{model.path}: an adapter cannot be merged into quantised weights; set quantisation: none"
        )
    if model.served_at is None:
        return LocalVideoChat(model, gateway, adapter=adapter)
    if adapter is not None:
        raise CheckpointError(f"{model.path} is served at {model.served_at}; load the adapter in that server")
    return ServedVideoChat(model, gateway)


# ------------------------------------------------------------------------------------- local models


def load_local(model: VideoModel, adapter: Path | None = None) -> tuple[Any, Any]:
    """Load a checkpoint in evaluation mode, with its adapter merged, and its processor.

    Args:
        adapter: Folder of a peft adapter, or of complete weights that replace those of the checkpoint. None
            means neither.

    Raises:
        CheckpointError: If the folder is missing or is not a checkpoint of a video language model.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = {} if Path(model.path).is_dir() else {"revision": model.revision}
    whole = adapter is not None and not (adapter / "adapter_config.json").exists()
    folder = str(adapter) if whole else model.path
    try:
        processor = AutoProcessor.from_pretrained(model.path, **where)
        loaded, told = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=getattr(torch, model.dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # an error below names them
            **where,
            **_quantised(model),
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise CheckpointError(
            f"checkpoint {folder} cannot be loaded ({_first_line(error)}); check its path or fetch it again"
        ) from None
    lacking = {*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])}
    if lacking:
        raise CheckpointError(
            f"checkpoint {folder} lacks {len(lacking)} of the model's weights, the first is {min(lacking)}; "
            "fetch it again"
        )
    space_as_trained(loaded)
    if adapter is not None and not whole:
        loaded = with_adapter(loaded, adapter, model.path).merge_and_unload()
    return loaded.to(model.device).eval(), processor


def with_adapter(loaded: Any, adapter: Path, base: str) -> Any:
    """The model with a peft adapter, after a check that every weight of the adapter is loaded.

    peft only warns if the adapter is of another model. The base model would then answer without an adapter.

    Raises:
        CheckpointError: If the adapter cannot be read, or if its weights and those of the model have
            different names.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights
    from safetensors import SafetensorError

    try:
        adapted = PeftModel.from_pretrained(loaded, str(adapter))
        given = set(load_peft_weights(str(adapter), device="cpu"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"adapter {adapter} does not fit {base} ({_first_line(error)}); "
            "give the base model that it was trained on"
        ) from None
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    # With an adapter of the embedding, peft may store the embedding too.
    taken = set(get_peft_model_state_dict(adapted, save_embedding_layers=True))
    if not (given and wanted <= given <= taken):
        fit, odd = len(given & wanted), sorted((wanted - given) | (given - taken))[:1]
        raise CheckpointError(
            f"adapter {adapter} does not fit {base}: {fit} of its {len(given)} weights and of the "
            f"{len(wanted)} that the model takes have the same name{f', {odd[0]} has not' if odd else ''}; "
            "give the base model that it was trained on"
        )
    return adapted


def model_files(*models: VideoModel) -> list[Path]:
    """The folders of the local ones among the models."""
    return [Path(model.path) for model in models if model.served_at is None and Path(model.path).is_dir()]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _quantised(model: VideoModel) -> dict[str, Any]:
    """The arguments of `from_pretrained` for the quantisation. Weights are quantised on the device."""
    if model.quantisation == "none":
        return {}
    if find_spec("bitsandbytes") is None:
        raise CheckpointError(
            f"{model.path}: quantisation: {model.quantisation} needs bitsandbytes, which is not installed; "
            "install it (`uv pip install bitsandbytes`) or set quantisation: none"
        )
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, model.dtype),
        llm_int8_skip_modules=list(_NOT_QUANTISED),
    )
    return {"quantization_config": config, "device_map": {"": model.device}}


def checkpoint_identity(model: VideoModel, adapter: Path | None = None) -> str:
    """The identity of the weights: a hash of the checkpoint's files, or the hub id and revision.

    Raises:
        CheckpointError: If the folder of a checkpoint or an adapter does not exist or is empty.
    """
    folder = Path(model.path)
    if folder.is_dir():
        identity = _folder_hash(folder)
    elif folder.is_absolute() or model.path.startswith("."):
        raise CheckpointError(f"checkpoint folder {model.path} does not exist; fix the model's `path`")
    else:
        identity = f"{model.path}@{model.revision}"
    if adapter is None:
        return identity
    if not adapter.is_dir():
        raise CheckpointError(f"adapter folder {adapter} does not exist; materialise dpo_checkpoint again")
    return f"{identity}+{_folder_hash(adapter)}"


def _folder_hash(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise CheckpointError(f"folder {folder} is empty; put a checkpoint there")
    stamps = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return _hash_of_files(str(folder), stamps)


@lru_cache(maxsize=64)
def _hash_of_files(folder: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in stamps:
        digest.update(Path(path).relative_to(folder).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(file_sha256(Path(path))))
    return digest.hexdigest()[:32]


def _media_of(question: VideoQuestion, hashes: FileHashes) -> str:
    """SHA-256 of the file that a question shows. Empty if it shows none."""
    if question.video == "none":
        return ""
    if question.media_sha256 is not None:
        return question.media_sha256
    if question.path is None:
        raise VideoError("a question about a video names no file; give its path")
    try:
        return hashes.sha256(os.fspath(question.path))
    except OSError as error:
        line = f"video {question.path} cannot be read ({error.strerror}); restore it"
        raise VideoError(line, transient=is_transient(error)) from None


class LocalVideoChat:
    """A local transformers checkpoint that is asked in batches."""

    def __init__(
        self,
        model: VideoModel,
        gateway: Gateway,
        *,
        adapter: Path | None = None,
    ) -> None:
        self.model = model
        self.identity = checkpoint_identity(model, adapter)
        self._gateway = gateway
        self._adapter = adapter
        self._loaded: tuple[Any, Any] | None = None

    def answer_many(self, questions: Sequence[VideoQuestion], *, asset: str) -> list[ChatAnswer]:
        # Questions about one video are asked together, because they share its computation.
        order = _grouped_by_video(questions)
        ordered = [questions[index] for index in order]
        keys = self.keys(ordered)
        answers = self._gateway.get_or_ask(keys, lambda: _LocalCaller(self, keys, ordered, asset), asset)
        return [answer for _, answer in sorted(zip(order, answers, strict=True), key=itemgetter(0))]

    def keys(self, questions: Sequence[VideoQuestion]) -> list[str]:
        return [self._key(question) for question in questions]

    @property
    def stored_frames(self) -> FrameCache:
        """The cache of decoded frames."""
        return self._gateway.frames

    def loaded(self) -> tuple[Any, Any]:
        """The model and its processor. They are loaded at the first call."""
        if self._loaded is None:
            if self.model.threads is not None:
                import torch

                torch.set_num_threads(self.model.threads)
            self._loaded = load_local(self.model, self._adapter)
        return self._loaded

    def can_share(self) -> bool:
        """Whether questions about one video can share its computation."""
        from safevid_core.models.shared_generation import can_share

        return can_share(self.loaded()[0])

    def _key(self, question: VideoQuestion) -> str:
        model = self.model
        try:
            media = _media_of(question, self._gateway.frames.hashes)
        except VideoError as error:
            media = f"unreadable:{error}"
        parts = [
            GENERATION, self.identity, model.family, model.precision, model.max_new_tokens,
            *model.decoding, question.system, question.prompt,
            *_shown_of(question, model.frames, media), question.sample_index,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _grouped_by_video(questions: Sequence[VideoQuestion]) -> list[int]:
    """The indices of all questions. Questions about one video are side by side.

    Example: the questions about the videos A, B, A have the order 0, 2, 1.
    """
    groups: dict[Any, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(_prefix_of(question), []).append(index)
    return [index for group in groups.values() for index in group]


def _clip_of(question: VideoQuestion) -> Any:
    """The file and span that a question shows. None if it shows none."""
    if question.video == "none":
        return None
    return (question.video, question.path, question.start_s, question.end_s)


def _prefix_of(question: VideoQuestion) -> Any:
    """The clip and the system message, which precede the text of a question in its prompt."""
    return (_clip_of(question), question.system)


def _shown_of(question: VideoQuestion, frames: int, media: str) -> list[Any]:
    """The part of the request key that says what a question shows."""
    if question.video == "none":
        return ["none"]
    if question.video in _PICTURES:
        return [question.video, media, DECODING_REVISION]
    span = [question.start_s, question.end_s]
    return [question.video, media, f"uniform/{frames}", *span, DECODING_REVISION]


@dataclass(frozen=True, slots=True)
class _SharedQuestion:
    """A question that shares its video with other questions.

    Attributes:
        position: Its position among the questions of the caller.
        video: The video, with the conversations of all questions about it.
        index: Index of its conversation there.
    """

    position: int
    video: AskedVideo
    index: int


class _LocalCaller:
    """Generates the answers that the ledger does not have. A window of several batches is decoded at once.

    Within a window, a video that several questions show is computed once (:class:`SharedVideos`). The other
    questions are answered as padded rows (:func:`~safevid_core.models.generation.generate`).
    """

    def __init__(
        self, chat: LocalVideoChat, keys: Sequence[str], questions: Sequence[VideoQuestion], asset: str
    ) -> None:
        self.portion = _BATCHES_SORTED_TOGETHER * chat.model.batch_size
        self._chat = chat
        self._keys = keys
        self._questions = questions
        self._asset = asset
        self._waiting: deque[int] = deque()
        self._running: Iterator[list[CallResult]] = iter(())

    def bound(self, position: int) -> float:
        return 0.0

    def start(self, positions: Sequence[int], holds: Callable[[], bool]) -> None:
        self._waiting.extend(positions)

    def collect(self) -> list[CallResult]:
        while True:
            for results in self._running:
                return results
            window = [self._waiting.popleft() for _ in range(min(self.portion, len(self._waiting)))]
            self._running = self._answer_window(window)

    def stop(self) -> list[CallResult]:
        self._waiting.clear()
        return []

    def _answer_window(self, window: list[int]) -> Iterator[list[CallResult]]:
        frames, unusable = self._decode(window)
        if unusable:
            yield [
                CallResult(
                    position,
                    self._call(position, reason=str(error).splitlines()[0]),
                    billed=False,
                    again=error.transient,
                )
                for position, error in unusable.items()
            ]
        usable = [position for position in window if position not in unusable]
        shared, single = self._split_by_sharing(usable, frames)
        videos = SharedVideos(self._chat.model, *self._chat.loaded()) if shared else None
        size = self._chat.model.batch_size
        for start in range(0, len(shared), size):
            assert videos is not None
            results, not_shared = self._answer_shared_batch(shared[start : start + size], videos)
            single += not_shared
            if results:
                yield results
        for batch in self._batches(single):
            yield self._answer_batch(batch, [frames[self._clip(position)] for position in batch])

    def _split_by_sharing(
        self, positions: list[int], frames: Mapping[Any, Frames | None]
    ) -> tuple[list[_SharedQuestion], list[int]]:
        """The questions that share a video, those about one video side by side, and all other questions."""
        groups: dict[Any, list[int]] = {}
        for position in positions:
            groups.setdefault(_prefix_of(self._questions[position]), []).append(position)
        sharing = [group for (clip, _), group in groups.items() if clip is not None and len(group) > 1]
        if not sharing or not self._chat.can_share():
            return [], positions
        shared = [question for group in sharing for question in self._shared_questions(group, frames)]
        places = {question.position for question in shared}
        return shared, [position for position in positions if position not in places]

    def _shared_questions(
        self, positions: list[int], frames: Mapping[Any, Frames | None]
    ) -> Iterator[_SharedQuestion]:
        """The questions about one video."""
        shown = frames[self._clip(positions[0])]
        assert shown is not None
        kind = self._questions[positions[0]].kind
        conversations = [self._conversation(position) for position in positions]
        keys = [self._keys[position] for position in positions]
        video = AskedVideo(shown, kind == "image", conversations, keys)
        for index, position in enumerate(positions):
            yield _SharedQuestion(position, video, index)

    def _answer_shared_batch(
        self, batch: Sequence[_SharedQuestion], videos: SharedVideos
    ) -> tuple[list[CallResult], list[int]]:
        """The answers of a batch, and the positions of questions whose prompts have no common prefix."""
        started = time.monotonic()
        generated = videos.generate([(question.video, question.index) for question in batch])
        seconds = (time.monotonic() - started) / len(batch)
        loaded, processor = self._chat.loaded()
        results, not_shared = [], []
        for question, tokens in zip(batch, generated, strict=True):
            if tokens is None:
                not_shared.append(question.position)
                continue
            prompt_tokens, ids = tokens
            answer = read_ids(processor, loaded, ids, prompt_tokens)
            call = self._answered(question.position, answer, question.video.frames, seconds)
            results.append(CallResult(question.position, call))
        return results, not_shared

    def _decode(self, window: list[int]) -> tuple[dict[Any, Frames | None], dict[int, VideoError]]:
        """Decode each clip once.

        Returns:
            Clip -> frames, and position -> error for the questions whose video is unusable.
        """
        frames: dict[Any, Frames | None] = {}
        broken: dict[Any, VideoError] = {}
        for position in window:
            clip = self._clip(position)
            if clip in frames or clip in broken:
                continue
            try:
                frames[clip] = frames_of(
                    self._questions[position], self._chat.model.frames, self._chat.stored_frames
                )
            except VideoError as error:
                broken[clip] = error
        return frames, {p: broken[self._clip(p)] for p in window if self._clip(p) in broken}

    def _clip(self, position: int) -> Any:
        return _clip_of(self._questions[position])

    def _batches(self, positions: list[int]) -> Iterator[list[int]]:
        """Batches of questions of one kind and of similar length."""
        size = self._chat.model.batch_size
        for kind in ("video", "still", "image", "none"):
            some = [p for p in positions if self._questions[p].kind == kind]
            some.sort(key=self._length)
            for start in range(0, len(some), size):
                yield some[start : start + size]

    def _length(self, position: int) -> tuple[int, str]:
        question = self._questions[position]
        return len(question.prompt) + len(question.system or ""), self._keys[position]

    def _answer_batch(self, batch: list[int], videos: list[Frames | None]) -> list[CallResult]:
        started = time.monotonic()
        kind = self._questions[batch[0]].kind
        prompts = [self._conversation(position) for position in batch]
        keys = [self._keys[position] for position in batch]
        answers = generate(
            self._chat.model, *self._chat.loaded(), prompts, videos, keys, as_images=kind == "image"
        )
        seconds = (time.monotonic() - started) / len(batch)
        return [
            CallResult(position, self._answered(position, answer, video, seconds))
            for position, answer, video in zip(batch, answers, videos, strict=True)
        ]

    def _conversation(self, position: int) -> list[dict[str, Any]]:
        question = self._questions[position]
        shown = {"video": question.kind != "none", "image": question.kind == "image"}
        return conversation(question.prompt, system=question.system, **shown)

    def _answered(self, position: int, answer: Generated, video: Frames | None, seconds: float) -> Call:
        known: dict[str, Any] = {
            "outcome": "ok" if answer.text else "failed",
            "reason": "" if answer.text else f"empty answer (finish reason {answer.finish_reason})",
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "frame_times": text_of_times(video.times_s) if video is not None else "",
            "tokens_in": answer.tokens_in,
            "tokens_out": answer.tokens_out,
        }
        return self._call(position, latency_s=seconds, attempts=1, **known)

    def _call(self, position: int, **known: Any) -> Call:
        model = Path(self._chat.model.path).name
        return Call(self._keys[position], model, self._chat.identity, self._asset, **known)


def frames_of(question: VideoQuestion, n: int, stored: FrameCache | None = None) -> Frames | None:
    """The `n` frames that a question shows. None if it shows none.

    Args:
        stored: Cache of decoded frames. None decodes without a cache.

    Raises:
        VideoError: If the file cannot be decoded.
    """
    if question.video == "none":
        return None
    if question.path is None:
        raise VideoError("a question about a video names no file; give its path")
    if question.video in _PICTURES:
        return Frames(read_picture(question.path)[None], [0.0])
    frames = uniform_frames(
        question.path,
        n,
        question.start_s,
        question.end_s,
        media_sha256=question.media_sha256,
        stored=stored,
    )
    if question.video == "right":
        return frames
    return Frames(blank_like(n, *frames.pixels.shape[1:3]), frames.times_s, frames.span_s)


# ------------------------------------------------------------------------------------ served models


class ServedVideoChat:
    """A model behind an OpenAI-compatible server. Frames are sent as JPEG images before the text."""

    def __init__(self, model: VideoModel, gateway: Gateway) -> None:
        self.model = model
        self.identity = f"{model.path}@{model.revision}"
        self._side = family_of(model.family).frame_side
        self._gateway = gateway
        self._text_model = TextModel(
            model=model.path,
            family=None,
            revision=model.revision,
            temperature=model.temperature,
            max_tokens=model.max_new_tokens,
            api_base=model.served_at,
            api_key_env=model.api_key_env,
            second=None,
        )

    def answer_many(self, questions: Sequence[VideoQuestion], *, asset: str) -> list[ChatAnswer]:
        return self._gateway.ask_many([self._request(question) for question in questions], asset=asset)

    def keys(self, questions: Sequence[VideoQuestion]) -> list[str]:
        return [request_key(self._request(question)) for question in questions]

    def _request(self, question: VideoQuestion) -> ChatRequest:
        try:
            media = _media_of(question, self._gateway.frames.hashes)
        except VideoError as error:
            media = f"unreadable:{error}"
        shown = _shown_of(question, self.model.frames, media)
        return ChatRequest(
            self._text_model,
            _messages(
                question, [{"type": "frames", "frames": shown, "jpeg": _JPEG_QUALITY, "side": self._side}]
            ),
            media=(media,) if media else (),
            sample_index=question.sample_index,
            render=lambda: self._render(question),
            images={"video": self.model.frames, "none": 0}.get(question.kind, 1),
        )

    def _render(self, question: VideoQuestion) -> tuple[list[dict[str, Any]], tuple[float, ...]]:
        frames = frames_of(question, self.model.frames, self._gateway.frames)
        if frames is None:
            return _messages(question, []), ()
        images = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_jpeg(pixels, self._side)}"}}
            for pixels in frames.pixels
        ]
        return _messages(question, images), tuple(frames.times_s)


def _messages(question: VideoQuestion, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    content = [*shown, {"type": "text", "text": question.prompt}]
    system = [{"role": "system", "content": question.system}] if question.system is not None else []
    return [*system, {"role": "user", "content": content}]


def _jpeg(pixels: Any, side: int) -> str:
    from PIL import Image

    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)  # thumbnail never enlarges
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
