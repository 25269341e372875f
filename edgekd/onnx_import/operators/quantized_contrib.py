"""The quantized operators of ONNX Runtime's own domain, which its quantizer writes in QOperator format.

Each dequantizes its operands, does in floats what its plain namesake does, and quantizes again.
"""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.operators.pooling import pool_average
from edgekd.onnx_import.operators.quantized import RANGES, dequantized, integer_type, quantized
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Unconvertible, Value

DOMAIN = "com.microsoft"
_ARITHMETIC: dict[str, Callable[..., Tensor]] = {"QLinearAdd": torch.add, "QLinearMul": torch.mul}


@operator(*_ARITHMETIC, domain=DOMAIN, carried=True)
def arithmetic(node: NodeView) -> Value:
    """a + b or a b."""
    result = node.emit(_ARITHMETIC[node.op_type], _real(node, 0), _real(node, 3))
    return _quantized(node, result, 6)


@operator("QLinearSigmoid", domain=DOMAIN, carried=True)
def sigmoid(node: NodeView) -> Value:
    """The logistic function."""
    return _quantized(node, node.emit(torch.sigmoid, _real(node, 0)), 3)


@operator("QLinearLeakyRelu", domain=DOMAIN, carried=True)
def leaky_relu(node: NodeView) -> Value:
    """x, or alpha x below 0."""
    return _quantized(node, node.emit(F.leaky_relu, _real(node, 0), node.number("alpha", 0.01)), 3)


@operator("QLinearSoftmax", domain=DOMAIN, carried=True)
def softmax(node: NodeView) -> Value:
    """Softmax along one axis."""
    x = _real(node, 0)
    axis = node.axis(x, node.integer("axis", -1))
    if node.integer("opset", 13) < 13 and axis != node.rank(x) - 1:
        raise Unconvertible("softmax over several axes is not supported")
    return _quantized(node, node.emit(F.softmax, x, axis), 3)


@operator("QLinearGlobalAveragePool", domain=DOMAIN, carried=True)
def global_average_pool(node: NodeView) -> Value:
    """Mean over all spatial axes, which stay with length 1."""
    x = _real(node, 0)
    last = bool(node.integer("channels_last", 0))
    axes = tuple(range(1, node.rank(x) - 1) if last else range(2, node.rank(x)))
    return _quantized(node, node.emit(torch.mean, x, axes, True), 3)


@operator("QLinearAveragePool", domain=DOMAIN, carried=True)
def average_pool(node: NodeView) -> Value:
    """Mean of each window."""
    if node.integer("channels_last", 0):
        raise Unconvertible("channels_last is not supported")
    return _quantized(node, pool_average(node, _real(node, 0)), 3)


@operator("QLinearConcat", domain=DOMAIN, carried=True)
def concat(node: NodeView) -> Value:
    """Side by side along one axis; scale and zero point of the result come first."""
    parts = [_real(node, i) for i in range(2, len(node.inputs), 3)]
    axis = node.axis(parts[0], node.integer("axis", 0))
    return _quantized(node, node.emit(torch.cat, parts, axis), 0)


@operator("QGemm", domain=DOMAIN, carried=True)
def gemm(node: NodeView) -> Value:
    """alpha A B + C; floats where no scale of the result is given."""
    a, b = _real(node, 0), _real(node, 3, axis=0 if node.integer("transB", 0) else 1)
    a = node.emit(torch.t, a) if node.integer("transA", 0) else a
    weight = b if node.integer("transB", 0) else node.emit(torch.t, b)
    alpha = node.number("alpha", 1.0)
    bias = None
    if node.optional(6) is not None:
        step = node.emit(torch.mul, node.emit(torch.mul, node.tensor(1), node.tensor(4)), alpha)
        bias = node.emit(dequantized, node.tensor(6), step, None, torch.float32)
    weight = weight if alpha == 1.0 else node.emit(torch.mul, weight, alpha)
    result = node.emit(F.linear, a, weight, bias)
    return result if node.optional(7) is None else _quantized(node, result, 7)


def _real(node: NodeView, position: int, axis: int | None = None) -> Any:
    """The operand at `position`, dequantized by the scale and zero point that follow it."""
    x = node.tensor(position)
    step = [None if node.optional(position + i) is None else node.tensor(position + i) for i in (1, 2)]
    if axis is not None:
        step = [None if s is None else _along(node, s, axis) for s in step]
    return node.emit(dequantized, x, *step, torch.float32)


def _along(node: NodeView, value: Any, axis: int) -> Any:
    if node.rank(value) == 0 or node.shape(value) == [1]:
        return value
    return node.emit(torch.reshape, value, (-1, 1) if axis == 0 else (1, -1))


def _quantized(node: NodeView, value: Any, position: int) -> Value:
    """Quantized by the scale at `position` and the zero point that may follow it."""
    zero = node.optional(position + 1)
    dtype = torch.uint8 if zero is None else integer_type(node, zero)
    point = None if zero is None else node.as_tensor(zero)
    return node.carry(node.emit(quantized, value, node.tensor(position), point, *RANGES[dtype]), dtype)
