"""trl's DPO trainer for video. Imports torch, transformers, trl and peft: import it inside functions.

trl 1.16 drops video columns, its vision collator handles images only, and it refuses precomputed reference
log-probabilities for visual data. Here the data set of trl holds ids of encoded pairs (`_prepare_dataset`),
`collator.py` makes the batches, and :meth:`VideoDPOTrainer.store_reference` computes the reference. The loss
is trl's, with any packing.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from torch.utils.data import Sampler
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from safevid_core.alignment.collator import StepCollator
from safevid_core.alignment.encoding import EncodedPair
from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.fused_layers import use_fused_layers
from safevid_core.alignment.packing import Turns, training_order
from safevid_core.alignment.processes import process_count
from safevid_core.alignment.progress import ProgressCallback
from safevid_core.alignment.scoring import score_answers_only
from safevid_core.alignment.throughput import Throughput
from safevid_core.alignment.tree import lasting_trunk, row_tokens
from safevid_core.alignment.tree_attention import TrunkStates, use_tree_attention
from safevid_core.models.families import FAMILIES, family_of
from safevid_core.settings import AlignmentSettings, Packing

# The projections in the language model's layers. LLaVA-NeXT-Video, Qwen2.5-VL and InternVL share these names.
# The pattern matches no vision tower, no projector and not lm_head, on which trl refuses adapters.
LANGUAGE_PROJECTIONS = (
    r"model\.language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)


class PairOrder(Sampler[int]):
    """The order of the pairs. It depends on seed and epoch only, so a resumed run has the same order.

    Args:
        clips: The clip of each pair.
        seed: Training seed.
        packing: See :func:`~safevid_core.alignment.packing.training_order`. Defaults to `none`.
        pairs_a_tree: See there. Defaults to 1.
    """

    def __init__(
        self, clips: Sequence[str], seed: int, packing: Packing = "none", pairs_a_tree: int = 1
    ) -> None:
        self.clips, self.seed, self.epoch = clips, seed, 0
        self.packing, self.pairs_a_tree = packing, pairs_a_tree

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed}:{self.epoch}")
        return iter(training_order(self.clips, self.packing, self.pairs_a_tree, rng))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class VideoDPOTrainer(DPOTrainer):
    """`DPOTrainer` over encoded video pairs. Arguments, callbacks, logs and checkpoints are trl's.

    A batch holds the pairs of one optimizer step in one process, as one or more forward passes. The loss of
    each pass is weighted by its share of the batch, so the gradient does not depend on the split into passes.

    Args:
        data_collator: Holds the pairs. The data set of trl holds their ids.
        pairs_a_tree: Maximum number of pairs of one video that follow each other, with packing `video`.
        progress: Writes the progress of the run. None writes it to the output folder of the arguments.
        **stock: The other arguments of trl's trainer.

    Raises:
        AlignmentError: If a weight would train outside the language model, its adapter and the projector, or
            if the loss is not a mean over pairs.
    """

    def __init__(
        self,
        *,
        data_collator: StepCollator,
        pairs_a_tree: int = 1,
        progress: ProgressCallback | None = None,
        **stock: Any,
    ) -> None:
        pairs = data_collator.pairs
        names = Dataset.from_dict({"pair_id": [pair.pair_id for pair in pairs]})
        _check_loss(stock.get("args"))
        super().__init__(data_collator=data_collator, train_dataset=names, **stock)
        self.progress = progress or ProgressCallback(Path(self.args.output_dir))
        self.add_callback(self.progress)
        self._pairs = pairs
        self._pairs_a_tree = pairs_a_tree
        self._share = 1.0  # share of the step that the current pass has
        base = _base_of(self.model)
        score_answers_only(base)
        if data_collator.packing != "none":
            use_tree_attention(base.model.language_model)
            use_fused_layers(base.model.language_model)
        self._throughput = Throughput(base, is_frozen=isinstance(self.model, PeftModel))
        self.remove_callback(PrinterCallback)
        _check_trainable(self.model)
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # 16 bits would round a small update away
                parameter.data = parameter.data.float()

    def store_reference(self, pairs: Sequence[EncodedPair] | None = None) -> None:
        """Compute the reference log-probabilities of pairs in one pass without the adapter.

        With several processes each computes a part of the passes.

        Args:
            pairs: Receive the reference. None means the pairs of the trainer.
        """
        pairs = self._pairs if pairs is None else pairs
        was_training = self.model.training
        self.model.eval()
        found: list[tuple[str, float, float]] = []
        own = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        in_order = _by_clip_or_length(pairs, self.data_collator.packing)
        with torch.no_grad(), self._reference_weights(), self.accelerator.autocast():
            for turns in self.data_collator.cuts(in_order)[own]:
                with self._sharing_a_trunk(turns) as batch_of:
                    for some in turns:
                        found += self._log_probabilities(batch_of(some))
        reference = {pair_id: (chosen, rejected) for pair_id, chosen, rejected in gather_object(found)}
        for pair in pairs:
            pair.reference = reference[pair.pair_id]
        self.model.train(was_training)
        self.precompute_ref_logps = True

    def _log_probabilities(self, batch: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
        """Return id, log-probability of the chosen and of the rejected response for each pair of a pass."""
        batch = self._prepare_inputs(batch)
        ids, mask = batch.pop("pair_ids"), batch.pop("completion_mask")
        labels = batch["input_ids"].masked_fill(mask == 0, -100)
        arguments = {name: value for name, value in batch.items() if not name.startswith("ref_")}
        outputs = self.model(**arguments, labels=labels, fused_lm_head=True, use_cache=False)
        chosen, rejected = outputs.log_probs.sum(1).chunk(2)
        return zip(ids, chosen.tolist(), rejected.tolist(), strict=True)

    def _reference_weights(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which the model is the reference: the adapter is off.

        A model without an adapter is its own reference until the first step.
        """
        if isinstance(self.model, PeftModel):
            return self.model.disable_adapter()
        return contextlib.nullcontext()

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the forward and backward passes of a step. Return its loss."""
        steps = self._as_many_passes_everywhere(inputs["passes"])
        weights = [self._weight(some) for turns in steps for some in turns]
        shares = iter([weight / sum(weights) for weight in weights])
        before = {name: len(values) for name, values in self._metrics["train"].items()}
        loss = torch.zeros((), device=self.accelerator.device)
        model.train()
        for turns in steps:
            is_last = turns is steps[-1]
            with (
                contextlib.nullcontext() if is_last else self.accelerator.no_sync(model),
                _out_of_memory_explained(turns, self.data_collator.packing),
                self._sharing_a_trunk(turns) as batch_of,
            ):
                for some in turns:
                    self._share = next(shares)
                    batch = batch_of(some)
                    self._throughput.count(some, batch)
                    loss = loss + super().training_step(model, batch, *args, **kwargs)
        self._average_figures(before, [weight / sum(weights) for weight in weights])
        return loss

    def measure(self, pairs: Sequence[EncodedPair]) -> dict[str, float]:
        """Return `loss`, `margins` and `accuracies` over pairs that have their reference.

        No weight changes.
        """
        was_training = self.model.training
        self.model.eval()
        self._metrics["eval"].clear()
        self._share = 1.0
        losses, weights = [], []
        for turns in self.data_collator.cuts(_by_clip_or_length(pairs, self.data_collator.packing)):
            with torch.no_grad(), self._sharing_a_trunk(turns) as batch_of:
                for some in turns:
                    batch = self._prepare_inputs(batch_of(some))
                    losses.append(float(self.compute_loss(self.model, batch)))
                    weights.append(len(some))
        found = {"loss": losses} | {
            name: self._metrics["eval"][f"rewards/{name}"] for name in ("margins", "accuracies")
        }
        self._metrics["eval"].clear()
        self.model.train(was_training)
        return {
            name: sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
            for name, values in found.items()
        }

    @contextlib.contextmanager
    def _sharing_a_trunk(
        self, turns: Turns[EncodedPair]
    ) -> Iterator[Callable[[Sequence[EncodedPair]], dict[str, Any]]]:
        """Yield a function that makes the batch of each turn.

        One turn is an ordinary pass. For several turns the trunk is computed first, and its backward pass
        runs after the last turn.
        """
        if len(turns) == 1:
            yield self.data_collator.forward_pass
            return
        tree = [pair for some in turns for pair in some]
        tokens = lasting_trunk(tree)
        assert tokens is not None, "such a tree is not cut into turns"
        states = TrunkStates()
        arguments = self._prepare_inputs(self.data_collator.trunk(tree[0], tokens, states))
        forest = arguments.pop("forest").to(self.accelerator.device)
        with self.accelerator.autocast():
            backbone = _base_of(self.accelerator.unwrap_model(self.model)).base_model
            backbone(**arguments, **forest.arguments(), use_cache=False)
        yield lambda some: self.data_collator.turn(some, tokens, states)
        if torch.is_grad_enabled():
            states.backward()

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss of one pass times its share of the step.

        Raises:
            AlignmentError: If the loss is not finite.
        """
        pair_ids = inputs.pop("pair_ids")
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss[0] if isinstance(loss, tuple) else loss).all():
            raise AlignmentError(
                f"the loss is not finite at step {self.state.global_step + 1} for the pairs "
                f"{', '.join(pair_ids)}; check these pairs, or lower alignment.learning_rate"
            )
        return loss * self._share

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self._throughput.figures()
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch raises a RuntimeError
            folder = Path(self.args.output_dir)
            free = shutil.disk_usage(folder).free // 10**6
            raise AlignmentError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {folder}, where "
                f"{free} MB are free ({error}); the previous one is complete: make room and run again"
            ) from error

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing. The stage writes the card of the finished adapter."""

    def _as_many_passes_everywhere(self, steps: list[Turns[EncodedPair]]) -> list[Turns[EncodedPair]]:
        """Return the passes, split further if another process has more.

        trl gathers figures in each pass, so all processes need the same number of passes.
        """
        if self.accelerator.num_processes == 1:
            return steps
        counts = self.accelerator.gather(torch.tensor([len(steps)], device=self.accelerator.device))
        passes = [some for turns in steps for some in turns]
        return [[some] for some in cut_further(passes, int(counts.max()))]

    def _weight(self, pairs: Sequence[EncodedPair]) -> int:
        """Return the weight of a pass: its number of pairs, or of chosen tokens for the loss `sft`."""
        if "sft" in self.loss_types:
            return sum(len(pair.chosen_ids) for pair in pairs)
        return len(pairs)

    def _average_figures(self, before: dict[str, int], shares: Sequence[float]) -> None:
        """Replace the figures of the passes of a step by their weighted mean."""
        for name, values in self._metrics["train"].items():
            new = values[before.get(name, 0) :]
            if len(new) == len(shares):
                values[before.get(name, 0) :] = [sum(map(float.__mul__, map(float, new), shares))]

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the data set unchanged. Its rows are ids of encoded pairs."""
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the data set unchanged. :meth:`store_reference` computes the reference."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["pair_id"]

    def _get_train_sampler(self, train_dataset: Any = None) -> PairOrder:
        clips = [pair.clip for pair in self._pairs]
        return PairOrder(clips, self.args.seed, self.data_collator.packing, self._pairs_a_tree)


