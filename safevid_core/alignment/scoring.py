"""Log-probabilities of answer tokens alone, on devices where trl would score every position."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def score_answers_only(model: PreTrainedModel) -> None:
    """Make trl's fused scoring (`model(..., labels=..., fused_lm_head=True)`) skip unlabelled positions.

    Where Triton runs, trl 1.16 does so itself; on a CPU it projects every position, prompt and video
    included, onto the vocabulary: 40% of a step of the pocket model. The figures are the same.
    """
    from trl.trainer.utils import FusedCausalLMOutput

    stock_forward = model.forward

    @functools.wraps(type(model).forward)
    def forward(
        self: PreTrainedModel,
        *args: Any,
        fused_lm_head: bool = False,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or labels is None or labels.device.type != "cpu":
            return stock_forward(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        hidden = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state[:, :-1]
        scores = _score(self.get_output_embeddings(), hidden, labels[:, 1:])
        log_probs = scores["log_probs"]
        return FusedCausalLMOutput(loss=-log_probs.sum() / scores["label_mask"].sum().clamp(min=1), **scores)

    model.forward = types.MethodType(forward, model)


def _score(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Figures of each labelled position `[rows, S]`, zero elsewhere; hidden states are `[rows, S, H]`."""
    import torch

    mask = labels != -100
    wanted = labels[mask]
    logits = head(hidden[mask]).float()
    log_probs = logits.log_softmax(-1)
    with torch.no_grad():
        aside = {
            "entropy": -(log_probs.exp() * log_probs).sum(-1),
            "mean_logits": logits.mean(-1),
            "is_top1": logits.argmax(-1) == wanted,
        }
    figures = {"log_probs": log_probs.gather(-1, wanted[:, None]).squeeze(-1), **aside}
    spread = {
        name: value.new_zeros(mask.shape).masked_scatter(mask, value) for name, value in figures.items()
    }
    return {**spread, "label_mask": mask}
