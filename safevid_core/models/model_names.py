"""The families of a text model, read from its name: `openai/gpt-4o` and `azure/gpt-4.1` are both `gpt`.

A name is compared word by word: `palmyra-x5` is no `palm`, and `metamath` is nothing of `meta`. A model may
be of several families: `DeepSeek-R1-Distill-Llama-70B` has the weights of one and the training data of the
other. The name of a deployment, such as `azure/my-deploy`, tells no family. The setting `family` then does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from safevid_core.settings import TextModel

# Family -> other names of models that share its weights or training data, and of makers: Bedrock puts the
# maker before the name (`anthropic.claude-3-5-sonnet`). Makers whose models are of several families (google,
# microsoft, nvidia, allenai) are not among them, nor are `meta` and `writer`, which mean other things too.
_FAMILIES: dict[str, tuple[str, ...]] = {
    "gpt": ("openai", "chatgpt", "davinci", "babbage", "codex"),
    "claude": ("anthropic",),
    "gemini": (
        "gemma", "codegemma", "medgemma", "paligemma", "shieldgemma", "txgemma", "learnlm", "palm", "medlm",
        "bison", "unicorn",
    ),
    "llama": ("codellama", "llamaguard", "purplellama", "vicuna", "alpaca", "guanaco"),
    "mistral": (
        "mistralai", "mixtral", "ministral", "magistral", "codestral", "devstral", "pixtral", "voxtral",
        "mathstral", "zephyr",
    ),
    "qwen": ("qwq", "qvq", "codeqwen", "tongyi"),
    "nova": ("amazon",),
    "command": ("cohere", "coherelabs", "cohereforai", "c4ai", "aya"),
    "deepseek": (),
    "grok": ("xai",),
    "phi": (),
    "glm": ("chatglm", "codegeex", "zhipu", "zhipuai", "zai", "thudm"),
    "kimi": ("moonshot", "moonshotai", "moonlight"),
    "minimax": ("minimaxai", "abab"),
    "hunyuan": (),
    "ernie": (),
    "doubao": ("bytedance", "seed"),
    "yi": (),
    "internlm": ("internvl", "opengvlab"),
    "jamba": ("ai21", "ai21labs", "jurassic"),
    "olmo": ("olmoe", "molmo", "tulu"),
    "granite": (),
    "nemotron": ("minitron",),
    "smollm": ("smolvlm", "huggingfacetb"),
    "palmyra": (),
    "baichuan": (),
    "minicpm": (),
    "exaone": (),
    "falcon": ("tiiuae",),
    "stablelm": ("stabilityai",),
    "starcoder": ("bigcode",),
    "bloom": ("bloomz",),
    "eleuther": ("pythia", "eleutherai"),
    "dbrx": (),
    "reka": (),
    "solar": ("upstage",),
    "lfm": ("liquidai",),
}  # fmt: skip
_FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in (family, *names)}
# Providers that serve models of their own only. A model of theirs needs no telling name.
_FAMILY_OF_PROVIDER = {
    "anthropic": "claude",
    "cohere": "command",
    "cohere_chat": "command",
    "deepseek": "deepseek",
    "gemini": "gemini",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "kimi",
    "xai": "grok",
    "zai": "glm",
}
# Words that name a family only before certain others: `command-r`, and not `command-centre`. A number counts.
_ONLY_BEFORE = {
    "command": {"r", "r7b", "a", "light", "nightly", "text", "xlarge", "medium"},
    "nova": {"micro", "lite", "pro", "premier", "sonic"},
    "seed": {"oss", "coder", "thinking"},
    "o": {"mini", "preview", "pro", "deep"},
}
_OF_ELEUTHER = {"j", "neo", "neox"}  # `gpt-j-6b` and `gpt-neox-20b` are not by OpenAI


def families_of(model: str) -> tuple[str, ...]:
    """The families of a model, in the order of their names. Empty if the model string tells none.

    The last part of the string counts: `hosted_vllm/Qwen/Qwen2.5-72B-Instruct` is `qwen`. If it tells no
    family, the organisation before it does, or a provider that serves its own models only:
    `huggingface/Qwen/mine` is `qwen`, and `anthropic/mine` is `claude`.
    """
    provider, *parts = model.lower().split("/")
    for part in reversed(parts or [provider]):
        found = tuple(dict.fromkeys(_named_in(part)))
        if found:
            return found
    family = _FAMILY_OF_PROVIDER.get(provider) if parts else None
    return () if family is None else (family,)


def family_named(words: str) -> str:
    """The family that somebody calls so: `gpt` for "GPT", `mistral` for "mixtral", `mine` for "Mine"."""
    name = words.strip().lower()
    return next(_named_in(name), name)


def declared_families(model: TextModel) -> tuple[str, ...]:
    """The family that the settings give the model, else those that its name tells. Empty if neither does."""
    return families_of(model.model) if model.family is None else (family_named(model.family),)


def shared_family(one: TextModel, other: TextModel) -> str | None:
    """The first family that two models have in common, with the `second` of each. None if there is none.

    The same model string is a family of its own.
    """
    theirs = {family for _, each in chain(other) for family in (*declared_families(each), each.model)}
    ours = [family for _, each in chain(one) for family in (*declared_families(each), each.model)]
    return next((family for family in ours if family in theirs), None)


def without_family(model: TextModel, key: str) -> tuple[str, str] | None:
    """The key and the name of the first model whose family is not known. None if all are.

    Args:
        model: A model with its `second`.
        key: The key of the model in the settings. Example: `queries.rater`.
    """
    unknown = ((f"{key}{place}", each.model) for place, each in chain(model) if not declared_families(each))
    return next(unknown, None)


def chain(model: TextModel) -> Iterator[tuple[str, TextModel]]:
    """A model and its `second`, and so on, each with its place: "", ".second", ".second.second"."""
    place, each = "", model
    yield place, each
    while each.second is not None:
        place, each = f"{place}.second", each.second
        yield place, each


def _named_in(part: str) -> Iterator[str]:
    """The families that the words of one part of a model string name, in order.

    A word counts with its beginning up to the first digit: `llama3`, `qwen2vl`. A maker with a digit in its
    name (`ai21`, `c4ai`) counts as a whole.
    """
    words = re.findall(r"[a-z0-9]+", part)
    for place, word in enumerate(words):
        after = words[place + 1] if place + 1 < len(words) else ""
        letters = re.sub(r"\d.*", "", word)
        if re.fullmatch(r"o[1-9]", word) and (place == 0 or after in _ONLY_BEFORE["o"]):
            yield "gpt"  # `prod-o3-mini` is by OpenAI, and `marco-o1` is not
        elif letters == "gpt" and after in _OF_ELEUTHER:
            yield "eleuther"
        elif letters not in _ONLY_BEFORE or after in _ONLY_BEFORE[letters] or after.isdigit():
            family = _FAMILY_OF.get(word) or _FAMILY_OF.get(letters)
            if family is not None:
                yield family
