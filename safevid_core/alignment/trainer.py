"""trl's DPO trainer for video. Imports torch, transformers, trl and peft: import it inside functions.

What trl 1.16 lacks for video, and what is done here: it keeps no video column, its vision collator knows
images only, and it refuses reference log-probabilities computed beforehand for visual data. So its rows are
names of encoded pairs (`_prepare_dataset`), whose batches are ours (`collator.py`), and so is the reference
(:meth:`VideoDPOTrainer.store_reference`). The loss is trl's own, packed or not.
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
from safevid_core.alignment.progress import Progress
from safevid_core.alignment.scoring import score_answers_only
from safevid_core.alignment.throughput import Throughput
from safevid_core.alignment.tree import lasting_trunk, row_tokens
from safevid_core.alignment.tree_attention import TrunkStates, use_tree_attention
from safevid_core.models.families import FAMILIES, family_of
from safevid_core.settings import AlignmentSettings, Packing

# The projections of the language model's layers, by the names that LLaVA-NeXT-Video, Qwen2.5-VL and
# InternVL share; their vision towers and projectors lie elsewhere, and trl refuses adapters on lm_head.
LANGUAGE_PROJECTIONS = (
    r"model\.language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
)


class PairOrder(Sampler[int]):
    """The order of the pairs: a permutation that follows from seed and epoch alone, so that it resumes.

    Args:
        clips: The clip of each pair; see :func:`~safevid_core.alignment.packing.training_order`.
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
    """`DPOTrainer` over encoded video pairs; its arguments, callbacks, logs and checkpoints are trl's.

    A batch is an optimizer step's pairs of one process, as one or more forward passes: the passes' losses
    are weighted by their shares of the batch, so its gradient does not depend on how it was cut.

    Args:
        data_collator: Holds the pairs; the data set that trl sees names them.
        pairs_a_tree: Most pairs of one video that follow each other, with packing `video`.
        progress: Writes the run's progress. Defaults to one in the folder of the arguments.
        **stock: The other arguments of trl's trainer.

    Raises:
        AlignmentError: If anything but the language model, or its adapter, and the projector would train, or
            if the loss is no mean over pairs.
    """

    def __init__(
        self,
        *,
        data_collator: StepCollator,
        pairs_a_tree: int = 1,
        progress: Progress | None = None,
        **stock: Any,
    ) -> None:
        pairs = data_collator.pairs
        names = Dataset.from_dict({"pair_id": [pair.pair_id for pair in pairs]})
        _check_loss(stock.get("args"))
        super().__init__(data_collator=data_collator, train_dataset=names, **stock)
        self.progress = progress or Progress(Path(self.args.output_dir))
        self.add_callback(self.progress)
        self._pairs = pairs
        self._pairs_a_tree = pairs_a_tree
        self._share = 1.0  # of the pass that is computed
        base = _base_of(self.model)
        score_answers_only(base)
        if data_collator.packing != "none":
            use_tree_attention(base.model.language_model)
            use_fused_layers(base.model.language_model)
        self._throughput = Throughput(base, is_frozen=isinstance(self.model, PeftModel))
        self.remove_callback(PrinterCallback)
        _check_trainable(self.model)
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # a small step is lost on a weight of 16 bits
                parameter.data = parameter.data.float()

    def store_reference(self, pairs: Sequence[EncodedPair] | None = None) -> None:
        """Give pairs, by default the trainer's, their reference log-probabilities: adapter off, one pass.

        Several processes share the passes.
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
        """Of each pair of a pass: its id, and the log-probabilities of its chosen and its rejected answer."""
        batch = self._prepare_inputs(batch)
        ids, mask = batch.pop("pair_ids"), batch.pop("completion_mask")
        labels = batch["input_ids"].masked_fill(mask == 0, -100)
        arguments = {name: value for name, value in batch.items() if not name.startswith("ref_")}
        outputs = self.model(**arguments, labels=labels, fused_lm_head=True, use_cache=False)
        chosen, rejected = outputs.log_probs.sum(1).chunk(2)
        return zip(ids, chosen.tolist(), rejected.tolist(), strict=True)

    def _reference_weights(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which the model is the reference. Without an adapter it is so until it trains."""
        if isinstance(self.model, PeftModel):
            return self.model.disable_adapter()
        return contextlib.nullcontext()

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward of all passes of a step; returns its loss."""
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
        """Loss, reward margin and reward accuracy over pairs that carry their reference, by one pass."""
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
        """What makes the turns' batches: of one turn a whole pass, of several their shares of one tree.

        The trunk of several is computed beforehand, and its backward pass made when they are through.
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
        """The loss of one pass, times the pass's share of the step."""
        pair_ids = inputs.pop("pair_ids")
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss[0] if isinstance(loss, tuple) else loss).all():
            raise AlignmentError(
                f"the loss is not finite at step {self.state.global_step + 1} for the pairs "
                f"{', '.join(pair_ids)}; look at them, or lower alignment.learning_rate"
            )
        return loss * self._share

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self._throughput.figures()
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch's is a RuntimeError
            folder = Path(self.args.output_dir)
            free = shutil.disk_usage(folder).free // 10**6
            raise AlignmentError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {folder}, where "
                f"{free} MB are free ({error}); the one before is whole: make room and run again"
            ) from error

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the stage writes one card, with the lineage, beside the finished adapter."""

    def _as_many_passes_everywhere(self, steps: list[Turns[EncodedPair]]) -> list[Turns[EncodedPair]]:
        """The passes, some cut further where another process has more: trl gathers figures in each."""
        if self.accelerator.num_processes == 1:
            return steps
        counts = self.accelerator.gather(torch.tensor([len(steps)], device=self.accelerator.device))
        passes = [some for turns in steps for some in turns]
        return [[some] for some in cut_further(passes, int(counts.max()))]

    def _weight(self, pairs: Sequence[EncodedPair]) -> int:
        """What a pass weighs in its step: its pairs, or the tokens over which its loss is a mean."""
        if "sft" in self.loss_types:
            return sum(len(pair.chosen_ids) for pair in pairs)
        return len(pairs)

    def _average_figures(self, before: dict[str, int], shares: Sequence[float]) -> None:
        """One figure a step in place of one a pass."""
        for name, values in self._metrics["train"].items():
            new = values[before.get(name, 0) :]
            if len(new) == len(shares):
                values[before.get(name, 0) :] = [sum(map(float.__mul__, map(float, new), shares))]

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The data set as it is: its rows name pairs that are encoded."""
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Nothing: :meth:`store_reference` does it."""
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["pair_id"]

    def _get_train_sampler(self, train_dataset: Any = None) -> PairOrder:
        clips = [pair.clip for pair in self._pairs]
        return PairOrder(clips, self.args.seed, self.data_collator.packing, self._pairs_a_tree)


def cut_further(cuts: list[list[EncodedPair]], count: int) -> list[list[EncodedPair]]:
    """The passes in their order, the largest halved until there are `count`, or one pair each."""
    cuts = list(cuts)
    while len(cuts) < count and max(map(len, cuts)) > 1:
        largest = max(range(len(cuts)), key=lambda index: len(cuts[index]))
        middle = len(cuts[largest]) // 2
        cuts[largest : largest + 1] = [cuts[largest][:middle], cuts[largest][middle:]]
    return cuts


def _by_clip_or_length(pairs: Sequence[EncodedPair], packing: Packing) -> list[EncodedPair]:
    """In the order that shares most, or, where nothing is shared, pads least."""
    if packing == "none":
        return sorted(pairs, key=len)
    first = {pair.clip: index for index, pair in reversed(list(enumerate(pairs)))}
    return sorted(pairs, key=lambda pair: first[pair.clip])


@contextlib.contextmanager
def _out_of_memory_explained(turns: Turns[EncodedPair], packing: Packing) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is one; a CPU has only the text
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        pairs = max(turns, key=len)
        tokens = sum(map(row_tokens, pairs))
        setting = "alignment.micro_batch_size" if packing == "none" else "alignment.pass_tokens"
        raise AlignmentError(
            f"out of memory in a pass over {len(pairs)} pairs: {tokens} tokens before anything is shared, in "
            f"rows of up to {max(map(len, pairs))}; lower {setting} or set alignment.gradient_checkpointing"
        ) from error


# trl's losses whose value for a batch is the mean over its pairs, or of "sft" over its tokens: what a step's
# passes find adds up. `aot` sorts the batch's margins, `bco_pair` keeps a mean over batches.
MEANS = (
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "sppo_hard", "apo_zero",
    "apo_down", "discopop", "sft",
)  # fmt: skip


def _check_loss(arguments: DPOConfig | None) -> None:
    """Refuse a loss that would come out wrong when a step is cut into passes."""
    asked = [] if arguments is None else arguments.loss_type
    asked = [asked] if isinstance(asked, str) else list(asked)
    odd = [name for name in asked if name not in MEANS]
    if odd or len(asked) > 1:
        why = f"{odd[0]} is no mean over pairs" if odd else f"{' and '.join(asked)} are weighed differently"
        raise AlignmentError(
            f"loss_type: {why}, so a step's passes do not add up; choose one of {', '.join(MEANS)}"
        )


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
        AlignmentError: If the batch cannot be shared by the processes, or a tracker is not installed.
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
        gradient_accumulation_steps=1,  # a step's passes are cut by its collator
        max_length=None,  # pairs over the limit were refused when they were encoded
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
        # Without an adapter trl would load a second model for the reference.
        precompute_ref_log_probs=settings.finetuning == "full",
        dataloader_pin_memory=False,
    )


def adapter_config(settings: AlignmentSettings) -> LoraConfig | None:
    """What of an adapter the settings want; None where all of the language model trains."""
    return None if settings.finetuning == "full" else lora_config(settings)


def freeze_all_but(model: torch.nn.Module, settings: AlignmentSettings) -> None:
    """Leave training to the language model with its head, and to the projector if it trains.

    An adapter freezes the language model in its turn.
    """
    projector = f"model.{family_of(settings.base.family).projector}."
    for name, parameter in model.named_parameters():
        is_language = name.startswith(("model.language_model.", "lm_head."))
        is_projector = settings.train_projector and name.startswith(projector)
        if parameter.is_floating_point():
            parameter.requires_grad_(is_language or is_projector)


def lora_config(settings: AlignmentSettings) -> LoraConfig:
    """LoRA on the language model's projections; vision tower and lm_head stay as they are."""
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
    """The model under its adapter, if it has one."""
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

    stray = [name for name in names if not may_train(name)]
    if stray or not names:
        what = stray[0] if stray else "nothing"
        allowed = "only LoRA weights of" if isinstance(model, PeftModel) else "only"
        raise AlignmentError(f"{allowed} the language model may train; here {what} would")
