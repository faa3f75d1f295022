"""What the trainer learns from, and that its short cuts change nothing: features and reference once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from safevid_core.alignment.clips import FeatureStore, NoClips, PixelStore
from safevid_core.alignment.encoding import EncodedPair, encode_pairs
from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.train import step_collator
from safevid_core.alignment.trainer import (
    MEANS,
    PairOrder,
    VideoDPOTrainer,
    lora_config,
    training_arguments,
)
from safevid_core.models.video_chat import load_local
from safevid_core.settings import AlignmentSettings, Settings
from tests.alignment.exactness import FAMILIES, AlignmentOf, move_adapter, relative


def build(
    alignment: AlignmentSettings,
    rows: pl.DataFrame,
    folder: Path,
    store_class: Any = FeatureStore,
    objective: str = "dpo",
) -> VideoDPOTrainer:
    """A trainer with LoRA's B drawn at random, for at its start A has no gradient."""
    model, processor = load_local(alignment.base)
    store = FeatureStore(model, alignment.base.family) if store_class is FeatureStore else store_class()
    show_video = store_class is not NoClips
    pairs = encode_pairs(rows, alignment, processor, store, show_video=show_video).pairs
    torch.manual_seed(1)
    trainer = VideoDPOTrainer(
        model=model,
        args=training_arguments(alignment, folder, len(pairs), 0, objective),
        data_collator=step_collator(alignment, pairs, store, model, processor),
        processing_class=processor,
        peft_config=lora_config(alignment),
    )
    return trainer


def batch_of(trainer: VideoDPOTrainer, indices: list[int]) -> dict[str, Any]:
    pairs = [trainer.data_collator.pairs[index] for index in indices]
    return trainer.data_collator.forward_pass(pairs)


