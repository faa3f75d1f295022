"""What the tests of packing compare: one model's figures and gradients over the same pairs, packed or not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from safevid_core.alignment.clips import FeatureStore
from safevid_core.alignment.collator import ForestCollator, StepCollator, VideoPreferenceCollator
from safevid_core.alignment.encoding import EncodedPair, encode_pairs
from safevid_core.alignment.fused_layers import use_fused_layers
from safevid_core.alignment.packing import cut_into_trees
from safevid_core.alignment.train import step_collator
from safevid_core.alignment.trainer import VideoDPOTrainer, lora_config, training_arguments
from safevid_core.alignment.tree import Segment
from safevid_core.alignment.tree_attention import Way, use_tree_attention
from safevid_core.models.rope import trunk_positions
from safevid_core.models.video_chat import load_local
from safevid_core.settings import AlignmentSettings, load_settings

FAMILIES = ("llava_next_video", "qwen2_5_vl", "internvl")
PACKINGS = ("pair", "video")
EXACT = 1e-5
few = hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SOME = [
    (0, [30, 31, 32], [40, 41, 42, 43], [50, 51, 52]),
    (0, [30, 33], [60, 61, 62], [63, 64, 65, 66, 67]),
    (1, [70, 71], [72, 73], [74, 75, 76]),
    (0, [30, 31, 32], [45], [46, 47]),
]


AlignmentOf = Callable[..., AlignmentSettings]  # what the fixture `alignment_of` is
# Of each pair: number of its clip, tokens of query, chosen and rejected answer.
Drawn = list[tuple[int, list[int], list[int], list[int]]]


@dataclass
class Figures:
    """Of one batch: loss, log-probability of each answer by pair and side, gradient of each weight."""

    loss: torch.Tensor
    logps: dict[tuple[str, str], float]
    gradients: dict[str, torch.Tensor]

    def largest_difference(self, other: Figures) -> float:
        """The largest of: relative difference of the loss, of a log-probability, and of a gradient's norm."""
        assert self.logps.keys() == other.logps.keys()
        keys = list(self.logps)
        ours, theirs = (torch.tensor([each.logps[key] for key in keys]) for each in (self, other))
        found = [relative(self.loss, other.loss), ((ours - theirs).abs() / theirs.abs()).max().item()]
        return max(*found, largest_relative(self.gradients, other.gradients))


def largest_relative(found: Mapping[str, torch.Tensor], true: Mapping[str, torch.Tensor]) -> float:
    """Of gradients by the names of their weights."""
    assert found.keys() == true.keys()
    return max(relative(found[name], gradient) for name, gradient in true.items())


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    """Norm of the difference over norm."""
    return ((found - true).norm() / true.norm()).item()


def move_adapter(model: torch.nn.Module) -> None:
    """Draw LoRA's B at random: at its start A has no gradient."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def padded(trainer: VideoDPOTrainer, store: FeatureStore, pairs: Sequence[EncodedPair]) -> Figures:
    use_stock_layers(trainer.model)
    batch = VideoPreferenceCollator(pairs, store, pad_token_id=0).batch(pairs)
    return figures(trainer, batch)


def packed(
    trainer: VideoDPOTrainer,
    store: FeatureStore,
    pairs: Sequence[EncodedPair],
    packing: Any,
    way: Way = "segments",
    change: Any = None,
) -> Figures:
    """`change` may spoil the batch before the model sees it."""
    use_packed_layers(trainer.model)
    batch = forest_batch(trainer, store, pairs, packing, way)
    if change is not None:
        change(batch)
    return figures(trainer, batch)


def forest_batch(
    trainer: VideoDPOTrainer, store: FeatureStore, pairs: Sequence[EncodedPair], packing: Any, way: Way
) -> dict[str, Any]:
    backbone = trainer.model.get_base_model().model
    collator = ForestCollator(store, partial(trunk_positions, backbone), way)
    return collator.batch(cut_into_trees(pairs, packing, max_tokens=10**6))


def language_model(model: Any) -> Any:
    """Of a model under its adapter."""
    return model.get_base_model().model.language_model


def use_stock_layers(model: Any) -> None:
    """The language model as transformers and peft write it."""
    language_model(model).config._attn_implementation = "sdpa"
    for module in language_model(model).modules():
        vars(module).pop("forward", None)


def use_packed_layers(model: Any) -> None:
    use_tree_attention(language_model(model))
    use_fused_layers(language_model(model))


def figures(trainer: VideoDPOTrainer, batch: dict[str, Any]) -> Figures:
    """By trl's own loss and scoring; the reference is the one that the pairs carry."""
    trainer.model.zero_grad()
    trainer.precompute_ref_logps = True
    ids = list(batch["pair_ids"])
    inputs = trainer._prepare_inputs({name: value for name, value in batch.items() if name != "pair_ids"})
    loss = super(VideoDPOTrainer, trainer)._compute_loss(trainer.model, inputs, False)
    loss.backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }
    return Figures(loss.detach(), log_probabilities(trainer, inputs, ids), gradients)


