"""The family of a model: told by the words of its name or by the settings, and never by a part of a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safevid_core.models.model_names import (
    declared_families,
    families_of,
    family_named,
    shared_family,
    without_family,
)
from safevid_core.settings import TextModel

# Family -> names as makers, hubs and servers give them.
NAMES = {
    "gpt": (
        "gpt-4o", "gpt-4.1-mini", "gpt-35-turbo", "gpt4", "gpt-5", "gpt-oss-120b", "o1", "o3", "o3-mini",
        "o4-mini-deep-research", "chatgpt-4o-latest", "ft:gpt-4o-mini:acme::x1", "prod-gpt-4o",
        "prod-o3-mini", "text-davinci-003", "codex-mini-latest",
    ),
    "claude": ("claude-3-5-sonnet-20241022", "claude-sonnet-4-5", "claude-3-opus@20240229", "claude-2.1"),
    "gemini": (
        "gemini-2.5-pro", "gemini-1.5-flash-002", "gemma-3-27b-it", "gemma3n", "learnlm-2.0-flash",
        "codegemma-7b", "medgemma-27b-it", "paligemma2-3b", "palm-2", "chat-bison@002",
    ),
    "llama": (
        "Llama-3.1-8B-Instruct", "llama3", "llama3.1:8b-instruct-q4_0", "Meta-Llama-3-70B", "llama-v3p1-8b",
        "Llama-4-Maverick-17B-128E", "CodeLlama-34b", "vicuna-13b-v1.5", "alpaca-7b", "Llama-Guard-4-12B",
        "Llama-2-7B-GPTQ",
    ),
    "qwen": ("Qwen2.5-72B-Instruct", "qwen3:32b", "qwen-vl-max", "Qwen2.5-VL-7B", "QwQ-32B", "QVQ-72B"),
    "mistral": (
        "mistral-large-latest", "Mistral-7B-Instruct-v0.3", "Mixtral-8x22B", "ministral-8b", "codestral-2501",
        "pixtral-12b", "magistral-medium", "devstral-small", "dolphin-mixtral", "zephyr-7b-beta",
    ),
    "deepseek": ("deepseek-chat", "deepseek-reasoner", "DeepSeek-V3", "deepseek-r1:14b", "deepseek-coder"),
    "glm": ("glm-4.5", "glm-4v-9b", "chatglm3-6b", "chatglm_turbo", "codegeex4-all-9b"),
    "command": ("command-r", "command-r-plus-08-2024", "command-a-03-2025", "c4ai-aya-expanse", "aya-101"),
    "phi": ("phi-3", "Phi-3.5-vision-instruct", "phi4", "Phi-4-multimodal-instruct"),
    "yi": ("yi-large", "Yi-34B-Chat", "Yi-VL-6B"),
    "internlm": ("internlm2_5-7b-chat", "InternVL2_5-8B", "internvl3-78b"),
    "grok": ("grok-3", "grok-2-vision-1212", "grok-4"),
    "nova": ("nova-pro-v1", "amazon.nova-lite-v1:0", "amazon.titan-text-express-v1"),
    "jamba": ("jamba-1.5-large", "ai21.jamba-1-5-mini-v1:0"),
    "kimi": ("kimi-k2", "kimi-latest", "moonshot-v1-8k", "Kimi-VL-A3B-Thinking"),
    "minimax": ("MiniMax-Text-01", "minimax-m1", "abab6.5s-chat"),
    "hunyuan": ("hunyuan-turbos-latest", "Hunyuan-A13B-Instruct"),
    "ernie": ("ernie-4.5-300b-a47b", "ERNIE-4.0-8K"),
    "doubao": ("doubao-seed-1.6", "doubao-1.5-pro-32k", "Seed-OSS-36B-Instruct", "seed-1.6"),
    "olmo": ("OLMo-2-0325-32B-Instruct", "olmo2", "tulu-2-dpo-70b", "Molmo-7B-D-0924"),
    "granite": ("granite-3.1-8b-instruct", "granite-vision-3.2-2b"),
    "nemotron": ("nemotron-4-340b-instruct", "NVIDIA-Nemotron-Nano-9B-v2"),
    "smollm": ("SmolLM2-135M-Instruct", "SmolVLM-Instruct", "smollm3-3b"),
    "palmyra": ("palmyra-x5", "writer.palmyra-x4-v1:0"),
    "eleuther": ("gpt-j-6b", "gpt-neox-20b", "pythia-12b"),
}  # fmt: skip
EVERY_NAME = [(name, family) for family, names in NAMES.items() for name in names]
PROVIDERS = (
    "", "azure/", "bedrock/", "bedrock/converse/", "vertex_ai/", "openrouter/some-org/",
    "together_ai/", "hosted_vllm/", "hosted_vllm//models/", "ollama/", "openai/", "HOSTED_VLLM/ORG/",
    "fireworks_ai/accounts/fireworks/models/",
)  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_name_tells_its_family_behind_every_provider(provider: str) -> None:
    found = {name: families_of(provider + name) for name, _ in EVERY_NAME}
    assert found == {name: (family,) for name, family in EVERY_NAME}


@pytest.mark.parametrize(
    ("model", "families"),
    [
        ("bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0", ("claude",)),
        ("bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0", ("claude",)),
        ("bedrock/meta.llama3-1-70b-instruct-v1:0", ("llama",)),
        ("openrouter/meta-llama/llama-3.1-70b-instruct", ("llama",)),
        ("together_ai/deepseek-ai/DeepSeek-R1-Distill-Llama-70B", ("deepseek", "llama")),
        ("deepseek/DeepSeek-R1-Distill-Qwen-32B", ("deepseek", "qwen")),
        ("hosted_vllm/llava-hf/llava-v1.6-mistral-7b-hf", ("mistral",)),
        ("huggingface/Qwen/mine", ("qwen",)),
        ("anthropic/mine", ("claude",)),
        ("gemini/mine", ("gemini",)),
        ("xai/mine", ("grok",)),
    ],
)
def test_makers_bases_and_organisations_count(model: str, families: tuple[str, ...]) -> None:
    assert families_of(model) == families


@pytest.mark.parametrize(
    "model",
    [
        "azure/my-deploy", "azure/team-model", "openai/4711", "openai/mine", "scripted/rater",
        "hosted_vllm/metamath-7b", "ollama/dolphin", "openrouter/supernova-medius", "azure/command-centre",
        "azure/query-writer", "azure/meta-judge", "azure/seed-test", "hosted_vllm/AIDC-AI/Marco-o1", "azure/",
        "hosted_vllm/minigpt", "azure/napalm", "hosted_vllm/sphinx-phial", "hosted_vllm/ayala",
    ],
)  # fmt: skip
def test_a_name_of_ones_own_and_a_part_of_a_word_tell_no_family(model: str) -> None:
    assert families_of(model) == ()


@given(
    st.sampled_from(EVERY_NAME),
    st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=5),
    st.sampled_from(["before", "after"]),
)
def test_letters_that_make_it_another_word_never_tell_its_family(
    known: tuple[str, str], letters: str, where: str
) -> None:
    """`palm` is not in `palmyra`, and `phi` is not in `dolphin`."""
    name = known[0].lower()
    word = name.split("-")[0] if where == "after" else name
    if not word.isalpha() or any(family_named(each) in NAMES for each in (letters + word, word + letters)):
        return
    longer = letters + word if where == "before" else word + letters
    assert known[1] not in families_of(f"azure/{longer}")


@given(st.text(max_size=40))
def test_every_text_is_read_and_case_does_not_matter(name: str) -> None:
    assert families_of(name) == families_of(name.upper()) or not name.isascii()


@pytest.mark.parametrize(
    ("said", "family"),
    [("GPT", "gpt"), ("openai", "gpt"), ("Mixtral", "mistral"), ("Anthropic", "claude"), (" Mine ", "mine")],
)
def test_a_family_may_be_called_by_another_name(said: str, family: str) -> None:
    assert family_named(said) == family
    assert declared_families(TextModel(model="azure/my-deploy", family=said)) == (family,)


def test_a_declared_family_stands_before_the_name() -> None:
    assert declared_families(TextModel(model="azure/gpt-4o", family="llama")) == ("llama",)
    assert declared_families(TextModel(model="azure/my-deploy")) == ()


def test_a_second_model_counts_too() -> None:
    one = TextModel.model_validate({"model": "gemini/gemini-2.5-pro", "second": {"model": "openai/gpt-4o"}})
    assert shared_family(TextModel(model="openai/o3"), one) == "gpt"
    assert shared_family(TextModel(model="anthropic/claude-3"), one) is None
    deploy = TextModel(model="azure/my-deploy", family="gpt", second=TextModel(model="azure/other"))
    assert shared_family(deploy, one) == "gpt"
    assert without_family(deploy, "queries.rater") == ("queries.rater.second", "azure/other")
    assert without_family(one, "queries.asker") is None


def test_one_model_is_of_its_own_family_whatever_that_is() -> None:
    mine = TextModel(model="azure/my-deploy")
    assert shared_family(mine, mine) == "azure/my-deploy"
    assert shared_family(mine, TextModel(model="azure/another")) is None
