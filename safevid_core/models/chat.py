"""Questions and answers: what goes in at the gateway's door and what comes out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from safevid_core.models.ledger import Call
from safevid_core.records import Outcome
from safevid_core.settings import TextModel

# Makes the messages to send, and the seconds of the frames in them.
Render = Callable[[], tuple[list[dict[str, Any]], tuple[float, ...]]]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a text model.

    Attributes:
        messages: Chat messages as the provider takes them; part of the request key.
        media: SHA-256 of each medium that the messages stand for; part of the request key.
        sample_index: Tells repeated samples of one question apart.
        render: Makes the messages to send where they are costly (frames), only if the call is made.
            `messages` and `media` must name everything that it puts in. A `ValueError` from it fails
            this question alone, with the error's line as the reason.
        images: How many images `render` puts in, for the price that is set aside.
    """

    model: TextModel
    messages: list[dict[str, Any]]
    media: tuple[str, ...] = ()
    sample_index: int = 0
    render: Render | None = field(default=None, compare=False, repr=False)
    images: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What came of one question; `text` is None unless the outcome is `ok`.

    Attributes:
        cached: True where no call was made for this question in this request.
        cost_usd: What this process paid for it now; 0 where cached.
        frame_times: Seconds of the frames that were shown, for questions about a video.
        model: The model that answered: the second, where the first refused and there is one.
        unanswered: Whether no model could be reached; the next run asks again.
        cut: Whether the answer was cut off at its limit of tokens.
        said: All that the model said, its thinking included; empty if `text` is all of it.
    """

    request_key: str
    text: str | None
    outcome: Outcome
    reason: str
    cached: bool
    cost_usd: float
    tokens_in: int
    tokens_out: int
    frame_times: tuple[float, ...] = ()
    model: str = ""
    revision: str = ""
    unanswered: bool = False
    cut: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class CallResult:
    """One finished try at a question, before it is stored.

    Attributes:
        billed: Whether a model answered at all. What it did not answer is not stored.
        again: Whether a question that was not answered may be when it is asked again.
        lost: Whether the claim on the question had lapsed, so that it was not asked.
        error: A fault in our own code, raised again where the question came from.
    """

    position: int
    call: Call
    billed: bool = True
    again: bool = False
    lost: bool = False
    error: BaseException | None = None


class Caller(Protocol):
    """What makes the calls that the ledger has no answer to; see :meth:`Gateway.settle`."""

    portion: int  # questions to hand over at once

    def bound(self, position: int) -> float:
        """The most that a question can cost, in USD; asked only where there is a budget."""

    def start(self, positions: Sequence[int], holds: Callable[[], bool]) -> None:
        """Begin to ask.

        Args:
            holds: Whether the claims on these questions are ours still; looked at before one is paid for.
        """

    def collect(self) -> list[CallResult]:
        """Finished results, at least one; called only while some are outstanding."""

    def stop(self) -> list[CallResult]:
        """Ask nothing more; what has come in and was not collected, after a short wait for what was sent."""


def request_key(request: ChatRequest) -> str:
    """Hex id of what the provider sees: model, revision, messages, media, sampling, sample index.

    The address of the server and the name of the key's variable are left out: they do not change the
    answer. Raise `revision` when another model moves in at the same name.
    """
    return _key(_model_part(request.model), request.messages, request.media, request.sample_index)


def _key(model_part: str, messages: Any, media: Sequence[str], sample_index: int) -> str:
    body = _ENCODER.encode([messages, list(media), sample_index])
    return hashlib.sha256(f"{model_part}{body}".encode()).hexdigest()[:32]


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=256)
def _model_part(model: TextModel) -> str:
    return json.dumps(["chat/1", model.model, model.revision, model.temperature, model.max_tokens])


def text_of_times(times_s: Sequence[float]) -> str:
    """Frame times as the ledger keeps them: seconds to the millisecond, comma-separated."""
    return ",".join(f"{time_s:.3f}" for time_s in times_s)


def times_of_text(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(","))) if text else ()