def log_probabilities(
    trainer: VideoDPOTrainer, inputs: dict[str, Any], ids: Sequence[str]
) -> dict[tuple[str, str], float]:
    arguments = {
        name: value
        for name, value in inputs.items()
        if name not in ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")
    }
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    with torch.no_grad():
        found = trainer.model(**arguments, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(
            1
        )
    sides = [(pair_id, side) for side in ("chosen", "rejected") for pair_id in ids]
    return dict(zip(sides, found.tolist(), strict=True))


@contextlib.contextmanager
def collating(
    trainer: VideoDPOTrainer,
    store: FeatureStore,
    pairs: Sequence[EncodedPair],
    packing: Any,
    pass_tokens: int,
    way: Way,
) -> Iterator[None]:
    """With another collator, and the attention that it needs."""
    if packing == "none":
        use_stock_layers(trainer.model)
    else:
        use_packed_layers(trainer.model)
    before = trainer.data_collator
    backbone = trainer.model.get_base_model().model
    forests = ForestCollator(store, partial(trunk_positions, backbone), way)
    rows = VideoPreferenceCollator(pairs, store, pad_token_id=0)
    trainer.data_collator = StepCollator(pairs, rows, forests, packing, 1, pass_tokens)
    try:
        yield
    finally:
        trainer.data_collator = before


def stepped(
    trainer: VideoDPOTrainer, store: FeatureStore, pairs: Sequence[EncodedPair], pass_tokens: int, way: Way
) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of the trainer's own step over pairs packed by video, and the most turns of a tree."""
    trainer.model.zero_grad()
    trainer.precompute_ref_logps = True
    trainer.current_gradient_accumulation_steps = 1
    with collating(trainer, store, pairs, "video", pass_tokens, way):
        passes = trainer.data_collator.cuts(pairs)
        trainer.training_step(trainer.model, {"passes": passes})
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }
    return gradients, max(map(len, passes))


@dataclass(frozen=True)
class Subject:
    """A trainer of one family, its clips, and a pair of each clip that begins as every prompt about it."""

    trainer: VideoDPOTrainer
    store: FeatureStore
    templates: list[EncodedPair]

    def pair(self, number: int, drawn: tuple[int, list[int], list[int], list[int]]) -> EncodedPair:
        clip, query, chosen, rejected = drawn
        template = self.templates[clip]
        end = template.video_end
        modalities = template.prompt_modalities
        return replace(
            template,
            pair_id=f"pair-{number}",
            prompt_ids=[*template.prompt_ids[:end], *query],
            prompt_modalities=None if modalities is None else [*modalities[:end], *(0 for _ in query)],
            chosen_ids=chosen,
            rejected_ids=rejected,
            reference=(-1.0 - number, -2.0),
        )

    def pairs(self, drawn: Drawn) -> list[EncodedPair]:
        return [self.pair(number, each) for number, each in enumerate(drawn)]

    def packed_and_padded(
        self, drawn: Drawn, packing: Any, way: Way = "segments", change: Any = None
    ) -> tuple[Figures, Figures]:
        """The figures of the same pairs packed and padded. `change` may spoil the packed batch."""
        pairs = self.pairs(drawn)
        true = padded(self.trainer, self.store, pairs)
        return packed(self.trainer, self.store, pairs, packing, way, change), true

    def turns_and_padded(
        self, drawn: Drawn, room: int, way: Way
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], int]:
        """The gradients of the trainer's own step and of padded rows, and the most turns of a tree.

        Args:
            room: Tokens of a pass beyond the longest video.
        """
        pairs = self.pairs(drawn)
        true = padded(self.trainer, self.store, pairs)
        limit = max(template.video_end for template in self.templates) + room
        found, turns = stepped(self.trainer, self.store, pairs, limit, way)
        return found, true.gradients, turns


