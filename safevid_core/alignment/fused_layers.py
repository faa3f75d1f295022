"""Faster layers for a language model with a LoRA adapter: fewer passes over memory, the same results.

Apart from matrix products, a step spends its time in small operations. Each of them reads and writes a whole
activation, and on a GPU each stores activations for the backward pass. The layers here give the results of
transformers and peft up to rounding.

On a CPU in float32:

- A projection multiplies by the sum of its weight and its adapter. The sum is packed in the order in which
  oneDNN reads it, again after each change of the adapter.
- A norm and a gated unit are computed, forward and backward, for as many rows at a time as fit into the
  processor's cache.

On a GPU:

- A projection adds its adapter in place, in the type of the weight. 16 bits could not hold the sum of weight
  and adapter.
- Layers with the same input store one copy of it.

Imports torch and peft: import it inside functions.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch.nn.functional import linear, rms_norm, silu

_NUMBERS_AT_ONCE = 2**17  # numbers of an activation that are processed at a time: 512 KB
_USUAL_ROWS = 2048  # rows of a product that the packing is tuned for; it serves any number

Product = Callable[[torch.Tensor], torch.Tensor]


def use_fused_layers(language_model: torch.nn.Module) -> None:
    """Replace the forward functions of known layers. Other layers are not changed.

    Known layers are LoRA projections with frozen weights, RMSNorm, and gated units with SiLU, on a GPU or in
    float32 on a CPU. On a CPU the packed weights add up to three times the memory of the projections.
    """
    if next(language_model.parameters()).device.type not in ("cpu", "cuda"):
        return
    for module in language_model.modules():
        forward = _forward_for(module)
        if forward is not None:
            module.forward = types.MethodType(forward, module)


def _forward_for(module: torch.nn.Module) -> Callable[..., torch.Tensor] | None:
    if isinstance(module, LoraLinear):
        if not _is_plain(module):
            return None
        return _add_adapter if module.base_layer.weight.is_cuda else _projection(module)
    if type(module).__name__.endswith("RMSNorm"):
        weight = module.weight
        if not _is_frozen(weight):
            return None
        return _normalise_at_once if weight.is_cuda else _normalise
    is_gated = hasattr(module, "gate_proj") and "SiLU" in type(getattr(module, "act_fn", None)).__name__
    return _gate if is_gated else None


def _is_frozen(weight: torch.Tensor) -> bool:
    return (weight.is_cuda or weight.dtype == torch.float32) and not weight.requires_grad


def _is_plain(module: LoraLinear) -> bool:
    """Return whether the layer is a frozen linear layer with one plain LoRA adapter without dropout."""
    weight = module.base_layer.weight
    return (
        type(module.base_layer) is torch.nn.Linear
        and _is_frozen(weight)
        and (weight.is_cuda or torch.backends.mkldnn.is_available())
        and len(module.lora_A) == 1
        and not module.lora_variant
        and all(isinstance(dropout, torch.nn.Identity) for dropout in module.lora_dropout.values())
    )


def _projection(module: LoraLinear) -> Callable[..., torch.Tensor]:
    (adapter,) = module.lora_A
    products = _Products(module.base_layer.weight.detach(), module.base_layer.bias)

    def forward(self: LoraLinear, inputs: torch.Tensor) -> torch.Tensor:
        if self.merged or (self.disable_adapters and torch.is_grad_enabled()):
            return LoraLinear.forward(self, inputs)
        if self.disable_adapters:
            return products.frozen(inputs)
        down, up, scale = self.lora_A[adapter].weight, self.lora_B[adapter].weight, self.scaling[adapter]
        found = _Projection.apply(inputs, down, up, scale, *products.adapted(down, up, scale))
        assert isinstance(found, torch.Tensor)
        return found

    return forward


class _Products:
    """Products of rows with a frozen weight `W` `[out, in]`, and with the sum of `W` and an adapter."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias
        self._packed: tuple[Product, Product] | None = None
        self._adapter: tuple[torch.Tensor, torch.Tensor] | None = None  # the adapter in `_packed`

    @functools.cached_property
    def frozen(self) -> Product:
        """The product without the adapter. A run with a stored reference does not use it."""
        return packed_product(self._weight, self._bias)

    def adapted(self, down: torch.Tensor, up: torch.Tensor, scale: float) -> tuple[Product, Product]:
        """Return the forward and the backward product. The weight is packed again if the adapter changed."""
        adapter = (down.detach(), up.detach())
        if self._packed is None or self._adapter is None or not all(map(torch.equal, adapter, self._adapter)):
            whole = torch.addmm(self._weight, adapter[1], adapter[0], alpha=scale)
            self._packed = packed_product(whole, self._bias), packed_product(whole.T.contiguous())
            self._adapter = (adapter[0].clone(), adapter[1].clone())
        return self._packed


