"""Batch, instance, group, layer, RMS, local-response, mean-variance and p-norm normalization."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import math
import operator as python

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Unconvertible, Value


@operator("BatchNormalization")
def batch_normalization(node: NodeView) -> Value:
    """Normalization by the stored statistics, whatever `training_mode` says: an imported graph does not train."""
    x, scale, bias, mean, variance = (node.tensor(i) for i in range(5))
    return node.emit(F.batch_norm, x, mean, variance, scale, bias, False, 0.0, node.number("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_normalization(node: NodeView) -> Value:
    """Normalization of each channel of each sample."""
    x, scale, bias = (node.tensor(i) for i in range(3))
    return node.emit(F.instance_norm, x, None, None, scale, bias, True, 0.0, node.number("epsilon", 1e-5))


@operator("GroupNormalization", since=18, until=20)
def group_normalization_per_group(node: NodeView) -> Value:
    """Opset 18 to 20: one scale and bias per group."""
    groups, channels = node.integer("num_groups", 1), node.shape(node.value(0))[1]
    if not isinstance(channels, int) or channels % groups:
        raise Unconvertible("the channels do not divide into the groups")
    scale = node.emit(torch.repeat_interleave, node.tensor(1), channels // groups)
    bias = node.emit(torch.repeat_interleave, node.tensor(2), channels // groups)
    return node.emit(F.group_norm, node.tensor(0), groups, scale, bias, node.number("epsilon", 1e-5))


@operator("GroupNormalization", since=21)
def group_normalization(node: NodeView) -> Value:
    """Opset 21 on: one scale and bias per channel."""
    x, scale, bias = (node.tensor(i) for i in range(3))
    return node.emit(F.group_norm, x, node.integer("num_groups", 1), scale, bias, node.number("epsilon", 1e-5))


@operator("LayerNormalization", since=17)
def layer_normalization(node: NodeView) -> Value | tuple[Value | None, ...]:
    """Normalization over the axes from `axis` on; also the mean and inverse deviation if asked."""
    x, scale, bias = node.tensor(0), node.tensor(1), node.optional(2)
    axis, epsilon = node.axis(x, node.integer("axis", -1)), node.number("epsilon", 1e-5)
    if any(node.output_names[1:]):
        both = node.emit(moments, x, axis, epsilon)
        mean, inverse = both if isinstance(both, tuple) else (node.emit(python.getitem, both, i) for i in (0, 1))
        scaled = node.emit(normalized, x, mean, inverse, scale, bias)
        return scaled, mean, inverse
    shape = node.shape(x)[axis:]
    if all(isinstance(n, int) for n in shape) and node.shape(scale) == shape:
        fitting = bias if bias is None or node.shape(bias) == shape else None
        if fitting is bias:
            return node.emit(F.layer_norm, x, tuple(shape), scale, bias, epsilon)
    plain = node.emit(F.layer_norm, x, tuple(shape), None, None, epsilon)
    scaled = node.emit(torch.mul, plain, scale)
    return scaled if bias is None else node.emit(torch.add, scaled, bias)


def moments(x: Tensor, axis: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation over the axes from `axis` on, which stay with length 1."""
    axes = tuple(range(axis, x.ndim))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return mean, torch.rsqrt(variance + epsilon)


def normalized(x: Tensor, mean: Tensor, inverse: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """(x - mean) * inverse * scale + bias."""
    scaled = (x - mean) * inverse * scale
    return scaled if bias is None else scaled + bias


@operator("RMSNormalization", since=23)
def rms_normalization(node: NodeView) -> Value:
    """x / sqrt(mean(x²) + epsilon) * scale over the axes from `axis` on."""
    x = node.tensor(0)
    axes = tuple(range(node.axis(x, node.integer("axis", -1)), node.rank(x)))
    return node.emit(rms_normalized, x, node.tensor(1), axes, node.number("epsilon", 1e-5))


def rms_normalized(x: Tensor, scale: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    """x / sqrt(mean(x²) + epsilon) * scale, the mean in float32."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    scaled = wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)
    return scaled.to(x.dtype) * scale


@operator("LRN")
def local_response(node: NodeView) -> Value:
    """Each value over the powered sum of squares of its neighbouring channels."""
    count = node.integer("size", 1)
    args = (count, node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0))
    if count % 2:
        return node.emit(F.local_response_norm, node.tensor(0), *args)
    return node.emit(even_local_response, node.tensor(0), *args)


def even_local_response(x: Tensor, count: int, alpha: float, beta: float, bias: float) -> Tensor:
    """LRN over an even number of channels: ONNX looks further to the right, torch to the left."""
    squares = F.pad(x.square().flatten(2).unsqueeze(1), (0, 0, (count - 1) // 2, count // 2))
    mean = F.avg_pool2d(squares, (count, 1), stride=1).squeeze(1).reshape(x.shape)
    return x / (bias + alpha * mean) ** beta


@operator("MeanVarianceNormalization")
def mean_variance(node: NodeView) -> Value:
    """(x - mean) / deviation over `axes`."""
    axes = tuple(node.integers("axes") or (0, 2, 3))
    return node.emit(standardised, node.tensor(0), axes)


def standardised(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """(x - mean) / (deviation + 1e-9), as the operator's definition has it."""
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)


@operator("LpNormalization")
def lp_normalization(node: NodeView) -> Value:
    """x over its p-norm along one axis; 0 where the norm is 0."""
    p, axis = node.integer("p", 2), node.integer("axis", -1)
    return node.emit(unit, node.tensor(0), p, axis)


def unit(x: Tensor, p: int, axis: int) -> Tensor:
    """x over its p-norm; a vector of zeros stays zero."""
    norm = torch.linalg.vector_norm(x, float(p), axis, keepdim=True)
    return x / torch.where(norm == 0, math.inf, norm)
