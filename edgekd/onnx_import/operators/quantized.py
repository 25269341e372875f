"""Quantized operators, computed on floats that hold integers, so that a gradient can pass straight through.

A tensor that QuantizeLinear makes is carried as floats until something needs its integers (see `GraphBuilder.carry`).
The gradient of the rounding is taken as one, and as zero where the value saturates (straight-through,
Bengio et al. 2013).
"""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import operator as python

import torch
from torch import Tensor, fx

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.operators.convolution import convolve
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.tensors import dtype_of
from edgekd.onnx_import.values import Unconvertible, Value

RANGES = {t: (torch.iinfo(t).min, torch.iinfo(t).max) for t in (torch.int8, torch.uint8, torch.int16)}
RANGES |= {torch.uint16: (0, 65535), torch.int32: (-(2**31), 2**31 - 1)}


@operator("QuantizeLinear", since=10, carried=True)
def quantize_linear(node: NodeView) -> Value:
    """round(x / scale) + zero point, saturated."""
    dtype = torch.uint8
    if node.optional(2) is not None:
        dtype = integer_type(node, node.value(2))
    elif node.integer("output_dtype", 0):
        dtype = dtype_of(node.integer("output_dtype", 0))
    if dtype not in RANGES:
        raise Unconvertible(f"quantizing to {dtype} is not supported")
    x = node.tensor(0)
    scale, zero = _spread(node, x, 1), _spread(node, x, 2)
    return node.carry(node.emit(quantized, x, scale, zero, *RANGES[dtype]), dtype)


@operator("DequantizeLinear", since=10, carried=True)
def dequantize_linear(node: NodeView) -> Value:
    """(x - zero point) * scale; a constant folds to the float weights it stands for."""
    x = node.tensor(0)
    scale, zero = _spread(node, x, 1), _spread(node, x, 2)
    kind = node.dtype(node.value(1))
    if node.integer("output_dtype", 0):
        kind = dtype_of(node.integer("output_dtype", 0))
    return node.emit(dequantized, x, scale, zero, kind)


@operator("DynamicQuantizeLinear", since=11, carried=True)
def dynamic_quantize_linear(node: NodeView) -> tuple[Value, ...]:
    """Quantization to uint8 by the range of the tensor itself."""
    results = node.emit(dynamically_quantized, node.tensor(0))
    y, scale, zero = (node.emit(python.getitem, results, i) for i in range(3))
    return node.carry(y, torch.uint8), scale, node.carry(zero, torch.uint8)


@operator("QLinearConv", since=10, carried=True)
def qlinear_conv(node: NodeView) -> Value:
    """Convolution of quantized tensors, quantized again."""
    x = node.emit(dequantized, node.tensor(0), node.tensor(1), node.tensor(2), torch.float32)
    weight = node.tensor(3)
    scale, zero = (_per_channel(node, position, weight) for position in (4, 5))
    weight = node.emit(dequantized, weight, scale, zero, torch.float32)
    bias: Value | None = None
    if node.optional(8) is not None:
        step = node.emit(torch.mul, node.tensor(1), node.tensor(4))
        bias = node.emit(dequantized, node.tensor(8), step, None, torch.float32)
    result = convolve(node, x, weight, bias)
    dtype = integer_type(node, node.value(7))
    return node.carry(node.emit(quantized, result, node.tensor(6), node.tensor(7), *RANGES[dtype]), dtype)


@operator("QLinearMatMul", since=10, carried=True)
def qlinear_matmul(node: NodeView) -> Value:
    """Matrix product of quantized tensors, quantized again."""
    kind = node.dtype(node.value(1)) or torch.float32
    wide = torch.float32 if kind in (torch.float16, torch.bfloat16) else kind
    a = node.emit(dequantized, node.tensor(0), *_rows(node, 1, 2, -1), wide)
    b = node.emit(dequantized, node.tensor(3), *_rows(node, 4, 5, 0), wide)
    dtype = integer_type(node, node.value(7))
    product = node.emit(torch.matmul, a, b)
    return node.carry(node.emit(quantized, product, node.tensor(6), node.tensor(7), *RANGES[dtype]), dtype)