def packed_product(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    """Return a function that multiplies rows `[..., in]` by a weight `[out, in]`. It has no gradient."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _USUAL_ROWS)

    def product(rows: torch.Tensor) -> torch.Tensor:
        found = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
        assert isinstance(found, torch.Tensor)
        return found

    return product


class _Projection(torch.autograd.Function):
    """`x (W + scale B A)' + b` with W and b frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
        product: Product,
        back: Product,
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs, down, up)
        ctx.scale, ctx.back = scale, back
        return product(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        inputs, down, up = ctx.saved_tensors
        rows, gradient = inputs.flatten(0, -2), gradients[0].flatten(0, -2)
        _, of_down, of_up = _of_adapter(gradient, rows, rows @ down.T, up, ctx.scale)
        of_inputs = ctx.back(gradients[0]) if ctx.needs_input_grad[0] else None
        return of_inputs, of_down, of_up, None, None, None


def _add_adapter(self: LoraLinear, inputs: torch.Tensor) -> torch.Tensor:
    if self.merged or self.disable_adapters:
        return LoraLinear.forward(self, inputs)
    (adapter,) = self.lora_A
    weights = (
        self.base_layer.weight,
        self.base_layer.bias,
        self.lora_A[adapter].weight,
        self.lora_B[adapter].weight,
    )
    found = _AddedAdapter.apply(inputs, *weights, self.scaling[adapter])
    assert isinstance(found, torch.Tensor)
    return found


class _AddedAdapter(torch.autograd.Function):
    """`x W' + b + scale (x A') B'` with W and b frozen, in W's type."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        inputs, down, up = (each.to(weight.dtype) for each in (inputs, down, up))
        rows = inputs.flatten(0, -2)
        inner = rows @ down.T
        found = linear(rows, weight, bias).addmm_(inner, up.T, alpha=scale)
        ctx.save_for_backward(inputs, weight, down, up, inner)
        ctx.scale = scale
        return found.unflatten(0, inputs.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        inputs, weight, down, up, inner = ctx.saved_tensors
        rows, gradient = inputs.flatten(0, -2), gradients[0].flatten(0, -2)
        of_inner, of_down, of_up = _of_adapter(gradient, rows, inner, up, ctx.scale)
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_inputs = (gradient @ weight).addmm_(of_inner, down, alpha=ctx.scale).view_as(inputs)
        return of_inputs, None, None, of_down, of_up, None


def _of_adapter(
    gradient: torch.Tensor, rows: torch.Tensor, inner: torch.Tensor, up: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of an adapter.

    Args:
        gradient: Gradient of the output.
        rows: The inputs x.
        inner: `x A'`.
        up: B.
        scale: Scale of the adapter.

    Returns:
        The gradient of `inner` without the scale, and the gradients of A and B in float32.
    """
    of_inner = gradient @ up
    of_down = (of_inner.T @ rows).float().mul_(scale)
    of_up = (gradient.T @ inner).float().mul_(scale)
    return of_inner, of_down, of_up


def _normalise_at_once(self: Any, inputs: torch.Tensor) -> torch.Tensor:
    with torch.autocast(inputs.device.type, enabled=False):  # autocast would compute in float32
        return rms_norm(inputs, (inputs.shape[-1],), self.weight, self.variance_epsilon)


def _normalise(self: Any, inputs: torch.Tensor) -> torch.Tensor:
    found = _RMSNorm.apply(inputs, self.weight, self.variance_epsilon)
    assert isinstance(found, torch.Tensor)
    return found


class _RMSNorm(torch.autograd.Function):
    """`x w / sqrt(mean(x x) + epsilon)` with w frozen."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        outputs, scales = torch.empty_like(inputs), inputs.new_empty(*inputs.shape[:-1], 1)
        for rows, found, scale in _in_runs(inputs, outputs, scales):
            torch.linalg.vecdot(rows, rows, out=scale[:, 0])
            scale.div_(rows.shape[-1]).add_(epsilon).rsqrt_()
            torch.mul(rows, scale, out=found).mul_(weight)
        ctx.save_for_backward(inputs, weight, scales)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        inputs, weight, scales = ctx.saved_tensors
        of_inputs = torch.empty_like(inputs)
        for gradient, rows, scale, found in _in_runs(gradients[0], inputs, scales, of_inputs):
            torch.mul(gradient, weight, out=found)
            along = torch.linalg.vecdot(found, rows)[:, None] * scale.square() / rows.shape[-1]
            found.addcmul_(rows, along, value=-1).mul_(scale)
        return of_inputs, None, None


def _gate(self: Any, inputs: torch.Tensor) -> torch.Tensor:
    found = self.down_proj(_Gate.apply(self.gate_proj(inputs), self.up_proj(inputs)))
    assert isinstance(found, torch.Tensor)
    return found


class _Gate(torch.autograd.Function):
    """`silu(gate) up`."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        outputs = torch.empty_like(gate)
        for opening, rows, found in _in_runs(gate, up, outputs):
            torch.mul(silu(opening), rows, out=found)
        ctx.save_for_backward(gate, up)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gate, up = ctx.saved_tensors
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        for gradient, opening, rows, found, other in _in_runs(gradients[0], gate, up, of_gate, of_up):
            torch.mul(gradient, silu(opening), out=other)
            torch.ops.aten.silu_backward.grad_input(gradient * rows, opening, grad_input=found)
        return of_gate, of_up


def _in_runs(*activations: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the same run of rows of each activation `[..., width]`. On a GPU the only run holds all rows."""
    first = activations[0]
    numbers = first.numel() if first.is_cuda else _NUMBERS_AT_ONCE
    rows = max(1, numbers // first.shape[-1])
    yield from zip(*(each.flatten(0, -2).split(rows) for each in activations), strict=True)
