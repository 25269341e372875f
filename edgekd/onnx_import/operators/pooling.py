"""MaxPool, AveragePool, LpPool and their global forms."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import math
import operator as python
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.operators.convolution import CONVOLUTIONS, geometry, pads_of, spatial_rank, torch_pads
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Element, Unconvertible, Value

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@operator("MaxPool", moves=True)
def max_pool(node: NodeView) -> Value | tuple[Value, ...]:
    """Largest value of each window, and where it was if asked."""
    x = node.tensor(0)
    kernel, stride, dilation, begins, ends = _window(node, x)
    ceil = bool(node.integer("ceil_mode", 0))
    dtype = node.dtype(x)
    integral = dtype in (torch.int8, torch.uint8)
    x = node.emit(torch.Tensor.to, x, torch.float32) if integral else x
    padding: tuple[Element, ...] = tuple(begins)
    if begins != ends or not all(isinstance(p, int) and p <= k // 2 for p, k in zip(begins, kernel, strict=True)):
        x, padding = node.emit(F.pad, x, torch_pads(begins, ends), "constant", -math.inf), (0,) * len(kernel)
    args = (x, tuple(kernel), tuple(stride), padding, tuple(dilation), ceil)
    if len(node.output_names) > 1 and node.output_names[1]:
        if padding != tuple(begins):
            raise Unconvertible("Indices with uneven padding are not supported")
        return _with_indices(node, args, len(kernel))
    pooled = node.emit(_MAX[len(kernel)], *args)
    return node.emit(torch.Tensor.to, pooled, dtype) if integral else pooled


def _with_indices(node: NodeView, args: tuple[Any, ...], spatial: int) -> tuple[Value, ...]:
    both = node.emit(_MAX[spatial], *args, return_indices=True)
    order = node.integer("storage_order", 0)
    indices = node.emit(flat_indices, node.emit(python.getitem, both, 1), args[0], order)
    return node.emit(python.getitem, both, 0), indices


def flat_indices(indices: Tensor, x: Tensor, column_major: int) -> Tensor:
    """torch counts within one channel's plane, ONNX within the whole tensor (and maybe columns first)."""
    spatial = x.shape[2:]
    if column_major:
        steps = [math.prod(spatial[:i]) for i in range(len(spatial))]
        coordinates = torch.unravel_index(indices, spatial)
        indices = sum((c * s for c, s in zip(coordinates, steps, strict=True)), torch.zeros_like(indices))
    plane = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(spatial))
    return indices + plane * math.prod(spatial)


@operator("AveragePool")
def average_pool(node: NodeView) -> Value:
    """Mean of each window."""
    return pool_average(node, node.tensor(0))


def pool_average(node: NodeView, x: Tensor | fx.Node) -> Value:
    """Mean of each window of a given tensor (also for the quantized pooling)."""
    kernel, stride, dilation, begins, ends = _window(node, x)
    ceil, counted = bool(node.integer("ceil_mode", 0)), bool(node.integer("count_include_pad", 0))
    spatial = len(kernel)
    plain = begins == ends and all(isinstance(p, int) and p <= k // 2 for p, k in zip(begins, kernel, strict=True))
    if plain and set(dilation) == {1}:
        padding = tuple(begins)
        return node.emit(_AVERAGE[spatial], x, tuple(kernel), tuple(stride), padding, ceil, counted)
    pads = torch_pads(begins, ends)
    args = (tuple(kernel), tuple(stride), tuple(dilation), ceil, counted)
    return node.emit(windowed_mean, x, pads, *args)


def windowed_mean(
    x: Tensor,
    pads: list[int],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil: bool,
    counted: bool,
) -> Tensor:
    """Average pooling with uneven pads or dilation: window sums over window counts."""
    ones = torch.ones_like(x[:1, :1])
    ones = F.pad(ones, pads, value=1.0 if counted else 0.0)
    overhang = _overhang(list(ones.shape[2:]), kernel, stride, dilation) if ceil else [0] * 2 * len(kernel)
    weight = torch.ones((1, 1, *kernel), dtype=x.dtype, device=x.device)
    padded = F.pad(F.pad(x, pads), overhang)
    planes = padded.reshape(-1, 1, *padded.shape[2:])
    convolution = CONVOLUTIONS[len(kernel)]
    sums = convolution(planes, weight, None, stride, 0, dilation)
    counts = convolution(F.pad(ones, overhang), weight, None, stride, 0, dilation)
    return (sums / counts).reshape(*x.shape[:2], *sums.shape[2:])


def _overhang(
    lengths: list[int], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> list[int]:
    """Extra end pads so that the last window of ceil_mode fits; it must start inside the padded input."""
    pads = []
    for n, k, s, d in zip(lengths, kernel, stride, dilation, strict=True):
        reach = (k - 1) * d + 1
        windows = -(-(n - reach) // s)
        windows -= 1 if windows * s >= n else 0
        pads.append(max(0, windows * s + reach - n))
    return [p for pad in reversed(pads) for p in (0, pad)]


@operator("LpPool")
def lp_pool(node: NodeView) -> Value:
    """The p-norm of each window."""
    x = node.tensor(0)
    kernel, stride, dilation, begins, ends = _window(node, x)
    p = float(node.integer("p", 2))
    powers = node.emit(torch.pow, node.emit(torch.abs, x), p)
    args = (tuple(kernel), tuple(stride), tuple(dilation), bool(node.integer("ceil_mode", 0)), True)
    mean = node.emit(windowed_mean, powers, torch_pads(begins, ends), *args)
    return node.emit(torch.pow, node.emit(torch.mul, mean, float(math.prod(kernel))), 1 / p)


def _window(
    node: NodeView, x: Tensor | fx.Node
) -> tuple[list[int], list[int], list[int], list[Element], list[Element]]:
    """Kernel, strides, dilations, begin and end pads."""
    spatial = spatial_rank(node, x)
    kernel = node.integers("kernel_shape") or []
    if len(kernel) != spatial:
        raise Unconvertible("kernel_shape does not fit the rank of the input")
    stride, dilation = geometry(node, spatial)
    return kernel, stride, dilation, *pads_of(node, x, kernel, stride, dilation)


@operator("GlobalAveragePool")
def global_average_pool(node: NodeView) -> Value:
    """Mean over all spatial axes, which stay with length 1."""
    x = node.tensor(0)
    return node.emit(torch.mean, x, tuple(range(2, node.rank(x))), True)


@operator("GlobalMaxPool")
def global_max_pool(node: NodeView) -> Value:
    """Maximum over all spatial axes, which stay with length 1."""
    x = node.tensor(0)
    return node.emit(torch.amax, x, tuple(range(2, node.rank(x))), True)


@operator("GlobalLpPool")
def global_lp_pool(node: NodeView) -> Value:
    """The p-norm over all spatial axes, which stay with length 1."""
    x = node.tensor(0)
    p = float(node.integer("p", 2))
    return node.emit(torch.linalg.vector_norm, x, p, tuple(range(2, node.rank(x))), True)
