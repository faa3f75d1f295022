"""Questions to video language models, local or served, behind one protocol and one ledger.

A local checkpoint is known by the hash of its files (and of its adapter's), so the same question to
the same weights is generated once, whatever the folder is called. An answer does not depend on the
other questions of its batch: sampling noise comes from the question's own key.
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
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

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
from safevid_core.video.errors import passes
from safevid_core.video.pictures import read_picture
from safevid_core.video.uniform_frames import uniform_frames

# Raised when the inputs or the way of sampling change what a local model answers.
GENERATION = "generation/2"
# Batches whose questions are sorted by length together; their frames are in memory together.
_BATCHES_SORTED_TOGETHER = 16
_JPEG_QUALITY = 90
_PICTURES = ("still", "image")
# What sees is small beside what speaks, and what it loses nothing later brings back.
_NOT_QUANTISED = ("model.vision_tower", "model.visual", "model.multi_modal_projector", "lm_head")


class CheckpointError(SafeVidError, RuntimeError):
    """A checkpoint that cannot be loaded; the message names it and the mend."""


@dataclass(frozen=True, slots=True)
class VideoQuestion:
    """One question about a video, or asked without one.

    Attributes:
        path: The file that is shown, or a `MediaFile` that finds it when it is opened. Needed for all but
            `none`.
        media_sha256: Of that file; computed where None.
        start_s: Span of the clip within the file, in seconds.
        end_s: End of the span. Defaults to the file's end.
        video: What is shown: the clip, nothing, grey frames of the clip's count and size, or a picture: as a
            video of one frame (`still`) or in the way the model takes images (`image`).
        system: A system message. Defaults to none.
        sample_index: Tells repeated samples of one question apart.
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
        """What the model is fed; a batch holds one kind."""
        if self.video == "right" or self.video == "blank":
            return "video"
        return self.video


class VideoChat(Protocol):
    """A video language model that answers questions."""

    def answer_many(self, questions: Sequence[VideoQuestion], *, asset: str) -> list[ChatAnswer]:
        """Answers in the order of the questions; a question that cannot be asked ends `failed`."""

    def keys(self, questions: Sequence[VideoQuestion]) -> list[str]:
        """The questions' keys in the ledger, in their order."""


def open_video_chat(model: VideoModel, gateway: Gateway, *, adapter: Path | None = None) -> VideoChat:
    """The model behind the protocol; a local one is loaded when the first question needs it.

    Args:
        adapter: Folder of a peft adapter to merge into a local checkpoint.

    Raises:
        CheckpointError: If a local folder holds no checkpoint, or an adapter is given for a model that is
            served or quantised.
        FamilyError: If there is no such family.
    """
    family_of(model.family)
    if adapter is not None and model.quantisation != "none":
        raise CheckpointError(
            f"{model.path}: an adapter is merged into whole weights; set quantisation: none"
        )
    if model.served_at is None:
        return LocalVideoChat(model, gateway, adapter=adapter)
    if adapter is not None:
        raise CheckpointError(f"{model.path} is served at {model.served_at}; load the adapter in that server")
    return ServedVideoChat(model, gateway)


# ------------------------------------------------------------------------------------- local models


def load_local(model: VideoModel, adapter: Path | None = None) -> tuple[Any, Any]:
    """A checkpoint in evaluation mode, its adapter merged, and its processor.

    Args:
        adapter: Folder of a peft adapter, or of whole weights that take the place of the checkpoint's.

    Raises:
        CheckpointError: If the folder is missing or is no checkpoint of a video language model.
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
            ignore_mismatched_sizes=True,  # refused below, by name
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
            f"checkpoint {folder} lacks {len(lacking)} of the model's weights, {min(lacking)} the first; "
            "fetch it whole"
        )
    space_as_trained(loaded)
    if adapter is not None and not whole:
        loaded = with_adapter(loaded, adapter, model.path).merge_and_unload()
    return loaded.to(model.device).eval(), processor


def with_adapter(loaded: Any, adapter: Path, base: str) -> Any:
    """A model with a peft adapter, every weight of which has found its place.

    peft loads an adapter of another model with no more than a warning, and what answers then is the base.

    Raises:
        CheckpointError: If the adapter cannot be read, or its weights and those of the model differ in name.
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
    # Beside an adapter of the embedding peft may store the embedding itself.
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
    """The folders of those models that are local."""
    return [Path(model.path) for model in models if model.served_at is None and Path(model.path).is_dir()]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _quantised(model: VideoModel) -> dict[str, Any]:
    """What `from_pretrained` is told of the quantisation; weights are quantised on the device."""
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
    """What the weights are: a hash of the checkpoint's files, or the hub id and revision.

    Raises:
        CheckpointError: If a folder that should hold a checkpoint or an adapter does not.
    """
    folder = Path(model.path)
    if folder.is_dir():
        identity = _folder_hash(folder)
    elif folder.is_absolute() or model.path.startswith("."):
        raise CheckpointError(f"checkpoint folder {model.path} does not exist; mend the model's `path`")
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
    """SHA-256 of the file that a question shows, empty where it shows none."""
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
        raise VideoError(line, of_the_moment=passes(error)) from None


