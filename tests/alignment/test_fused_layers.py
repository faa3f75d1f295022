"""The fused layers compute what transformers and peft compute, forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from safevid_core.alignment import fused_layers
from safevid_core.alignment.fused_layers import use_fused_layers
from safevid_core.alignment.trainer import lora_config
from safevid_core.models.video_chat import load_local
from safevid_core.settings import load_settings
from tests.alignment.exactness import (
    EXACT,
    FAMILIES,
    language_model,
    move_adapter,
    relative,
    use_stock_layers,
)

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PARTS = {"input_layernorm", "post_attention_layernorm", "mlp", *PROJECTIONS}
some = hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def models(checkpoints: dict[str, Path]) -> Callable[[str], Any]:
    """A family's model with an adapter that is not at its start."""
    from peft import get_peft_model

    made: dict[str, Any] = {}

    def of(family: str) -> Any:
        if family not in made:
            base = {"path": str(checkpoints[family]), "family": family}
            settings = load_settings("pocket", overrides={"alignment": {"base": base}}).alignment
            made[family] = get_peft_model(load_local(settings.base)[0], lora_config(settings))
            move_adapter(made[family])
        return made[family]

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_of_every_layer_is_known(models: Callable[[str], Any], family: str) -> None:
    model = models(family)
    use_fused_layers(language_model(model))
    for layer in language_model(model).layers:
        changed = {name.split(".")[-1] for name, module in layer.named_modules() if "forward" in vars(module)}
        assert changed == PARTS
    assert "forward" in vars(language_model(model).norm)


@pytest.mark.parametrize("family", FAMILIES)
@some
@given(rows=st.sampled_from([0, 1, 2, 9, 300]), spread=st.sampled_from([1e-3, 1.0, 30.0]))
def test_a_layer_has_the_outputs_and_gradients_of_the_stock_one(
    monkeypatch: pytest.MonkeyPatch, models: Callable[[str], Any], family: str, rows: int, spread: float
) -> None:
    monkeypatch.setattr(fused_layers, "_NUMBERS_AT_ONCE", 1000)  # so that a few rows make several runs
    model = models(family)
    layer = language_model(model).layers[0]
    width = language_model(model).config.hidden_size
    generator = torch.Generator().manual_seed(rows)
    states = torch.randn(1, rows, width, generator=generator) * spread

    def figures() -> list[torch.Tensor]:
        model.zero_grad()
        inputs = states.clone().requires_grad_()
        normed = layer.input_layernorm(inputs)
        attention = layer.self_attn
        found = attention.o_proj(attention.q_proj(normed)) + layer.mlp(layer.post_attention_layernorm(inputs))
        found.square().sum().backward()
        used = [attention.q_proj, attention.o_proj, *layer.mlp.children()]
        weights = [each for part in used for name, each in part.named_parameters() if "lora_" in name]
        assert inputs.grad is not None
        return [
            found.detach(),
            inputs.grad,
            *(each.grad.clone() for each in weights if each.grad is not None),
        ]

    use_stock_layers(model)
    true = figures()
    use_fused_layers(language_model(model))
    found = figures()
    assert len(found) == len(true) == 2 + 2 * 5
    for ours, stock in zip(found, true, strict=True):
        assert ours.shape == stock.shape
        assert not stock.norm() or relative(ours, stock) < EXACT


@pytest.mark.parametrize("family", FAMILIES)
def test_without_its_adapter_a_projection_is_the_frozen_one(
    models: Callable[[str], Any], family: str
) -> None:
    model = models(family)
    use_fused_layers(language_model(model))
    projection = language_model(model).layers[0].self_attn.q_proj
    inputs = torch.randn(1, 5, projection.in_features, generator=torch.Generator().manual_seed(0))
    frozen = projection.base_layer(inputs)
    assert relative(projection(inputs), frozen) > 0.01
    with model.disable_adapter():
        inputs.requires_grad_()
        with torch.no_grad():
            assert relative(projection(inputs), frozen) < EXACT
        projection(inputs).sum().backward()
    assert inputs.grad is not None
    assert relative(inputs.grad, projection.base_layer.weight.sum(0).expand_as(inputs)) < EXACT


