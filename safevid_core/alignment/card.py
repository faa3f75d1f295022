"""The model card of an adapter. It names the base, the release, the settings and the training figures."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from safevid_core.alignment.job import RunResult
from safevid_core.contracts.markdown import markdown_table
from safevid_core.settings import AlignmentSettings, Policy

_LIBRARIES = ("torch", "transformers", "trl", "peft")
_LOSS = {"dpo": "DPO, sigmoid", "sft": "mean negative log-likelihood of the chosen answers"}
_TRAINED = {
    "lora": "LoRA on the language model",
    "qlora": "LoRA on the language model in four bits",
    "full": "the whole language model",
}
_METHOD = (
    "beta",
    "epochs",
    "learning_rate",
    "warmup_fraction",
    "batch_size",
    "lora_rank",
    "lora_alpha",
    "max_length",
)


def model_card(
    name: str,
    profile: str,
    release: str,
    base: tuple[str, str],
    policy: Policy,
    data_scale: float,
    seed: int,
    settings: AlignmentSettings,
    result: RunResult,
) -> str:
    """Return README.md of one adapter: Markdown with the front matter of the Hugging Face hub.

    Two runs with the same inputs give the same text: the card holds no times and no paths.

    Args:
        name: Name of the policy. Example: `pocket`.
        profile: Name of the settings profile. Example: `pocket`.
        release: Id of the release that the pairs come from.
        base: Name and revision of the aligned checkpoint. The revision of a local folder is its content hash.
        policy: Objective, perturbation and kind of pairs.
        data_scale: Share of the release's pairs, above 0 and at most 1.
        seed: Training seed.
        settings: The alignment settings.
        result: Figures of the finished run.
    """
    from huggingface_hub import ModelCardData

    base_name, base_revision = base
    head = ModelCardData(
        base_model=base_name,
        library_name="transformers" if settings.finetuning == "full" else "peft",
        tags=["safevid", "dpo", settings.finetuning, "video-text-to-text", f"profile:{profile}"],
    )
    lineage = {
        "profile": profile,
        "policy": f"{name} (perturbation: {policy.perturbation})",
        "trained on": policy.trained_on,
        "release": release,
        "data scale": f"{data_scale:g}",
        "pairs trained on": result.pairs,
        "pairs refused": len(result.refused),
        "base": base_name,
        "base revision": base_revision,
        "family": settings.base.family,
        "frames": settings.base.frames,
        "seed": seed,
        "optimizer steps": result.steps,
    }
    projector = "projector trained, " if settings.train_projector else ""
    trained = f"{_TRAINED[settings.finetuning]}; {projector}vision tower frozen"
    method = {"loss": _LOSS[policy.objective], "trained": trained}
    lora = {"lora_rank", "lora_alpha"} if settings.finetuning == "full" else set()
    method |= {key.replace("_", " "): getattr(settings, key) for key in _METHOD if key not in lora}
    method |= {library: version(library) for library in _LIBRARIES}
    figures = {
        "loss at the first step": f"{result.first_loss:.4f}",
        "loss": f"{result.last_loss:.4f}",
        "reward margin": f"{result.reward_margin:.4f}",
        "reward accuracy": f"{result.reward_accuracy:.4f}",
    }
    return "\n".join(
        [
            f"---\n{head.to_yaml()}\n---\n",
            f"# {name}: {base_name} aligned by SafeVid\n",
            _warning(profile, policy),
            "## Lineage\n",
            _table(lineage),
            "## Settings\n",
            _table(method),
            "## Training\n",
            "Means over the last tenth of the steps, unless said otherwise; every step is in "
            "`training_log.jsonl`.\n",
            _table(figures),
        ]
    )


def _warning(profile: str, policy: Policy) -> str:
    if policy.is_control:
        return "**A control: its training lacks a part of the method on purpose. Not for use.**\n"
    if profile == "pocket":
        return "**Pocket size: a demonstration of the method, not a model for use.**\n"
    return "Refusals and answers of this model are learned from AI-written text; judge it before use.\n"


def _table(rows: Mapping[str, object]) -> str:
    return markdown_table(("", ""), rows.items()) + "\n"