class LocalVideoChat:
    """A transformers checkpoint, asked in batches."""

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
        order = _by_video(questions)
        ordered = [questions[place] for place in order]
        keys = self.keys(ordered)
        answers = self._gateway.settle(keys, lambda: _LocalCaller(self, keys, ordered, asset), asset)
        return [answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda each: each[0])]

    def keys(self, questions: Sequence[VideoQuestion]) -> list[str]:
        return [self._key(question) for question in questions]

    @property
    def stored_frames(self) -> FrameCache:
        """The cache that decoded frames come from."""
        return self._gateway.frames

    def loaded(self) -> tuple[Any, Any]:
        """The model and its processor, loaded once."""
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


def _by_video(questions: Sequence[VideoQuestion]) -> list[int]:
    """The questions' places, those about one video side by side, videos in the order of their first."""
    places: dict[Any, list[int]] = {}
    for place, question in enumerate(questions):
        places.setdefault(_begins_with(question), []).append(place)
    return [place for some in places.values() for place in some]


def _clip_of(question: VideoQuestion) -> Any:
    """What a question shows; None where it shows nothing."""
    if question.video == "none":
        return None
    return (question.video, question.path, question.start_s, question.end_s)


def _begins_with(question: VideoQuestion) -> Any:
    """What precedes a question's own text in its prompt."""
    return (_clip_of(question), question.system)


def _shown_of(question: VideoQuestion, frames: int, media: str) -> list[Any]:
    """What of a video a question shows, for the request key."""
    if question.video == "none":
        return ["none"]
    if question.video in _PICTURES:
        return [question.video, media, DECODING_REVISION]
    span = [question.start_s, question.end_s]
    return [question.video, media, f"uniform/{frames}", *span, DECODING_REVISION]


class _Together(NamedTuple):
    """A question that shares its video with others: its position, its video and its number there."""

    position: int
    asked: AskedVideo
    number: int


class _LocalCaller:
    """Generates the answers that the ledger does not have, window by window."""

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
                    again=error.of_the_moment,
                )
                for position, error in unusable.items()
            ]
        usable = [position for position in window if position not in unusable]
        together, alone = self._by_sharing(usable, frames)
        videos = SharedVideos(self._chat.model, *self._chat.loaded()) if together else None
        size = self._chat.model.batch_size
        for start in range(0, len(together), size):
            assert videos is not None
            results, left = self._answer_together(together[start : start + size], videos)
            alone += left
            if results:
                yield results
        for batch in self._batches(alone):
            yield self._answer_batch(batch, [frames[self._clip(position)] for position in batch])

    def _by_sharing(
        self, positions: list[int], frames: Mapping[Any, Frames | None]
    ) -> tuple[list[_Together], list[int]]:
        """The questions that share a video with another one, side by side, and the others."""
        groups: dict[Any, list[int]] = {}
        for position in positions:
            groups.setdefault(_begins_with(self._questions[position]), []).append(position)
        several = [some for (clip, _), some in groups.items() if clip is not None and len(some) > 1]
        if not several or not self._chat.can_share():
            return [], positions
        together = [each for some in several for each in self._together(some, frames)]
        shared = {each.position for each in together}
        return together, [position for position in positions if position not in shared]

    def _together(self, positions: list[int], frames: Mapping[Any, Frames | None]) -> Iterator[_Together]:
        video = frames[self._clip(positions[0])]
        assert video is not None
        kind = self._questions[positions[0]].kind
        conversations = [self._conversation(position) for position in positions]
        keys = [self._keys[position] for position in positions]
        asked = AskedVideo(video, kind == "image", conversations, keys)
        for number, position in enumerate(positions):
            yield _Together(position, asked, number)

    def _answer_together(
        self, batch: Sequence[_Together], videos: SharedVideos
    ) -> tuple[list[CallResult], list[int]]:
        """The answers of a batch, and the questions whose prompts share no beginning."""
        started = time.monotonic()
        said = videos.generate([(each.asked, each.number) for each in batch])
        seconds = (time.monotonic() - started) / len(batch)
        results, left = [], []
        for each, tokens in zip(batch, said, strict=True):
            if tokens is None:
                left.append(each.position)
                continue
            loaded, processor = self._chat.loaded()
            answer = read_ids(processor, loaded, tokens[1], tokens[0])
            call = self._answered(each.position, answer, each.asked.frames, seconds)
            results.append(CallResult(each.position, call))
        return results, left

    def _decode(self, window: list[int]) -> tuple[dict[Any, Frames | None], dict[int, VideoError]]:
        """The frames of each clip once, and what is wrong for each question whose video is unusable."""
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
        """Questions of like length together, each kind apart."""
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
    """The `n` frames that a question shows; None where it shows none.

    Args:
        stored: Cache of decoded frames. None decodes them.

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
    """A model behind an OpenAI-compatible server; frames go as JPEG images before the text."""

    def __init__(self, model: VideoModel, gateway: Gateway) -> None:
        self.model = model
        self.identity = f"{model.path}@{model.revision}"
        self._side = family_of(model.family).frame_side
        self._gateway = gateway
        self._text_model = TextModel(
            model=model.path,
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
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)  # which never makes it larger
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
