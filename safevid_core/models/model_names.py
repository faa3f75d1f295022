"""The family of a text model, read from its name: `openai/gpt-4o` and `azure/gpt-4.1` are both `gpt`."""

from __future__ import annotations

import re

from safevid_core.settings import TextModel

# Family -> other names of models that share its weights or training data. Makers are among them, because
# Bedrock puts the maker before the name: `anthropic.claude-3-5-sonnet`, `us.meta.llama3-1-70b-instruct`.
_FAMILIES: dict[str, tuple[str, ...]] = {
    "gpt": ("chatgpt", "davinci", "codex"),
    "claude": ("anthropic",),
    "gemini": ("gemma", "learnlm", "palm"),
    "llama": ("meta", "codellama", "vicuna", "alpaca"),
    "mistral": ("mixtral", "ministral", "magistral", "codestral", "devstral", "pixtral"),
    "qwen": ("qwq", "qvq"),
    "nova": ("amazon", "titan"),
    "command": ("cohere", "c4ai", "aya"),
    "deepseek": (),
    "grok": (),
    "phi": (),
    "glm": (),
    "kimi": (),
}
_FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in (family, *names)}
# A known name at the beginning of a word: in `prod-gpt-4o` and `ft:gpt-4o:lab`, and not in `dolphin`.
_KNOWN = re.compile(rf"(?<![a-z])(?:{'|'.join(sorted(_FAMILY_OF, key=len, reverse=True))})")


def family_of(model: str) -> str:
    """The family of a model: the first known one in its name, else the letters with which the name begins.

    The name is the last part of the model string, in lower case. A served model's own name counts:
    `hosted_vllm/Qwen/Qwen2.5-72B-Instruct` is `qwen`.
    """
    name = model.lower().rsplit("/", 1)[-1]
    if re.match(r"o\d", name):
        return "gpt"
    known = _KNOWN.search(name)
    if known:
        return _FAMILY_OF[known[0]]
    letters = re.match(r"[a-z]*", name)
    return (letters[0] if letters else "") or model.lower()


def shared_family(one: TextModel, other: TextModel) -> str | None:
    """The first family that two models have in common, with the `second` of each. None if there is none."""
    theirs = {family_of(each.model) for each in _chain(other)}
    return next((family_of(each.model) for each in _chain(one) if family_of(each.model) in theirs), None)


def _chain(model: TextModel) -> list[TextModel]:
    return [model, *(_chain(model.second) if model.second is not None else ())]