@operator("ConvInteger", since=10, carried=True)
def conv_integer(node: NodeView) -> Value:
    """Convolution of integers less their zero points; int32."""
    weight = node.tensor(1)
    x = node.emit(shifted, node.tensor(0), None if node.optional(2) is None else node.tensor(2))
    zero = None if node.optional(3) is None else _per_channel(node, 3, weight)
    return node.carry(convolve(node, x, node.emit(shifted, weight, zero), None), torch.int32)


@operator("MatMulInteger", since=10, carried=True)
def matmul_integer(node: NodeView) -> Value:
    """Matrix product of integers less their zero points; int32."""
    a_zero = None if node.optional(2) is None else node.tensor(2)
    if a_zero is not None and node.rank(a_zero) == 1:
        a_zero = node.emit(torch.reshape, a_zero, (-1, 1))
    a = node.emit(shifted, node.tensor(0), a_zero)
    b = node.emit(shifted, node.tensor(1), None if node.optional(3) is None else node.tensor(3))
    return node.carry(node.emit(torch.matmul, a, b), torch.int32)


def quantized(x: Tensor, scale: Tensor, zero: Tensor | None, low: int, high: int) -> Tensor:
    """round(x / scale) + zero point, saturated, as floats; the gradient passes straight through the rounding."""
    scaled = x / scale.to(x.dtype)
    rounded = scaled + (scaled.round() - scaled).detach()
    return torch.clamp(rounded if zero is None else rounded + zero.to(x.dtype), low, high)


def dequantized(x: Tensor, scale: Tensor, zero: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(x - zero point) * scale."""
    return shifted(x, zero).to(dtype) * scale.to(dtype)


def shifted(x: Tensor, zero: Tensor | None) -> Tensor:
    """x less its zero point, as floats."""
    floats = x if x.is_floating_point() else x.float()
    return floats if zero is None else floats - zero.to(floats.dtype)


def dynamically_quantized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, scale and zero point of uint8 that span the tensor's range and 0; no gradient to the latter two."""
    low, high = x.detach().min().clamp(max=0), x.detach().max().clamp(min=0)
    scale = (high - low) / 255
    zero = torch.clamp(torch.round(-low / scale), 0, 255)
    return quantized(x, scale, zero, 0, 255), scale, zero


def integer_type(node: NodeView, value: Value) -> torch.dtype:
    """The type a zero point quantizes to."""
    dtype = node.carried_type(value) or node.dtype(value)
    if dtype not in RANGES:
        raise Unconvertible(f"quantizing to {dtype} is not supported")
    return dtype


def _spread(node: NodeView, x: Value, position: int) -> Tensor | fx.Node | None:
    """Scale or zero point, shaped to broadcast over `axis`, or over blocks along it."""
    if node.optional(position) is None:
        return None
    value = node.tensor(position)
    rank, own = node.rank(x), node.rank(value)
    if own == 0 or (own == 1 and node.shape(value) == [1]):
        return node.emit(torch.reshape, value, ())
    axis = node.axis(x, node.integer("axis", 1))
    block = node.integer("block_size", 0)
    if block and own == rank:
        return node.emit(blocks, value, x, block, axis)
    return node.emit(torch.reshape, value, tuple(-1 if a == axis else 1 for a in range(rank)))


def blocks(value: Tensor, x: Tensor, block: int, axis: int) -> Tensor:
    """One value per block along an axis, repeated over the block."""
    return value.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])


def _per_channel(node: NodeView, position: int, weight: Value) -> Tensor | fx.Node:
    shape = (-1, *[1] * (node.rank(weight) - 1))
    return node.emit(torch.reshape, node.tensor(position), shape)


def _rows(node: NodeView, scale: int, zero: int, axis: int) -> tuple[Value, Value]:
    """Scale and zero point of a matrix operand: of the whole, or one per row of A or column of B."""
    values = []
    for position in (scale, zero):
        value = node.tensor(position)
        if node.rank(value) == 1 and node.shape(value) != [1]:
            value = node.emit(torch.unsqueeze, value, axis)
        values.append(node.emit(torch.reshape, value, ()) if node.shape(value) == [1] else value)
    return values[0], values[1]
