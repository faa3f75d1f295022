"""The scripted teachers as a litellm provider: the module of that name answers for `scripted/<name>`.

The gateway asks a scripted teacher by its model string, as it asks a hosted model. The pocket profile differs
from the other profiles in its settings only.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from safevid_core.models.providers import load_litellm

NAMES = ("reconciler", "asker", "rater", "responder", "judge", "second_judge")
PROVIDER = "scripted"


def register(root: Path) -> None:
    """Make `scripted/...` known to litellm. The judge reads the sealed truth below `root`."""
    litellm = load_litellm()
    others = [entry for entry in litellm.custom_provider_map if entry["provider"] != PROVIDER]
    litellm.custom_provider_map = [*others, {"provider": PROVIDER, "custom_handler": _handler()}]
    litellm.utils.custom_llm_setup()
    # Without a price, even of 0, litellm would search its whole price list at every call.
    free = {
        "litellm_provider": PROVIDER,
        "mode": "chat",
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
    }
    litellm.register_model({f"{PROVIDER}/{name}": free for name in NAMES})
    for name in NAMES:
        configure = getattr(_module(name), "configure", None)
        if configure is not None:
            configure(root)


def answer(model: str, messages: list[dict[str, Any]]) -> str:
    """The answer of a scripted model, named without the provider: `asker`.

    Raises:
        ValueError: If there is no scripted model of this name.
    """
    if model not in NAMES:
        raise ValueError(f"no scripted model {model!r}; choose one of: {', '.join(NAMES)}")
    return str(_module(model).answer(messages))


@lru_cache(maxsize=len(NAMES))
def _module(name: str) -> Any:
    return importlib.import_module(f"safevid_core.pocket.scripted.{name}")


@lru_cache(maxsize=1)
def _handler() -> Any:
    import litellm
    from litellm import CustomLLM

    class Scripted(CustomLLM):
        """Answers at once. An error in a script is raised as a bad request, which is not retried."""

        def completion(self, *args: Any, **kwargs: Any) -> Any:
            model, messages, response = kwargs["model"], kwargs["messages"], kwargs["model_response"]
            try:
                text = answer(model, messages)
            except Exception as error:
                raise litellm.BadRequestError(
                    f"{type(error).__name__}: {error}", model=model, llm_provider=PROVIDER
                ) from error
            words_in = sum(len(str(message.get("content")).split()) for message in messages)
            response.choices[0].message.content = text
            response.model = model
            response.usage = litellm.Usage(
                prompt_tokens=words_in,
                completion_tokens=len(text.split()),
                total_tokens=words_in + len(text.split()),
            )
            response._hidden_params = {"response_cost": 0.0}
            return response

        async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
            return self.completion(*args, **kwargs)

    return Scripted()
