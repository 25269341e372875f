"""The layers of a teacher's graph, as they are computed one after another, and which of their channels are the same.

A layer is a convolution or a dense layer with stored weights, together with what is done to its sums channel by channel
right behind it: a bias, batch normalization. Channels are the same where the graph adds or multiplies them, as a
shortcut does: who drops one has to drop it everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor

from edgekd.onnx_file import attribute, constants, real_inputs
from edgekd.teachers.wiring import Wiring

_KEPT = (
    *("Relu", "LeakyRelu", "Clip", "Elu", "Selu", "Celu", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish", "Gelu"),
    *("Mish", "Softplus", "Softsign", "Identity", "Dropout", "Cast", "BatchNormalization", "Pad", "MaxPool"),
    *("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"),
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze"),
)
"""What leaves channels as they are; pixels behind them may become numbers of their own, as before a dense layer."""
_JOINED = ("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min")
_BEHIND = ("BatchNormalization", "Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class Layer:
    """One layer of a graph.

    Attributes:
        kernel: the sides of its filters; none of a dense layer.
        depthwise: whether each filter reads one channel, its own.
        channels: how many it answers.
        entry, answer: the tensors that it reads, and that it answers with all that is done to single channels.
        reads, group: which channels those are: equal numbers, the same channels; None: those of the image.
        matters: how much it makes of each channel that it reads: the square of its weights, summed.
    """

    kernel: tuple[int, ...]
    depthwise: bool
    channels: int
    entry: str
    answer: str
    reads: int | None
    group: int
    matters: Tensor


def layers(model: ModelProto, logits: str) -> tuple[Layer, ...]:
    """The layers that lead to a tensor, in graph order; none where it cannot be told which channels are which.

    Args:
        model: a sound graph, its nodes in topological order.
        logits: the tensor.
    """
    return _Reader(model, logits).read()


class _Reader:
    """One pass over a graph."""

    def __init__(self, model: ModelProto, logits: str) -> None:
        self.logits = logits
        self.nodes, self.wiring, self.fixed = model.graph.node, Wiring(model), constants(model)
        self.channels: dict[str, int | None] = {real_inputs(model)[0].name: None}
        self.sizes: list[int] = []
        self.same: list[int] = []
        """Of each group one it is the same as, itself in the end."""
        self.found: list[Layer] = []

    def read(self) -> tuple[Layer, ...]:
        needed = set(self.wiring.leading_to(self.logits))
        if not all(self._follow(node) for node in self.nodes if needed.intersection(node.output)):
            return ()
        return tuple(replace(one, reads=self._standing(one.reads), group=self._own(one.group)) for one in self.found)

    def _follow(self, node: NodeProto) -> bool:
        """Note which channels a node answers, if any; False if that cannot be told."""
        known = [name for name in node.input if name in self.channels]
        if not known or node.op_type == "Shape":
            return True
        kept = node.op_type in _KEPT and known == [node.input[0]]
        if layer := self._layer(node):
            self.found.append(layer)
            group: int | None = layer.group
        elif kept or (node.op_type in _JOINED and self._join([self.channels[name] for name in known])):
            group = self.channels[known[0]]
        else:
            return False
        self.channels[node.output[0]] = group
        return True

    def _layer(self, node: NodeProto) -> Layer | None:
        """What a node is as a layer; None if it is none, or one whose channels cannot be followed."""
        filters = self._filters(node)
        if filters is None or node.input[0] not in self.channels:
            return None
        entry, answer, scale = node.input[0], *self._behind(node)
        reads, count = self.channels[entry], len(filters)
        if scale.size not in (1, count):
            return None
        weights = filters * scale.reshape(-1, *[1] * (filters.ndim - 1))
        depthwise = attribute(node, "group", 1) != 1
        if depthwise and (reads is None or not attribute(node, "group") == count == self.sizes[reads]):
            return None
        squares = np.square(weights).reshape(count, filters.shape[1], -1).sum(axis=2)
        matters = squares[:, 0] if depthwise else squares.sum(axis=0)
        if reads is not None and matters.size % self.sizes[reads]:
            return None
        if reads is not None:
            matters = matters.reshape(self.sizes[reads], -1).sum(axis=1)
        group = reads if depthwise and reads is not None else self._new_group(count)
        return Layer(filters.shape[2:], depthwise, count, entry, answer, reads, group, torch.from_numpy(matters))

    def _filters(self, node: NodeProto) -> NDArray[np.float64] | None:
        """`[outputs, inputs, ...]` of a layer; None of other nodes, and of weights that are computed."""
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in self.fixed:
            return None
        stored = numpy_helper.to_array(self.fixed[node.input[1]]).astype(np.float64)
        dense = stored.ndim == 2 and node.op_type != "Conv" and not attribute(node, "transA", 0)
        if dense:
            return stored if attribute(node, "transB", 0) else stored.T
        return stored if node.op_type == "Conv" and stored.ndim == 4 else None

    def _behind(self, node: NodeProto) -> tuple[str, NDArray[np.float64]]:
        """The tensor behind all that is done to a layer's single channels, and by what they are multiplied there."""
        name, scale = node.output[0], np.ones(1)
        while name != self.logits and len(takers := self.wiring.takers.get(name, [])) == 1:
            taker = takers[0]
            others = [other for other in taker.input if other != name]
            turned = taker.op_type == "Div" and taker.input[0] != name
            if taker.op_type not in _BEHIND or turned or not all(map(self.wiring.is_fixed, others)):
                break
            if taker.op_type == "BatchNormalization":
                gamma, _, _, variance = (self.wiring.constant(other) for other in taker.input[1:5])
                if gamma is None or variance is None:
                    break
                epsilon = np.asarray(attribute(taker, "epsilon", 1e-5), np.float64)
                scale = scale * gamma / np.sqrt(variance + epsilon)
            name = taker.output[0]
        return name, scale

    def _new_group(self, size: int) -> int:
        self.sizes.append(size)
        self.same.append(len(self.same))
        return self.same[-1]

    def _join(self, groups: list[int | None]) -> bool:
        """Make channels that are added the same ones, unless they cannot be."""
        own = [self._own(group) for group in groups if group is not None]
        if len(own) < len(groups):
            return not own
        for group in own[1:]:
            self.same[self._own(group)] = self._own(own[0])
        return len({self.sizes[group] for group in own}) == 1

    def _standing(self, group: int | None) -> int | None:
        return None if group is None else self._own(group)

    def _own(self, group: int) -> int:
        """The group that stands for all that are the same."""
        while self.same[group] != group:
            group = self.same[group]
        return group