@pytest.mark.parametrize("weight", ["lora_A", "lora_B"])
def test_a_moved_adapter_counts_at_once(models: Callable[[str], Any], weight: str) -> None:
    """By an optimizer's step or behind autograd's back."""
    model = models("internvl")
    projection = language_model(model).layers[0].mlp.gate_proj
    moved = getattr(projection, weight)["default"].weight
    inputs = torch.randn(1, 4, projection.in_features, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        moved.grad = torch.ones_like(moved)
        torch.optim.AdamW([moved], lr=0.1).step()

    def write() -> None:
        moved.data.mul_(1.5)

    before = moved.detach().clone()
    try:
        for move in (step, write):
            use_fused_layers(language_model(model))
            stale = projection(inputs).detach()
            move()
            found = projection(inputs).detach()
            use_stock_layers(model)
            assert relative(found, projection(inputs).detach()) < EXACT
            assert relative(found, stale) > 1e-3
    finally:
        moved.data.copy_(before)
        moved.grad = None


@pytest.mark.parametrize("family", FAMILIES)
@some
@given(rows=st.sampled_from([0, 1, 2, 9, 300]), spread=st.sampled_from([1e-3, 1.0, 30.0]))
def test_what_a_gpu_computes_is_what_the_stock_layers_compute(
    models: Callable[[str], Any], family: str, rows: int, spread: float
) -> None:
    model = models(family)
    use_stock_layers(model)
    layer = language_model(model).layers[0]
    projection, norm = layer.mlp.down_proj, layer.post_attention_layernorm
    generator = torch.Generator().manual_seed(rows)
    for module, forward in ((projection, fused_layers._add_adapter), (norm, fused_layers._normalise_at_once)):
        width = projection.in_features if module is projection else norm.weight.shape[0]
        states = torch.randn(2, rows, width, generator=generator) * spread
        weights = [each for name, each in module.named_parameters() if "lora_" in name]
        figures = []
        for compute in (module, partial(forward, module)):
            inputs = states.clone().requires_grad_()
            found = compute(inputs)
            slopes = torch.autograd.grad(found.square().sum(), [inputs, *weights])
            figures.append([found.detach(), *slopes])
        for ours, stock in zip(figures[1], figures[0], strict=True):
            assert ours.shape == stock.shape
            assert not stock.norm() or relative(ours, stock) < EXACT


def test_an_adapter_beside_16_bits_has_its_gradient_in_32(models: Callable[[str], Any]) -> None:
    """Under autocast, as it trains on a GPU."""
    model = models("qwen2_5_vl")
    use_stock_layers(model)
    projection = copy.deepcopy(language_model(model).layers[0].self_attn.q_proj)  # it has a bias
    projection.base_layer.bfloat16()
    down = projection.lora_A["default"].weight
    inputs = torch.randn(1, 50, projection.in_features, generator=torch.Generator().manual_seed(0))
    figures = []
    for compute in (projection, partial(fused_layers._add_adapter, projection)):
        rows = inputs.bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            found = compute(rows)
        assert found.dtype == torch.bfloat16
        slopes = torch.autograd.grad(found.float().square().sum(), [rows, down])
        assert [each.dtype for each in slopes] == [torch.bfloat16, torch.float32]
        figures.append([found.detach().float(), *(each.float() for each in slopes)])
    for ours, stock in zip(figures[1], figures[0], strict=True):
        assert relative(ours, stock) < 0.02


def test_a_merged_adapter_is_not_added_twice(models: Callable[[str], Any]) -> None:
    model = models("qwen2_5_vl")
    use_fused_layers(language_model(model))
    projection = language_model(model).layers[0].mlp.up_proj
    inputs = torch.randn(3, projection.in_features, generator=torch.Generator().manual_seed(0))
    before = projection(inputs)
    projection.merge()
    try:
        assert relative(projection(inputs), before) < EXACT
    finally:
        projection.unmerge()


def test_a_model_on_neither_cpu_nor_gpu_stays_stock() -> None:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    with torch.device("meta"):
        model = LlamaModel(config)
    use_fused_layers(model)
    assert not any("forward" in vars(module) for module in model.modules())


def test_what_trains_or_is_not_known_stays_stock(models: Callable[[str], Any]) -> None:
    model = models("llava_next_video")
    use_stock_layers(model)
    layer = language_model(model).layers[0]
    layer.input_layernorm.weight.requires_grad_()
    layer.self_attn.q_proj.lora_dropout["default"] = torch.nn.Dropout(0.5)
    try:
        use_fused_layers(language_model(model))
        assert "forward" not in vars(layer.input_layernorm)
        assert "forward" not in vars(layer.self_attn.q_proj)
        assert "forward" in vars(layer.self_attn.k_proj)
    finally:
        layer.input_layernorm.weight.requires_grad_(False)
        layer.self_attn.q_proj.lora_dropout["default"] = torch.nn.Identity()
