"""Where a network that has lost its batch normalization once had it.

Both of torch's exporters, and most converters, fold a BatchNormalization into the convolution or Gemm before it. What
is left is a bias in front of an activation. The graph alone does not tell such a bias from one that was trained without
batch normalization (LeNet), so what is found here looks folded, and may never have been: see `normalized`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from onnx import ModelProto, NodeProto

from edgekd.onnx_file import attribute
from edgekd.teachers.wiring import Floats, Wiring

_MAKERS = ("Conv", "ConvTranspose", "Gemm")
_ACTIVATIONS = (
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "Celu", "ThresholdedRelu", "Tanh", "Softplus", "Softsign"),
    *("HardSwish", "Gelu", "Mish", "Swish", "FastGelu", "QuickGelu"),
    "Erf",  # how Gelu begins where the file spells it out
)
_GATES = ("Sigmoid", "HardSigmoid")
_PASSED = ("Identity", "Cast", "Dropout", "Transpose", "MaxPool", "AveragePool", "QuantizeLinear", "DequantizeLinear")
_AFFINE = ("Add", "Sub", "Mul", "Div")
_ADDED: dict[str, Callable[[Floats, Floats], Floats]] = {
    **{"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv}
}
"""What arithmetic makes of a bias before it."""
_POOLS = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")


def folded_points(model: ModelProto) -> tuple[str, ...]:
    """Names of the tensors that look like the output of a batch normalization folded into the layer before it.

    These are outputs of a Conv or ConvTranspose, or, in a network without any, of a Gemm, with a bias (its own, or one
    added behind it) that feed an activation, a residual Add, a squeeze-and-excite scaling, or, as a linear bottleneck
    does, the next convolution. Left out are the layers inside a squeeze-and-excite gate, which never have batch
    normalization, and the dense layers at the end of a convolutional network, which rarely have: there the means of the
    units are what tells classes apart. A file with a BatchNormalization right behind such a layer folded nothing, and
    has no points.

    Args:
        model: a sound graph, its nodes in topological order.

    Returns:
        Tensors in graph order: `[N, C, ...]`, but where the bias is added behind a transposition; see `channel_axes`.
    """
    wiring = Wiring(model)
    layers = [node for node in model.graph.node if node.op_type in _MAKERS]
    if any(taker.op_type == "BatchNormalization" for node in layers for taker in wiring.takers.get(node.output[0], ())):
        return ()
    inside_gates = _inside_gates(model, wiring)
    found = [(node, _point(node, wiring)) for node in layers if node.output[0] not in inside_gates]
    points = [(node, point) for node, point in found if point and _looks_normalized(point, wiring)]
    convolutional = [point for node, point in points if node.op_type != "Gemm"]
    return tuple(convolutional or [point for _, point in points])


def channel_axes(model: ModelProto, points: Sequence[str]) -> list[int]:
    """The axis of each of the `folded_points` that holds its channels: 1, or 3 behind a transposition to NHWC."""
    wiring = Wiring(model)
    return [_channel_axis(wiring, point) for point in points]


def biases(model: ModelProto, points: Sequence[str]) -> list[Floats]:
    """What is added to the sums behind each of the `folded_points`, `[channels]` or `[1]`, where the file tells it."""
    wiring = Wiring(model)
    return [_bias(wiring, point) for point in points]


def _channel_axis(wiring: Wiring, point: str) -> int:
    axis = 1
    for node in _behind(wiring, point)[1]:
        axis = _permutation(node).index(axis) if node.op_type == "Transpose" else axis
    return axis


def _bias(wiring: Wiring, point: str) -> Floats:
    layer, behind = _behind(wiring, point)
    own = wiring.constant(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None
    total = np.zeros(1) if own is None else own
    for node in behind:
        if node.op_type not in _AFFINE:
            continue
        fixed_first = wiring.is_fixed(node.input[0])
        value = wiring.constant(node.input[0 if fixed_first else 1])
        if value is not None:
            total = _ADDED[node.op_type](total, value) * (-1 if fixed_first and node.op_type == "Sub" else 1)
    return total


def _behind(wiring: Wiring, point: str) -> tuple[NodeProto, list[NodeProto]]:
    """The layer that makes a point, and the nodes between the two, in graph order."""
    nodes: list[NodeProto] = []
    while (node := wiring.makers[point]).op_type not in _MAKERS:
        nodes.insert(0, node)
        point = next(source for source in node.input if not wiring.is_fixed(source))
    return node, nodes


def _permutation(node: NodeProto) -> tuple[int, ...]:
    return tuple(attribute(node, "perm", ()))  # type: ignore[arg-type]


def _point(layer: NodeProto, wiring: Wiring) -> str:
    """The output of a layer once its bias is added, "" when it has none."""
    name, biased = layer.output[0], len(layer.input) > 2 and bool(layer.input[2])
    while len(takers := wiring.takers.get(name, [])) == 1 and takers[0].op_type in (*_AFFINE, "Transpose"):
        if takers[0].op_type == "Transpose":  # as converters from NHWC leave it: the bias may come behind
            if biased or not _permutation(takers[0]):
                break
            name = takers[0].output[0]
            continue
        operand = _fixed_operand(takers[0], name, wiring)
        if operand is None or operand <= 1:  # one value for all channels belongs to an activation
            break
        biased = biased or takers[0].op_type in ("Add", "Sub")
        name = takers[0].output[0]
    return name if biased else ""


def _fixed_operand(node: NodeProto, name: str, wiring: Wiring) -> int | None:
    """How many values the constant operand of an arithmetic node has, None when it has none."""
    others = [source for source in node.input if source != name]
    value = wiring.constant(others[0]) if len(others) == 1 else None
    return None if value is None else value.size


def _looks_normalized(point: str, wiring: Wiring) -> bool:
    taken = list(_takers(point, wiring))
    same = {point, *(name for name, _ in taken)}
    return any(_calls_for_it(taker, same, wiring) for _, taker in taken)


def _takers(point: str, wiring: Wiring) -> Iterator[tuple[str, NodeProto]]:
    """The nodes that take a tensor, behind those that only move or scale its values; each with what it takes."""
    waiting, seen = [point], {point}
    while waiting:
        current = waiting.pop()
        for node in wiring.takers.get(current, ()):
            scaled = node.op_type in _AFFINE and _fixed_operand(node, current, wiring) == 1
            if not (node.op_type in _PASSED or scaled):
                yield current, node
            elif node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])


def _calls_for_it(taker: NodeProto, same: set[str], wiring: Wiring) -> bool:
    """Whether a node is one that follows batch normalization; `same` are the names its values go by."""
    if taker.op_type in (*_ACTIVATIONS, "Conv"):
        return True
    if taker.op_type == "Pow":  # the tanh form of Gelu begins with a cube, a norm with a square
        exponent = wiring.constant(taker.input[1])
        return exponent is not None and exponent.tolist() == [3]
    if taker.op_type in _GATES:  # Silu and Hardswish: x times a gate of x
        return any(not same.isdisjoint(node.input) for _, node in _takers(taker.output[0], wiring))
    computed = [source for source in taker.input if source and not wiring.is_fixed(source)]
    if taker.op_type == "Mul" and len(computed) > 1:  # squeeze-and-excite scales what it pooled
        return any(node.op_type in _POOLS for name in same for node in wiring.takers.get(name, ()))
    return taker.op_type in ("Add", "Sum") and len(computed) > 1


def _inside_gates(model: ModelProto, wiring: Wiring) -> set[str]:
    """Tensors that follow from globally pooled ones alone and scale or shift others: squeeze-and-excite."""
    pooled: set[str] = set()
    for node in model.graph.node:
        computed = [source for source in node.input if source and not wiring.is_fixed(source)]
        if node.op_type in (*_POOLS, "Shape") or (computed and pooled.issuperset(computed)):
            pooled.update(node.output)
    inside: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type != "Shape" and (inside.intersection(node.output) or not pooled.issuperset(node.output)):
            inside.update(pooled.intersection(node.input))
    return inside
