"""Log-probabilities of answer tokens alone, from padded rows or from a forest.

Imports of torch stay inside the functions.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from safevid_core.alignment.collator import PackedForest


def score_answers_only(model: PreTrainedModel) -> None:
    """Make trl's fused scoring (`model(..., labels=..., fused_lm_head=True)`) skip unlabelled positions.

    Where Triton runs, trl 1.16 does so itself; on a CPU it projects every position, prompt and video
    included, onto the vocabulary: 40% of a step of the pocket model. The figures are the same.

    With the further keyword `forest` the model reads the forest in place of `input_ids`, and scores the
    answers in `labels` where the forest's tokens predict them. To trl such a batch has one row an answer,
    so that its own loss, figures and log hold for packed pairs.
    """
    from trl.trainer.utils import FusedCausalLMOutput

    stock_forward = model.forward

    @functools.wraps(type(model).forward)
    def forward(
        self: PreTrainedModel,
        *args: Any,
        fused_lm_head: bool = False,
        labels: torch.Tensor | None = None,
        forest: PackedForest | None = None,
        **kwargs: Any,
    ) -> Any:
        plain = labels is None or not fused_lm_head or (forest is None and labels.device.type != "cpu")
        if plain or labels is None:
            return stock_forward(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        mask = labels[:, 1:] != -100
        kwargs["use_cache"] = False
        if forest is None:
            hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1][mask]
        else:
            packed = forest.to(labels.device)
            row = self.base_model(**{**kwargs, **packed.arguments()}).last_hidden_state[0]
            hidden = row[packed.asked[1]]
        figures = score(self.get_output_embeddings(), hidden, labels[:, 1:][mask])
        spread = {
            name: value.new_zeros(mask.shape).masked_scatter(mask, value) for name, value in figures.items()
        }
        log_probs = spread["log_probs"]
        return FusedCausalLMOutput(loss=-log_probs.sum() / mask.sum().clamp(min=1), label_mask=mask, **spread)

    model.forward = types.MethodType(forward, model)


def score(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Log-probability, and aside entropy, mean logit and whether it is the likeliest, of each label.

    Under a frozen head without a bias the logits of few positions at a time are in memory: the gradient of
    a log-probability is found beside it, and its logits are dropped.

    Args:
        hidden: `[M, H]`.
        labels: int64 `[M]`.
    """
    import torch

    weight = head.weight
    if isinstance(head, torch.nn.Linear) and head.bias is None and not weight.requires_grad:
        return dict(zip(_FIGURES, _frozen_head_scores()(hidden, weight, labels), strict=True))
    logits = head(hidden).float()
    log_probs = logits.log_softmax(-1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        aside = (entropy, logits.mean(-1), logits.argmax(-1) == labels)
    return dict(zip(_FIGURES, (log_probs.gather(-1, labels[:, None])[:, 0], *aside), strict=True))


_FIGURES = ("log_probs", "entropy", "mean_logits", "is_top1")
_LOGITS_AT_ONCE = 2**23


@functools.cache
def _frozen_head_scores() -> Any:
    import torch

    class FrozenHeadScores(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            figures: list[tuple[torch.Tensor, ...]] = []
            slopes = []
            rows = max(1, _LOGITS_AT_ONCE // len(weight))
            for some, wanted in zip(hidden.split(rows), labels.split(rows), strict=True):
                logits = (some @ weight.T).float()
                top, place = logits.max(-1)
                weights = logits.softmax(-1)
                # The greatest weight is one over the sum of the exponentials, relative to the greatest logit.
                log_sum = top - weights.gather(-1, place[:, None])[:, 0].log()
                at_label = logits.gather(-1, wanted[:, None])[:, 0]
                entropy = log_sum - torch.linalg.vecdot(weights, logits)
                figures.append((at_label - log_sum, entropy, logits.mean(-1), place == wanted))
                if ctx.needs_input_grad[0]:
                    slopes.append(weight[wanted] - weights.to(weight.dtype) @ weight)
            ctx.save_for_backward(torch.cat(slopes) if slopes else hidden.new_empty(0))
            joined = tuple(torch.cat(each) for each in zip(*figures, strict=True))
            ctx.mark_non_differentiable(*joined[1:])
            return joined

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (slopes,) = ctx.saved_tensors
            return (gradients[0][:, None] * slopes).to(slopes.dtype), None, None

    return FrozenHeadScores.apply
