"""Other weights than a LoRA's train as well: the projector, all of the language model, over four bits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from safevid_core.alignment import train as training
from safevid_core.alignment.clips import FeatureStore, PixelStore
from safevid_core.alignment.encoding import encode_pairs
from safevid_core.alignment.errors import AlignmentError
from safevid_core.alignment.job import Job
from safevid_core.alignment.train import prepare, step_collator, train
from safevid_core.alignment.trainer import (
    VideoDPOTrainer,
    adapter_config,
    freeze_all_but,
    training_arguments,
)
from safevid_core.models.video_chat import load_local
from safevid_core.settings import AlignmentSettings, Settings, load_settings
from tests.alignment.exactness import AlignmentOf, move_adapter, relative

FAMILIES = ("llava_next_video", "qwen2_5_vl", "internvl")


def build(
    alignment: AlignmentSettings, rows: pl.DataFrame, folder: Path, store_class: Any = FeatureStore
) -> VideoDPOTrainer:
    """A trainer away from its start, whose pairs carry their reference."""
    model, processor = load_local(alignment.base)
    freeze_all_but(model, alignment)
    store = PixelStore()
    if store_class is FeatureStore:
        store = FeatureStore(model, alignment.base.family, projected=not alignment.train_projector)
    pairs = encode_pairs(rows, alignment, processor, store).pairs
    torch.manual_seed(1)
    trainer = VideoDPOTrainer(
        model=model,
        args=training_arguments(alignment, folder, len(pairs), 0),
        data_collator=step_collator(alignment, pairs, store, model, processor),
        processing_class=processor,
        peft_config=adapter_config(alignment),
    )
    trainer.store_reference()
    move_adapter(trainer.model)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def gradients(trainer: VideoDPOTrainer) -> dict[str, torch.Tensor]:
    """Of a step over all pairs."""
    trainer.model.zero_grad()
    pairs = trainer.data_collator.pairs
    trainer.training_step(trainer.model, {"passes": trainer.data_collator.cuts(pairs)})
    return {
        name: parameter.grad.clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }


@pytest.mark.parametrize("finetuning", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_projector_that_trains_has_the_gradient_that_it_has_behind_the_tower(
    family: str, alignment_of: AlignmentOf, finetuning: str, release: pl.DataFrame, tmp_path: Path
) -> None:
    """Its stored inputs, packed in turns, against pixels in padded rows; so has all of the language model."""
    update = {"finetuning": finetuning, "train_projector": True}
    plain = alignment_of(family, **update)
    true = gradients(build(plain, release[:12], tmp_path, PixelStore))
    turns = alignment_of(family, packing="video", pass_tokens=120, **update)
    trainer = build(turns, release[:12], tmp_path)
    assert max(map(len, trainer.data_collator.cuts(trainer.data_collator.pairs))) > 1
    found = gradients(trainer)
    assert found.keys() == true.keys()
    reached = {name: gradient for name, gradient in true.items() if gradient.norm() > 1e-9}
    projectors = [name for name in reached if "projector" in name or "merger" in name]
    assert len(projectors) >= 3
    assert any("language_model" in name for name in reached)
    assert not any("vision_tower" in name or "blocks" in name for name in reached)
    assert max(relative(found[name], reached[name]) for name in reached) < 2e-5


@pytest.fixture
def run(alignment_of: AlignmentOf, release: pl.DataFrame, tmp_path: Path) -> Any:
    def of(family: str = "llava_next_video", **update: Any) -> Job:
        update = {"packing": "video", "epochs": 2, "learning_rate": 2e-3, **update}
        release.write_parquet(tmp_path / "pairs.parquet")
        job = Job(
            tmp_path / "run",
            tmp_path / "pairs.parquet",
            0,
            alignment_of(family, **update),
            features=tmp_path / "features",
        )
        job.folder.mkdir()
        return job

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_full_training_keeps_no_second_model_and_leaves_a_checkpoint(family: str, run: Any) -> None:
    job = run(family=family, finetuning="full")
    trainer = prepare(job).trainer
    assert trainer.ref_model is None
    assert all(pair.reference is not None for pair in trainer.data_collator.pairs)
    result = train(job)
    assert abs(result.first_loss - math.log(2)) < 1e-5
    assert result.last_loss < 0.9 * result.first_loss
    before, _ = load_local(job.settings.base)
    after, _ = load_local(job.settings.base, job.adapter)
    moved = {
        name
        for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert any("embed_tokens" in name for name in moved)
    assert all("language_model" in name or "lm_head" in name for name in moved)
    assert "safevid_tree" not in (job.adapter / "config.json").read_text()


def test_a_trained_projector_is_part_of_the_adapter(run: Any) -> None:
    job = run(train_projector=True)
    train(job)
    before, _ = load_local(job.settings.base)
    after, _ = load_local(job.settings.base, job.adapter)
    one, other = (model.model.multi_modal_projector.linear_1.weight for model in (before, after))
    assert not torch.equal(one, other)
    assert torch.equal(before.model.vision_tower.embeddings.patch_embedding.weight,
                       after.model.vision_tower.embeddings.patch_embedding.weight)  # fmt: skip


def test_an_adapter_over_four_bits_trains_and_merges_into_whole_weights(run: Any) -> None:
    """Over the pocket checkpoint, for the kernels want widths that are multiples of 64."""
    four_bit = pytest.importorskip("bitsandbytes.nn").Linear4bit
    checkpoint = Path(load_settings("pocket").alignment.base.path)
    job = run(finetuning="qlora", merge=True, learning_rate=5e-3, checkpoint=checkpoint)
    layers = [type(part) for part in prepare(job).trainer.model.modules()]
    assert layers.count(four_bit) == 21  # seven projections in each of three layers
    result = train(job)
    assert abs(result.first_loss - math.log(2)) < 1e-5
    assert result.last_loss < 0.95 * result.first_loss
    merged = job.settings.base.model_copy(update={"path": str(job.adapter / "merged")})
    one, other = load_local(merged)[0], load_local(job.settings.base, job.adapter)[0]
    pairs = zip(one.named_parameters(), other.parameters(), strict=True)
    assert all(torch.allclose(mine, theirs, atol=1e-6) for (_, mine), theirs in pairs)


def test_four_bits_without_their_package_are_one_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(AlignmentError, match="qlora needs bitsandbytes, which is not installed; install it"):
        prepare(run(finetuning="qlora"))


def test_a_tracker_that_is_not_there_is_one_line(run: Any) -> None:
    with pytest.raises(AlignmentError, match=r"report_to: teletype is not installed or not known"):
        prepare(run(report_to=("teletype",)))


def test_bfloat16_trains_weights_that_are_kept_in_float32(run: Any, settings: Settings) -> None:
    base = {"base": settings.alignment.base.model_copy(update={"dtype": "bfloat16"})}
    job = run()
    job = Job(job.folder, job.pairs, 0, job.settings.model_copy(update=base), features=job.features)
    trainer = prepare(job).trainer
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in trainer.model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    result = train(job)
    assert abs(result.first_loss - math.log(2)) < 1e-2
    assert result.last_loss < result.first_loss


def test_long_answers_are_cut_and_counted_and_prompts_are_not(
    settings: Settings, release: pl.DataFrame
) -> None:
    processor = load_local(settings.alignment.base)[1]
    whole = encode_pairs(release, settings.alignment, processor, PixelStore())
    limited = settings.alignment.model_copy(update={"max_response_tokens": 12})
    cut = encode_pairs(release, limited, processor, PixelStore())
    assert (whole.cut, cut.refused) == (0, {})
    longer = 0
    for one, other in zip(whole.pairs, cut.pairs, strict=True):
        assert other.prompt_ids == one.prompt_ids
        assert (other.chosen_ids, other.rejected_ids) == (one.chosen_ids[:12], one.rejected_ids[:12])
        longer += (len(one.chosen_ids) > 12) + (len(one.rejected_ids) > 12)
    assert cut.cut == longer > 0
    least = min(map(len, cut.pairs))
    both = limited.model_copy(update={"max_length": least})
    refused = encode_pairs(release, both, processor, PixelStore()).refused
    assert 0 < len(refused) < release.height
