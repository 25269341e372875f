"""Cross-layer equalization: move scale from a channel of one layer into the next, so that all channels fill one range.

What the network computes stays the same (Nagel et al., "Data-Free Quantization through Weight Equalization and Bias
Correction", ICCV 2019, arXiv:1906.04721, section 4.1): between two layers lie only operators f with f(s x) = s f(x) for
s > 0, channel by channel. ReLU6 and hard-swish are not such: nothing is moved across them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from edgekd import onnx_file

Array = NDArray[np.float32]
_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten", "Identity"}
)
_ROUNDS, _SETTLED = 40, 1e-3


@dataclass(frozen=True)
class Pair:
    """Two layers between which scale can move.

    Attributes:
        first, second: the nodes; `first` has an output channel for every input channel of `second`.
        between: the tensor that `second` reads.
    """

    first: NodeProto
    second: NodeProto
    between: str


def pairs(model: ModelProto) -> list[Pair]:
    """All pairs of a prepared model, in the graph's order."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    leaving = {value.name for value in model.graph.output}
    fixed = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    own = {name for name in fixed if len(readers.get(name, [])) == 1}
    found = []
    for first in model.graph.node:
        if not _is_layer(first, own):
            continue
        second, between = _next_layer(first, readers, leaving)
        if second is not None and _is_layer(second, own) and _channels(first, fixed) == _entering(second, fixed):
            found.append(Pair(first, second, between))
    return found


def _is_layer(node: NodeProto, own: set[str]) -> bool:
    """Whether its weights, and its bias if it has one, are constants that no other node reads."""
    return node.op_type in ("Conv", "Gemm") and all(name in own for name in node.input[1:] if name)


def _next_layer(
    node: NodeProto, readers: Mapping[str, list[NodeProto]], leaving: set[str]
) -> tuple[NodeProto | None, str]:
    name = node.output[0]
    while name not in leaving and len(readers.get(name, [])) == 1:
        (reader,) = readers[name]
        if reader.op_type not in _HOMOGENEOUS:
            return (reader, name) if reader.input[0] == name else (None, name)
        name = reader.output[0]
    return None, name


def _transposed(node: NodeProto) -> bool:
    return node.op_type == "Gemm" and not onnx_file.attribute(node, "transB", 0)


def _channels(node: NodeProto, fixed: Mapping[str, list[int]]) -> int:
    return int(fixed[node.input[1]][1 if _transposed(node) else 0])


def _entering(node: NodeProto, fixed: Mapping[str, list[int]]) -> int:
    dims = fixed[node.input[1]]
    if node.op_type == "Gemm":
        return int(dims[0 if _transposed(node) else 1])
    return int(dims[1]) * _groups(node)


def _groups(node: NodeProto) -> int:
    groups = onnx_file.attribute(node, "group", 1) if node.op_type == "Conv" else 1
    assert isinstance(groups, int)
    return groups


def equalized(model: ModelProto, found: list[Pair], extremes: Mapping[str, Array] | None = None) -> ModelProto:
    """The model with equal ranges across the channels between the layers of each pair.

    Without `extremes` the ranges are those of the weights on either side, and come to be the same (eq. 11 of the
    paper): for weights that share one scale. With them it is the activation between whose channels come to be alike:
    for weights with a scale per channel, which the first layer's then follow, and of a depthwise second layer as well.
    A dense second layer has to meet the activation half-way.

    Args:
        model: prepared; unchanged.
        found: its pairs.
        extremes: by name of a pair's `between`, the largest magnitude of every channel, `[C]`.
    """
    whole = ModelProto()
    whole.CopyFrom(model)
    weights = {t.name: numpy_helper.to_array(t).astype(np.float32) for t in whole.graph.initializer}
    for _ in range(_ROUNDS if extremes is None else 1):
        if max((_move(pair, weights, extremes) for pair in found), default=0.0) < _SETTLED:
            break
    touched = {name for pair in found for name in (*pair.first.input[1:], pair.second.input[1])}
    for tensor in whole.graph.initializer:
        if tensor.name in touched:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return whole


def _move(pair: Pair, weights: dict[str, Array], extremes: Mapping[str, Array] | None) -> float:
    """Divide the first layer's channels by what the second one's are multiplied with; the largest step, as a log."""
    first, second = weights[pair.first.input[1]], weights[pair.second.input[1]]
    scale = _scale(pair, first, second, extremes)
    weights[pair.first.input[1]] = first / (scale if _transposed(pair.first) else _along(scale, first.ndim, 0))
    for name in pair.first.input[2:]:
        weights[name] = weights[name] / scale
    weights[pair.second.input[1]] = _by_entering(pair.second, second) * _grouped(pair.second, scale, second.ndim)
    weights[pair.second.input[1]] = weights[pair.second.input[1]].reshape(second.shape)
    return float(np.abs(np.log(scale)).max(initial=0.0))


def _scale(pair: Pair, first: Array, second: Array, extremes: Mapping[str, Array] | None) -> Array:
    """What each channel of the first layer is divided by, `[C]`."""
    axes = 0 if _transposed(pair.first) else tuple(range(1, first.ndim))
    before = np.abs(first).max(axis=axes) if extremes is None else extremes[pair.between]
    split = _by_entering(pair.second, second)
    after = np.abs(split).max(axis=1 if _transposed(pair.second) else (1, *range(3, split.ndim))).ravel()
    scale = np.ones(len(before))
    usable = (before > 0) & (after > 0)
    if extremes is not None and _groups(pair.second) == len(before):
        scale[usable] = before[usable] / np.exp(np.log(before[usable]).mean())
    else:
        scale[usable] = np.sqrt(before[usable] / after[usable])
    return scale.astype(np.float32)


def _by_entering(node: NodeProto, weight: Array) -> Array:
    """A weight as `[groups, out, in, ...]`, or `[in, out]` of a Gemm that is not transposed."""
    if _transposed(node):
        return weight
    groups = _groups(node)
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])


def _grouped(node: NodeProto, scale: Array, axes: int) -> Array:
    if _transposed(node):
        return scale[:, None]
    return _along(scale.reshape(_groups(node), 1, -1), axes + 1, None)


def _along(scale: Array, axes: int, axis: int | None) -> Array:
    """Reshaped so that it multiplies an array of so many axes."""
    if axis is None:
        return scale.reshape(*scale.shape, *[1] * (axes - scale.ndim))
    return scale.reshape(*[1] * axis, -1, *[1] * (axes - axis - 1))