def cut_further(cuts: list[list[EncodedPair]], count: int) -> list[list[EncodedPair]]:
    """Return the passes in order. The largest is halved until there are `count`, or one pair in each."""
    cuts = list(cuts)
    while len(cuts) < count and max(map(len, cuts)) > 1:
        largest = max(range(len(cuts)), key=lambda index: len(cuts[index]))
        middle = len(cuts[largest]) // 2
        cuts[largest : largest + 1] = [cuts[largest][:middle], cuts[largest][middle:]]
    return cuts


def _by_clip_or_length(pairs: Sequence[EncodedPair], packing: Packing) -> list[EncodedPair]:
    """Return the pairs by length for packing `none` (least padding), else by clip (most sharing)."""
    if packing == "none":
        return sorted(pairs, key=len)
    first = {pair.clip: index for index, pair in reversed(list(enumerate(pairs)))}
    return sorted(pairs, key=lambda pair: first[pair.clip])


@contextlib.contextmanager
def _out_of_memory_explained(turns: Turns[EncodedPair], packing: Packing) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # on a CPU torch raises a RuntimeError with this text
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        pairs = max(turns, key=len)
        tokens = sum(map(row_tokens, pairs))
        setting = "alignment.micro_batch_size" if packing == "none" else "alignment.pass_tokens"
        raise AlignmentError(
            f"out of memory in a pass over {len(pairs)} pairs: {tokens} tokens without any sharing, in "
            f"rows of up to {max(map(len, pairs))}; lower {setting} or set alignment.gradient_checkpointing"
        ) from error


