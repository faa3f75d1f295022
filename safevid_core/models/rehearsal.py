"""A gateway that makes no call: a stage that asks through it shows which questions a run would ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from safevid_core.models.chat import Caller, ChatAnswer, ChatRequest, request_key
from safevid_core.models.llm import Gateway
from safevid_core.settings import Settings, TextModel

NOT_ASKED = "not asked yet"


class Rehearsal(Gateway):
    """Answers from the ledger alone. A question without an answer there is `failed` and `unanswered`.

    Attributes:
        keys: Model -> the request keys of the questions to it, those with an answer included.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.retry_failed = False
        self.keys: dict[TextModel, set[str]] = defaultdict(set)

    def ask_many(self, requests: Sequence[ChatRequest], *, asset: str) -> list[ChatAnswer]:
        """As :meth:`Gateway.ask_many`, without a call."""
        for request in requests:
            self.keys[request.model].add(request_key(request))
        return super().ask_many(requests, asset=asset)

    def get_or_ask(self, keys: Sequence[str], caller: Callable[[], Caller], asset: str) -> list[ChatAnswer]:
        """The answers that the ledger has."""
        known = set(self.ledger.answers(keys))
        found = iter(super().get_or_ask([key for key in keys if key in known], caller, asset))
        return [next(found) if key in known else _not_asked(key) for key in keys]


def _not_asked(key: str) -> ChatAnswer:
    return ChatAnswer(key, None, "failed", NOT_ASKED, True, 0.0, 0, 0, unanswered=True)
