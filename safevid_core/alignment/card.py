"""The model card beside an adapter: what it was made from, so that the adapter can be judged alone."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import yaml

from safevid_core.alignment.job import RunResult
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
    """README.md of one adapter, in Markdown with the hub's front matter.

    It holds nothing that differs between two runs with the same inputs: no times, no paths.

    Args:
        name: The policy's name.
        release: Id of the release whose pairs were used.
        base: Name and revision (for a folder: content hash) of the checkpoint that was aligned.
    """
    base_name, base_revision = base
    head = yaml.safe_dump(
        {
            "library_name": "transformers" if settings.finetuning == "full" else "peft",
            "base_model": base_name,
            "tags": ["safevid", "dpo", settings.finetuning, "video-text-to-text", f"profile:{profile}"],
        },
        sort_keys=False,
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
            f"---\n{head}---\n",
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
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), ""])