def loss_and_gradients(trainer: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return loss.detach(), {
        name: parameter.grad.clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_reference_and_features_give_the_loss_and_gradients_of_stock_trl(
    family: str, alignment_of: AlignmentOf, release: pl.DataFrame, tmp_path: Path
) -> None:
    """Against trl's own trainer class, fed pixels, with its own reference forward in the step."""
    from trl import DPOTrainer

    alignment = alignment_of(family)
    stock = build(alignment, release, tmp_path, PixelStore)
    ours = build(alignment, release, tmp_path)
    ours.store_reference()
    for trainer in (stock, ours):
        move_adapter(trainer.model)
    chosen = [0, 5, 6, 13]
    stock_batch = batch_of(stock, chosen)
    our_batch = batch_of(ours, chosen)
    assert "mm_encoder_outputs" in our_batch
    assert not {"pixel_values", "pixel_values_videos"} & set(our_batch)
    assert torch.equal(stock_batch["input_ids"], our_batch["input_ids"])

    stock_batch.pop("pair_ids")
    stock.model.zero_grad()
    true_loss = DPOTrainer._compute_loss(stock, stock.model, stock_batch, False)
    true_loss.backward()
    loss, gradients = loss_and_gradients(ours, our_batch)
    assert relative(loss, true_loss.detach()) < 1e-5
    true_gradients = {name: p.grad for name, p in stock.model.named_parameters() if p.requires_grad}
    assert gradients.keys() == true_gradients.keys()
    assert all(true.norm() > 0 for true in true_gradients.values())
    worst = max(relative(gradients[name], true) for name, true in true_gradients.items())
    assert worst < 1e-5


def with_loss(trainer: VideoDPOTrainer, loss: str) -> VideoDPOTrainer:
    trainer.args.loss_type = trainer.loss_types = [loss]
    trainer.label_smoothing = 1e-3 if loss == "exo_pair" else 0.0  # trl sets it so where it is built
    return trainer


def test_a_step_in_several_passes_has_the_gradient_of_one_under_every_loss_that_is_taken(
    alignment_of: AlignmentOf, release: pl.DataFrame, tmp_path: Path
) -> None:
    trainer = build(alignment_of(FAMILIES[0]), release, tmp_path)
    trainer.store_reference()
    move_adapter(trainer.model)
    trainer.current_gradient_accumulation_steps = 1
    pairs = trainer.data_collator.pairs[:5]
    whole, cut = [[pairs]], [[pairs[:2]], [pairs[2:3]], [pairs[3:]]]

    def gradients(passes: list[list[list[EncodedPair]]]) -> dict[str, torch.Tensor]:
        trainer.model.zero_grad()
        torch.manual_seed(0)
        trainer.training_step(trainer.model, {"passes": passes})
        return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}

    for loss in set(MEANS) - {"sft"}:  # which is a mean over tokens, and weighed by them
        with_loss(trainer, loss)
        true, found = gradients(whole), gradients(cut)
        assert all(gradient.norm() > 0 for gradient in true.values()), loss
        assert max(relative(found[name], true[name]) for name in true) < 1e-5, loss


@pytest.mark.parametrize("asked", ["aot", "aot_unpaired", "bco_pair", ["sigmoid", "sft"], ["aot", "sigmoid"]])
def test_a_loss_that_is_no_mean_over_pairs_is_refused(
    alignment_of: AlignmentOf, release: pl.DataFrame, tmp_path: Path, asked: Any
) -> None:
    alignment = alignment_of(FAMILIES[0])
    model, processor = load_local(alignment.base)
    store = FeatureStore(model, alignment.base.family)
    pairs = encode_pairs(release[:4], alignment, processor, store).pairs
    arguments = training_arguments(alignment, tmp_path, len(pairs), 0)
    arguments.loss_type = asked
    with pytest.raises(AlignmentError, match=r"loss_type: .*choose one of sigmoid"):
        VideoDPOTrainer(
            model=model,
            args=arguments,
            data_collator=step_collator(alignment, pairs, store, model, processor),
            processing_class=processor,
            peft_config=lora_config(alignment),
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_only_lora_weights_of_the_language_model_train_and_only_they_move(
    family: str, alignment_of: AlignmentOf, release: pl.DataFrame, tmp_path: Path
) -> None:
    alignment = alignment_of(family, save_steps=1000)
    trainer = build(alignment, release[:8], tmp_path)
    trainer.store_reference()
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {
        name
        for name, parameter in trainer.model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert moved
    assert all(".language_model.layers." in name and ".lora_" in name for name in moved)
    layers = 2
    assert len([name for name in moved if ".lora_B." in name]) == 7 * layers


def test_a_trainable_vision_weight_is_refused(
    settings: Settings, release: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safevid_core.alignment.trainer.LANGUAGE_PROJECTIONS", r".*\.(q_proj|k_proj)")
    with pytest.raises(AlignmentError, match=r"only LoRA weights of the language model may train.*vision"):
        build(settings.alignment, release[:4], tmp_path)


@pytest.mark.parametrize("store_class", [FeatureStore, PixelStore])
def test_another_video_gives_other_log_probabilities(
    store_class: Any, settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    """A trainer blind to video would give the same, as stock trl does when only `videos` is there."""
    others = release.with_columns(pl.col("path").shift(1).fill_null(release["path"][-1]))
    others = others.with_columns(pl.col("media_sha256").shift(1).fill_null(release["media_sha256"][-1]))
    logps = []
    for rows in (release, others):
        trainer = build(settings.alignment, rows, tmp_path, store_class)
        trainer.store_reference()
        logps.append(torch.tensor([pair.reference for pair in trainer.data_collator.pairs]))
    assert ((logps[0] - logps[1]).abs() > 1e-4).all()


def test_the_loss_starts_at_ln_2_and_falls(settings: Settings, release: pl.DataFrame, tmp_path: Path) -> None:
    alignment = settings.alignment.model_copy(update={"epochs": 4, "learning_rate": 5e-3})
    trainer = build(alignment, release, tmp_path)
    trainer.store_reference()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_imitates_the_chosen_answers_and_them_alone(
    family: str, alignment_of: AlignmentOf, release: pl.DataFrame, tmp_path: Path
) -> None:
    """Its loss is the mean negative log-likelihood of their tokens, as the plain model scores them."""
    alignment = alignment_of(family)
    ours = build(alignment, release, tmp_path, objective="sft")
    plain = build(alignment, release, tmp_path, PixelStore)
    others = build(alignment, release.with_columns(rejected=pl.lit("Other.")), tmp_path, objective="sft")
    for trainer in (ours, plain, others):
        trainer.store_reference()
        move_adapter(trainer.model)
    chosen = [0, 5, 6, 13]
    loss, gradients = loss_and_gradients(ours, batch_of(ours, chosen))
    other_loss, other_gradients = loss_and_gradients(others, batch_of(others, chosen))

    batch = batch_of(plain, chosen)
    aside = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps", "pair_ids")
    mask = batch["completion_mask"][:4, 1:].bool()
    logits = plain.model(**{name: value for name, value in batch.items() if name not in aside}).logits[:4]
    scores = logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:4, 1:, None]).squeeze(-1)
    expected = -scores[mask].mean()
    expected.backward()
    assert relative(loss, expected.detach()) < 1e-5
    assert relative(other_loss, loss) < 1e-5
    for name, parameter in plain.model.named_parameters():
        if parameter.requires_grad:
            assert relative(gradients[name], parameter.grad) < 1e-4
            assert relative(other_gradients[name], gradients[name]) < 1e-4


def test_sft_takes_as_many_steps_and_its_loss_falls(
    settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    alignment = settings.alignment.model_copy(update={"epochs": 4, "learning_rate": 5e-3})
    losses = {}
    for objective in ("dpo", "sft"):
        trainer = build(alignment, release, tmp_path / objective, objective=objective)
        trainer.store_reference()
        trainer.train()
        losses[objective] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses["sft"]) == len(losses["dpo"])
    assert sum(losses["sft"][-6:]) < 0.95 * sum(losses["sft"][:6])  # the last epoch and the first


@pytest.mark.parametrize("packing", ["none", "video"])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_on_text_alone_is_blind_to_the_video(
    family: str, alignment_of: AlignmentOf, packing: str, release: pl.DataFrame, tmp_path: Path
) -> None:
    """Other clips change nothing but, packed, which pairs stand in one tree, and so the rounding."""
    alignment = alignment_of(family, packing=packing)
    others = release.with_columns(
        path=pl.lit("/gone.mp4"), media_sha256=pl.lit("0" * 64), clip_id=pl.lit("another")
    )
    gradients = []
    for rows in (release, others):
        trainer = build(alignment, rows, tmp_path, NoClips)
        trainer.store_reference()
        move_adapter(trainer.model)
        batch = batch_of(trainer, [0, 5, 6, 13])
        assert not {"pixel_values", "pixel_values_videos", "mm_encoder_outputs"} & set(batch)
        gradients.append(loss_and_gradients(trainer, batch)[1])
    assert all(relative(gradients[0][name], other) < 1e-5 for name, other in gradients[1].items())
    assert any(other.norm() > 0 for other in gradients[1].values())


def test_a_loss_that_is_not_finite_names_its_pairs(
    settings: Settings, release: pl.DataFrame, tmp_path: Path
) -> None:
    trainer = build(settings.alignment, release, tmp_path)
    trainer.store_reference()
    trainer.data_collator.pairs[7].reference = (float("nan"), 0.0)
    with pytest.raises(AlignmentError, match=r"not finite.*pair-07"):
        trainer.train()


def test_the_order_of_the_pairs_follows_from_seed_and_epoch() -> None:
    clips = [f"clip-{number % 7}" for number in range(50)]
    order, again, other = PairOrder(clips, 1), PairOrder(clips, 1), PairOrder(clips, 2)
    first = list(order)
    assert sorted(first) == list(range(50))
    assert first == list(again) != list(other)
    order.set_epoch(1)
    assert list(order) != first


def test_a_batch_that_the_processes_cannot_share_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(AlignmentError, match=r"alignment\.batch_size 4 is no multiple of the 3 processes"):
        training_arguments(settings.alignment, tmp_path, 100, seed=0)