class Subjects:
    """A subject of each family that is asked for, over a release's first two clips."""

    def __init__(self, checkpoints: Mapping[str, Path], rows: Any, folder: Path, device: str = "cpu") -> None:
        self._checkpoints, self._rows, self._folder, self._device = checkpoints, rows, folder, device
        self._made: dict[str, Subject] = {}

    def __call__(self, family: str) -> Subject:
        if family not in self._made:
            self._made[family] = self._make(family)
        return self._made[family]

    def _make(self, family: str) -> Subject:
        """With a moved adapter."""
        base = {"path": str(self._checkpoints[family]), "family": family, "device": self._device}
        overrides = {"alignment": {"base": base, "lora_rank": 4, "lora_alpha": 8}}
        alignment = load_settings("pocket", overrides=overrides).alignment
        model, processor = load_local(alignment.base)
        store = FeatureStore(model, family)
        pairs = encode_pairs(self._rows, alignment, processor, store).pairs
        torch.manual_seed(1)
        trainer = VideoDPOTrainer(
            model=model,
            args=training_arguments(alignment, self._folder / family, len(pairs), seed=0),
            data_collator=step_collator(alignment, pairs, store, model, processor),
            processing_class=processor,
            peft_config=lora_config(alignment),
        )
        move_adapter(trainer.model)
        trainer.model.eval()
        return Subject(trainer, store, encode_pairs(self._rows[:2], alignment, processor, store).pairs)


@contextlib.contextmanager
def gradient_checkpointing(model: Any) -> Iterator[None]:
    model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        model.gradient_checkpointing_disable()


def largest_relative_of_checkpointed_turns(subject: Subject, way: Way) -> float:
    """Of the gradients of `SOME` in several turns under gradient checkpointing, against padded rows."""
    pairs = subject.pairs(SOME)
    true = padded(subject.trainer, subject.store, pairs)
    limit = subject.templates[0].video_end + 12
    with gradient_checkpointing(subject.trainer.model):
        found, turns = stepped(subject.trainer, subject.store, pairs, limit, way)
    assert turns > 1
    return largest_relative(found, true.gradients)


def one_wrong_position(batch: dict[str, Any]) -> None:
    forest = batch["forest"]
    positions = forest.position_ids.clone()
    positions[..., forest.segments[1].start] += 1
    batch["forest"] = replace(forest, position_ids=positions)


def one_leaked_cell(batch: dict[str, Any]) -> None:
    """The first token after the first leaf sees that leaf's last token."""
    forest = batch["forest"]
    leaf = next(index for index, each in enumerate(forest.segments) if each.stop == each.end)
    changed = list(forest.segments)
    old: Segment = changed[leaf]
    changed[leaf : leaf + 1] = [
        replace(old, end=old.end - 1, stop=old.end - 1),
        replace(old, start=old.end - 1, stop=old.end + 1),
    ]
    batch["forest"] = replace(forest, segments=[each for each in changed if each.end > each.start])


def one_swapped_branch(batch: dict[str, Any]) -> None:
    """The first pair's chosen answer hangs on its query; here its tokens stand where another's do."""
    forest = batch["forest"]
    leaves = [each for each in forest.segments if each.stop == each.end]
    one, other = leaves[0].start, leaves[-1].start
    ids = forest.token_ids.clone()
    ids[0, [one, other]] = ids[0, [other, one]]
    batch["forest"] = replace(forest, token_ids=ids)


def answers_start_from_the_wrong_token(batch: dict[str, Any]) -> None:
    predictors = batch["forest"].predictors.clone()
    predictors[0] -= 1
    batch["forest"] = replace(batch["forest"], predictors=predictors)


MISTAKES = (one_wrong_position, one_leaked_cell, one_swapped_branch, answers_start_from_the_wrong_token)
