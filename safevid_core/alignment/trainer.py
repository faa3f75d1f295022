"""trl's DPO trainer for video. Imports torch, transformers, trl and peft: import it inside functions.

What trl 1.16 lacks for video, and what is done here: it keeps no video column (signature columns), its
vision collator knows images only (ours), and it refuses reference log-probabilities computed beforehand
for visual data (:meth:`VideoDPOTrainer.store_reference`). The loss is trl's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.utils.data import Sampler
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from safevid_core.alignment.collator import VideoPreferenceCollator
from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.scoring import score_answers_only
from safevid_core.settings import AlignmentSettings

# The projections of the language model's layers, by the names that LLaVA-NeXT-Video, Qwen2.5-VL and
# InternVL share; their vision towers and projectors lie elsewhere, and trl refuses adapters on lm_head.
LANGUAGE_PROJECTIONS = (
    r"model\.language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)


class PairOrder(Sampler[int]):
    """The order of the pairs: a permutation that follows from seed and epoch alone, so that it resumes."""

    def __init__(self, pairs: Sized, seed: int) -> None:
        self.count, self.seed, self.epoch = len(pairs), seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(random.Random(f"{self.seed}:{self.epoch}").sample(range(self.count), self.count))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class VideoDPOTrainer(DPOTrainer):
    """`DPOTrainer` over encoded video pairs; its arguments, callbacks, logs and checkpoints are trl's.

    Args:
        data_collator: Holds the pairs; the data set that trl sees names them.
        **stock: The other arguments of trl's trainer.

    Raises:
        AlignmentError: If anything but a LoRA weight of the language model would train.
    """

    def __init__(self, *, data_collator: VideoPreferenceCollator, **stock: Any) -> None:
        pairs = data_collator.pairs
        # trl takes rows for visual, and leaves their text alone, by the column `images`.
        columns = {"pair_id": [pair.pair_id for pair in pairs], "images": [[pair.clip] for pair in pairs]}
        super().__init__(data_collator=data_collator, train_dataset=Dataset.from_dict(columns), **stock)
        self._pairs = pairs
        score_answers_only(self.model.get_base_model())
        self.remove_callback(PrinterCallback)
        _check_trainable(self.model)

    def store_reference(self) -> None:
        """Give every pair its reference log-probabilities: adapter off, one pass over the data.

        Pairs of like length share a batch, which spares most of the padding.
        """
        pairs = sorted(self._pairs, key=len)
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(pairs), self.args.per_device_train_batch_size):
            some = pairs[start : start + self.args.per_device_train_batch_size]
            batch = self._prepare_inputs(self.data_collator([{"pair_id": pair.pair_id} for pair in some]))
            batch.pop("pair_ids")
            chosen, rejected = self.compute_ref_log_probs(self.model, batch)
            for pair, *reference in zip(some, chosen.tolist(), rejected.tolist(), strict=True):
                pair.reference = (reference[0], reference[1])
        self.model.train(was_training)
        self.precompute_ref_logps = True

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        pair_ids = inputs.pop("pair_ids")
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss[0] if isinstance(loss, tuple) else loss).all():
            raise AlignmentError(
                f"the loss is not finite at step {self.state.global_step + 1} for the pairs "
                f"{', '.join(pair_ids)}; look at them, or lower alignment.learning_rate"
            )
        return loss

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the stage writes one card, with the lineage, beside the finished adapter."""

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["pair_id", "images"]

    def _get_train_sampler(self, train_dataset: Any = None) -> PairOrder:
        return PairOrder(self._pairs, self.args.seed)


# Objective -> trl's name of the loss. Its "sft" is the mean negative log-likelihood of a batch's chosen
# tokens; the rejected answers are scored beside it, for the log alone.
LOSSES = {"dpo": "sigmoid", "sft": "sft"}


def training_arguments(
    settings: AlignmentSettings, folder: Path, pairs: int, seed: int, objective: str = "dpo"
) -> DPOConfig:
    """trl's arguments for one run over so many pairs that writes its checkpoints into `folder`.

    Args:
        objective: A key of LOSSES. Defaults to `dpo`.

    Raises:
        AlignmentError: If the batch cannot be cut into micro batches of equal size.
    """
    micro = min(settings.micro_batch_size, settings.batch_size)
    if settings.batch_size % micro:
        raise AlignmentError(
            f"alignment.batch_size {settings.batch_size} is no multiple of "
            f"alignment.micro_batch_size {micro}; change one of them"
        )
    steps = -(-pairs // settings.batch_size) * settings.epochs
    return DPOConfig(
        output_dir=str(folder),
        beta=settings.beta,
        loss_type=[LOSSES[objective]],
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warmup_fraction * steps),
        optim="adamw_torch",
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // micro,
        max_length=None,  # pairs over the limit were refused when they were encoded
        seed=seed,
        bf16=settings.base.dtype == "bfloat16",
        fp16=settings.base.dtype == "float16",
        use_cpu=settings.base.device == "cpu",
        gradient_checkpointing=False,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
    )


def lora_config(settings: AlignmentSettings) -> LoraConfig:
    """LoRA on the language model's projections; vision tower, projector and lm_head stay as they are."""
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules=LANGUAGE_PROJECTIONS,
        task_type="CAUSAL_LM",
    )


def _check_trainable(model: torch.nn.Module) -> None:
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    stray = [name for name in names if "language_model.layers." not in name or ".lora_" not in name]
    if stray or not names:
        what = stray[0] if stray else "nothing"
        raise AlignmentError(f"only LoRA weights of the language model may train; here {what} would")
