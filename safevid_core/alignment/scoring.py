"""Log-probabilities of response tokens, from padded rows or from a forest.

Only the response tokens are projected onto the vocabulary. Functions import torch themselves.
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

    With Triton trl 1.16 skips them itself. On a CPU it projects every position onto the vocabulary, also
    those of the prompt and the video. That takes 40% of a step of the pocket model. The results are the same.

    The function also adds the keyword `forest`. With it the model reads the forest instead of `input_ids`,
    and scores the responses in `labels` at the forest's predicting tokens. For trl such a batch has one row
    for each response, so trl's loss, figures and log need no change.

    Args:
        model: The model without an adapter. Its `forward` is replaced.
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
    """Return figures of M labels, given the hidden states that predict them.

    If the head is frozen and has no bias, only the logits of a few positions are in memory at a time: the
    forward pass computes each gradient and drops the logits.

    Args:
        head: The language head.
        hidden: `[M, H]`.
        labels: int64 `[M]`.

    Returns:
        `log_probs`, `entropy`, `mean_logits` and `is_top1` (whether the label has the largest logit), `[M]`
        each. Only `log_probs` has a gradient.
    """
    import torch

    weight = head.weight
    if isinstance(head, torch.nn.Linear) and head.bias is None and not weight.requires_grad:
        return dict(zip(_FIGURES, _frozen_head_scores()(hidden, weight, labels), strict=True))
    logits = head(hidden).float()
    log_probs = logits.log_softmax(-1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        others = (entropy, logits.mean(-1), logits.argmax(-1) == labels)
    return dict(zip(_FIGURES, (log_probs.gather(-1, labels[:, None])[:, 0], *others), strict=True))


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
                # The largest weight is 1 / sum(exp(logits - largest logit)), which gives the log-sum-exp.
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
