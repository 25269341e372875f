"""Activations: each is one call of torch, or one small function."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Value

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Erf": torch.erf,
}


@operator(*PLAIN)
def plain(node: NodeView) -> Value:
    """Activations without parameters."""
    return node.emit(PLAIN[node.op_type], node.tensor(0))


@operator("LeakyRelu")
def leaky_relu(node: NodeView) -> Value:
    """x, or alpha x below 0."""
    return node.emit(F.leaky_relu, node.tensor(0), node.number("alpha", 0.01))


@operator("PRelu")
def prelu(node: NodeView) -> Value:
    """x, or slope x below 0, the slope broadcast."""
    return node.emit(sloped, node.tensor(0), node.tensor(1))


def sloped(x: Tensor, slope: Tensor) -> Tensor:
    """x, or slope x below 0."""
    return torch.where(x < 0, slope * x, x)


@operator("Elu")
def elu(node: NodeView) -> Value:
    """x, or alpha (exp x - 1) below 0."""
    return node.emit(F.elu, node.tensor(0), node.number("alpha", 1.0))


@operator("Celu", since=12)
def celu(node: NodeView) -> Value:
    """x, or alpha (exp(x / alpha) - 1) below 0."""
    return node.emit(F.celu, node.tensor(0), node.number("alpha", 1.0))


@operator("Selu")
def selu(node: NodeView) -> Value:
    """gamma times x, or gamma alpha (exp x - 1) below 0."""
    alpha, gamma = node.number("alpha", 1.6732632423543772), node.number("gamma", 1.0507009873554805)
    return node.emit(torch.mul, node.emit(F.elu, node.tensor(0), alpha), gamma)


@operator("HardSigmoid")
def hard_sigmoid(node: NodeView) -> Value:
    """alpha x + beta, held between 0 and 1."""
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return node.emit(F.hardsigmoid, node.tensor(0))
    return node.emit(held_line, node.tensor(0), alpha, beta)


def held_line(x: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha x + beta, held between 0 and 1."""
    return torch.clamp(x * alpha + beta, 0, 1)


@operator("ThresholdedRelu")
def thresholded_relu(node: NodeView) -> Value:
    """x above alpha, else 0."""
    return node.emit(F.threshold, node.tensor(0), node.number("alpha", 1.0), 0.0)


@operator("Shrink")
def shrink(node: NodeView) -> Value:
    """x moved towards 0 by bias, 0 within lambd of it."""
    return node.emit(shrunk, node.tensor(0), node.number("lambd", 0.5), node.number("bias", 0.0))


def shrunk(x: Tensor, lambd: float, bias: float) -> Tensor:
    """x moved towards 0 by bias, 0 within lambd of it."""
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)


@operator("Gelu", since=20)
def gelu(node: NodeView) -> Value:
    """x times the normal distribution function, exact or by tanh."""
    return node.emit(F.gelu, node.tensor(0), approximate=node.text("approximate", "none"))


@operator("Swish", since=24)
def swish(node: NodeView) -> Value:
    """x sigmoid(alpha x)."""
    alpha, x = node.number("alpha", 1.0), node.tensor(0)
    if alpha == 1.0:
        return node.emit(F.silu, x)
    return node.emit(torch.mul, x, node.emit(torch.sigmoid, node.emit(torch.mul, x, alpha)))


_SOFTMAX: dict[str, Callable[..., Tensor]] = {"Softmax": F.softmax, "LogSoftmax": F.log_softmax}


@operator("Softmax", "LogSoftmax", since=13)
def softmax(node: NodeView) -> Value:
    """Along one axis."""
    axis = node.axis(node.value(0), node.integer("axis", -1))
    return node.emit(_SOFTMAX[node.op_type], node.tensor(0), axis)


@operator("Softmax", "LogSoftmax", until=12)
def softmax_of_rows(node: NodeView) -> Value:
    """Before opset 13: over all axes from `axis` on together."""
    x = node.tensor(0)
    axis = node.axis(x, node.integer("axis", 1))
    if axis == node.rank(x) - 1:
        return node.emit(_SOFTMAX[node.op_type], x, axis)
    return node.emit(rows_softmax, x, axis, node.op_type == "LogSoftmax")


def rows_softmax(x: Tensor, axis: int, log: bool) -> Tensor:
    """(Log-)softmax over all axes from `axis` on together."""
    flat = x.flatten(axis)
    return (F.log_softmax(flat, axis) if log else F.softmax(flat, axis)).reshape(x.shape)


@operator("Hardmax", since=13)
def hardmax(node: NodeView) -> Value:
    """One at the first maximum along an axis, else 0."""
    return node.emit(first_maximum, node.tensor(0), node.axis(node.value(0), node.integer("axis", -1)))


def first_maximum(x: Tensor, axis: int) -> Tensor:
    """One at the first maximum along an axis, else 0."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


@operator("Clip")
def clip(node: NodeView) -> Value:
    """Held between two bounds, given as attributes (before opset 11) or inputs; either may be missing."""
    x = node.tensor(0)
    if node.opset < 11:
        low = node.number("min", -math.inf) if node.has("min") else None
        high = node.number("max", math.inf) if node.has("max") else None
        return x if low is None and high is None else node.emit(torch.clamp, x, low, high)
    bounds = [node.optional(1), node.optional(2)]
    if bounds == [None, None]:
        return x
    if any(bound is not None and not isinstance(bound, Tensor) for bound in bounds):
        return node.emit(held, x, *bounds)
    low, high = (bound.item() if isinstance(bound, Tensor) else None for bound in bounds)
    if low is not None and high is not None and low > high:
        low = high  # the operator's definition: min(max(x, low), high)
    return node.emit(torch.clamp, x, low, high)


def held(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    """min(max(x, low), high) for bounds that are tensors."""
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)