# trl's losses that are a mean over the pairs of a batch, or over its tokens for "sft". The weighted losses of
# the passes then add up to the loss of the step. `aot` and `bco_pair` are not such means: `aot` sorts the
# margins of a batch, and `bco_pair` has a running mean over batches.
MEANS = (
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "sppo_hard", "apo_zero",
    "apo_down", "discopop", "sft",
)  # fmt: skip


def _check_loss(arguments: DPOConfig | None) -> None:
    """Refuse a loss that is wrong when a step is split into passes."""
    asked = [] if arguments is None else arguments.loss_type
    asked = [asked] if isinstance(asked, str) else list(asked)
    unsupported = [name for name in asked if name not in MEANS]
    if unsupported or len(asked) > 1:
        two = f"{' and '.join(asked)} have different weights"
        why = f"{unsupported[0]} is not a mean over pairs" if unsupported else two
        raise AlignmentError(
            f"loss_type: {why}, so a step's passes do not add up; choose one of {', '.join(MEANS)}"
        )


# Objective -> trl's name of the loss. "sft" is the mean negative log-likelihood of the chosen tokens of a
# batch. trl also scores the rejected responses, for the log only.
LOSSES = {"dpo": "sigmoid", "sft": "sft"}


def training_arguments(
    settings: AlignmentSettings, folder: Path, pairs: int, seed: int, objective: str = "dpo"
) -> DPOConfig:
    """Return trl's arguments for one run.

    Args:
        settings: The alignment settings.
        folder: Receives the checkpoints.
        pairs: Number of pairs.
        seed: Training seed.
        objective: A key of LOSSES. Defaults to `dpo`.

    Raises:
        AlignmentError: If the batch size is not a multiple of the number of processes, or if a tracker in
            `report_to` is not installed.
    """
    from transformers.integrations import get_available_reporting_integrations

    missing = set(settings.report_to) - set(get_available_reporting_integrations())
    if missing:
        raise AlignmentError(
            f"alignment.report_to: {', '.join(sorted(missing))} is not installed or not known to "
            "transformers; install it or leave it out"
        )
    processes = process_count()
    if settings.batch_size % processes:
        raise AlignmentError(
            f"alignment.batch_size {settings.batch_size} is no multiple of the {processes} processes; "
            "change one of them"
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
        per_device_train_batch_size=settings.batch_size // processes,
        gradient_accumulation_steps=1,  # the collator splits a step into passes
        max_length=None,  # encode_pairs has refused longer pairs
        seed=seed,
        bf16=settings.base.dtype == "bfloat16",
        fp16=settings.base.dtype == "float16",
        use_cpu=settings.base.device == "cpu",
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=list(settings.report_to) or "none",
        run_name=folder.name,
        # Otherwise trl loads a second model for the reference if there is no adapter.
        precompute_ref_log_probs=settings.finetuning == "full",
        dataloader_pin_memory=False,
    )


