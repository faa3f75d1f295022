"""Data classes for the questions and answers of the gateway, and the request key of a question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from safevid_core.contracts.outcomes import Outcome
from safevid_core.models.ledger import Call
from safevid_core.settings import TextModel

# Returns the messages to send and the times in seconds of their frames.
Render = Callable[[], tuple[list[dict[str, Any]], tuple[float, ...]]]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a text model.

    Attributes:
        model: The model and its sampling settings.
        messages: Chat messages in the provider's form. They are part of the request key.
        media: SHA-256 of each medium that the messages stand for. They are part of the request key.
        sample_index: Distinguishes repeated samples of one question. Part of the request key.
        render: Returns the messages to send, if they are expensive to make (frames). It runs only if the call
            is made. `messages` and `media` must determine its result. If it raises a `ValueError`, only this
            question fails, with the first line of the error as reason. None sends `messages`.
        images: Number of images that `render` adds, for the price that is reserved.
    """

    model: TextModel
    messages: list[dict[str, Any]]
    media: tuple[str, ...] = ()
    sample_index: int = 0
    render: Render | None = field(default=None, compare=False, repr=False)
    images: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The answer to one question.

    Attributes:
        request_key: Key of the question.
        text: The answer without thinking. None unless the outcome is `ok`.
        outcome: `ok`, `failed` or `undecidable`.
        reason: Why the outcome is not `ok`. Empty if it is.
        cached: Whether the ledger had the answer, so that no call was made.
        cost_usd: What this process paid now. 0 if cached.
        tokens_in: Tokens of the question.
        tokens_out: Tokens of the answer.
        frame_times: Times in seconds of the frames that were shown. Empty for text questions.
        model: The model that answered. If the first refused and `second` is set, this is the second.
        revision: Revision of that model.
        unanswered: Whether no model could be reached. The next run asks again.
        cut: Whether the answer was cut off at its token limit.
        raw_text: The complete text of the model with its thinking. Empty if `text` is complete.
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
    raw_text: str = ""


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of asking one question, before it is stored.

    Attributes:
        position: Index of the question.
        call: The row for the ledger.
        billed: Whether a model answered. A call without an answer is not stored.
        again: Whether a retry in a later run may get an answer.
        lost: Whether the lease on the question had expired, so that it was not asked.
        error: An error in SafeVid's own code. It is raised again in the asking thread. None if there is none.
    """

    position: int
    call: Call
    billed: bool = True
    again: bool = False
    lost: bool = False
    error: BaseException | None = None


class Caller(Protocol):
    """Makes the calls for questions without an answer in the ledger. See :meth:`Gateway.get_or_ask`."""

    portion: int  # number of questions to pass to `start` at once

    def bound(self, position: int) -> float:
        """Return the upper bound of a question's cost, in USD. Called only if there is a budget."""

    def start(self, positions: Sequence[int], holds: Callable[[], bool]) -> None:
        """Start to ask questions.

        Args:
            positions: Indices of the questions.
            holds: Returns whether the lease on these questions still holds. Called before each paid call.
        """

    def collect(self) -> list[CallResult]:
        """Wait for at least one result and return all finished ones. Called only while some are open."""

    def stop(self) -> list[CallResult]:
        """Stop asking. Return the results that were not collected, after a short wait for open calls."""


def request_key(request: ChatRequest) -> str:
    """Return the key of a question: a hash of model, revision, messages, media, sampling and sample index.

    The address of the server and the name of the API key's variable are not part of the key, because they do
    not change the answer. Change `revision` if another model takes the same name.

    Returns:
        32 hex digits.
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
    """Return frame times in the ledger's form: seconds with three decimals, comma-separated."""
    return ",".join(f"{time_s:.3f}" for time_s in times_s)


def times_of_text(text: str) -> tuple[float, ...]:
    """Return the frame times in seconds from the ledger's form."""
    return tuple(map(float, text.split(","))) if text else ()