def adapter_config(settings: AlignmentSettings) -> LoraConfig | None:
    """Return the LoRA configuration. None with `finetuning: full`."""
    return None if settings.finetuning == "full" else lora_config(settings)


def freeze_all_but(model: torch.nn.Module, settings: AlignmentSettings) -> None:
    """Freeze all weights outside the language model, its head and a trained projector.

    An adapter later freezes the language model too.
    """
    projector = f"model.{family_of(settings.base.family).projector}."
    for name, parameter in model.named_parameters():
        is_language = name.startswith(("model.language_model.", "lm_head."))
        is_projector = settings.train_projector and name.startswith(projector)
        if parameter.is_floating_point():
            parameter.requires_grad_(is_language or is_projector)


def lora_config(settings: AlignmentSettings) -> LoraConfig:
    """Return the configuration of LoRA on the language model's projections.

    Vision tower and lm_head get no adapter. A trained projector trains in full.
    """
    projector = family_of(settings.base.family).projector.split(".")[-1]
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules=LANGUAGE_PROJECTIONS,
        modules_to_save=[projector] if settings.train_projector else None,
        task_type="CAUSAL_LM",
    )


def _base_of(model: Any) -> Any:
    """Return the model without its adapter wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _check_trainable(model: torch.nn.Module) -> None:
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    projectors = tuple(f".{family.projector}." for family in FAMILIES.values())

    def may_train(name: str) -> bool:
        if isinstance(model, PeftModel):
            is_language = "language_model.layers." in name and ".lora_" in name
        else:
            is_language = "language_model." in name or name.startswith("lm_head.")
        return is_language or any(projector in f".{name}" for projector in projectors)

    unexpected = [name for name in names if not may_train(name)]
    if unexpected or not names:
        what = unexpected[0] if unexpected else "nothing"
        allowed = "only LoRA weights of" if isinstance(model, PeftModel) else "only"
        raise AlignmentError(
            f"{allowed} the language model may train; here {what} would; give the policy a model of one of "
            f"the families {', '.join(FAMILIES)}"
        )
