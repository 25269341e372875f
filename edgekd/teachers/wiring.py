"""Follow the tensors of an ONNX graph from its input forwards and from its output backwards.

It looks only at the first and the last few nodes: what is done to the pixels before the network starts, and what is
done to the logits after it ends. It does not evaluate the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from edgekd.onnx_file import attribute, constants, opset

Floats = NDArray[np.float64]
Ending = Literal["logits", "softmax", "log_softmax", "sigmoid"]
ENDINGS: dict[str, Ending] = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}

_SAME_VALUES = ("Identity", "Cast", "Dropout", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_SAME_CLASSES = ("Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
_AFTER_DENSE = (*_SAME_CLASSES, "Dropout", "Add", "Sub", "Mul", "Div", "Clip", "BatchNormalization")
_POOLING = ("GlobalAveragePool", "AveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean", "ReduceMax")
_MOVING = ("Transpose", "Resize", "Upsample")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_FOLD: dict[str, Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]] = {
    "Add": lambda scale, offset, value: (scale, offset + value),
    "Sub": lambda scale, offset, value: (scale, offset - value),
    "Mul": lambda scale, offset, value: (scale * value, offset * value),
    "Div": lambda scale, offset, value: (scale / value, offset / value),
}
_CHANNELS_FIRST = ("Conv", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "InstanceNormalization")


@dataclass(frozen=True)
class Head:
    """What the graph does to its input x before the network starts: `scale * x + offset`, per channel.

    Attributes:
        scale, offset: one value, or one per channel.
        permutation: of the Transpose on the way, if there is one.
        next_operator: the operator that takes the result, "" when several do.
    """

    scale: Floats
    offset: Floats
    permutation: tuple[int, ...] | None
    next_operator: str

    @property
    def channels_first(self) -> bool | None:
        """Whether the graph's input is `[N, C, H, W]`; None when the nodes do not tell."""
        if self.next_operator not in _CHANNELS_FIRST:
            return None
        return None if self.permutation not in (None, (0, 3, 1, 2)) else self.permutation is None


@dataclass(frozen=True)
class Softmax:
    """What turns the logits of pixels into probabilities.

    Attributes:
        operator: its type.
        axis: what it runs over, as the node tells; None where the axes are others at the output, or for a Sigmoid.
        moved: an operator behind it that moves or mixes pixels, or "".
    """

    operator: str
    axis: int | None
    moved: str


class Wiring:
    """Who makes and who takes each tensor of a graph."""

    def __init__(self, model: ModelProto) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output if name}
        self.takers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
        self._fixed = constants(model)
        self._of_integers = {i.name for i in model.graph.input if i.type.tensor_type.elem_type == TensorProto.UINT8}
        self._axis = -1 if opset(model) >= 13 else 1  # of a Softmax that does not tell

    def constant(self, name: str) -> Floats | None:
        """The values of a tensor fixed in the file, flat, whatever its shape; None when it is computed."""
        for _ in range(len(self.makers) + 1):
            if name in self._fixed:
                return numpy_helper.to_array(self._fixed[name]).astype(np.float64).ravel()
            node = self.makers.get(name)
            if node is None:
                return None
            if node.op_type == "Constant":
                value = attribute(node, "value_float", attribute(node, "value_floats"))
                return None if value is None else np.asarray(value, np.float64).ravel()
            if node.op_type not in _SAME_VALUES:
                return None
            name = node.input[0]
        return None

    def is_fixed(self, name: str) -> bool:
        """Whether a tensor follows from the file alone: a weight, or computed from weights only."""
        return all(one in self._fixed or one in self.makers for one in self.leading_to(name, self._fixed))

    def leading_to(self, name: str, until: Container[str] = ()) -> Iterator[str]:
        """A tensor and all that it is computed from, each once; what leads to those of `until` is left out."""
        waiting, seen = [name], set[str]()
        while waiting:
            current = waiting.pop()
            if not current or current in seen:
                continue
            seen.add(current)
            yield current
            if current not in until and current in self.makers:
                waiting.extend(self.makers[current].input)

    def head(self, entry: str, channels: int | None) -> Head:
        """What is done to the graph input `entry` before the network starts.

        Only constants of one value or `channels` values count as normalization; any other ends the head, and so does
        arithmetic on uint8, which wraps around and cuts off. While the number of channels is unknown (None) every
        constant is passed by and nothing is folded.
        """
        scale, offset, name = np.ones(1), np.zeros(1), entry
        permutation: tuple[int, ...] | None = None
        integers = entry in self._of_integers
        while True:
            nodes = [node for node in self.takers.get(name, []) if node.op_type != "Shape"]
            if len(nodes) != 1:
                return Head(scale, offset, permutation, "")
            node = nodes[0]
            if node.op_type == "Transpose" and permutation is None:
                permutation = tuple(attribute(node, "perm", (3, 2, 1, 0)))  # type: ignore[arg-type]
            elif node.op_type in _ARITHMETIC:
                value = self._operand(node, name)
                if value is None or (channels is not None and (integers or value.size not in (1, channels))):
                    return Head(scale, offset, permutation, node.op_type)
                if channels is not None:
                    scale, offset = _FOLD[node.op_type](scale, offset, value)
            elif node.op_type == "DequantizeLinear" and (step := self._dequantized(node)) is not None:
                scale, offset = scale * step[0], (offset - step[1]) * step[0]
            elif node.op_type not in ("Identity", "Cast"):
                return Head(scale, offset, permutation, node.op_type)
            integers = integers and node.op_type not in ("Cast", "DequantizeLinear")
            name = node.output[0]

    def _operand(self, node: NodeProto, name: str) -> Floats | None:
        """The constant that an arithmetic node applies to tensor `name`, None when it is not an affine step."""
        left, right = node.input
        if left != name and node.op_type in ("Sub", "Div"):
            return None
        value = self.constant(right if left == name else left)
        usable = value is not None and np.isfinite(value).all() and (node.op_type != "Div" or value.all())
        return value if usable else None

    def vocabulary(self, entry: str) -> int | None:
        """Rows of the smallest stored table in which the tensor `entry` is looked up; None where it is in none."""
        waiting, found = [entry], list[int]()
        while waiting:
            name = waiting.pop()
            for node in self.takers.get(name, []):
                if node.op_type in _SAME_VALUES and node.input[0] == name:
                    waiting.append(node.output[0])
                elif node.op_type == "Gather" and node.input[1] == name and attribute(node, "axis", 0) == 0:
                    found += [] if (rows := self._rows(node.input[0])) is None else [rows]
        return min(found, default=None)

    def _rows(self, table: str) -> int | None:
        """Rows of a table that is stored, be it as integers; None where it is computed."""
        while table not in self._fixed:
            node = self.makers.get(table)
            if node is None or node.op_type not in ("Identity", "Cast", "DequantizeLinear"):
                return None
            table = node.input[0]
        return int(self._fixed[table].dims[0]) if self._fixed[table].dims else None

    def _dequantized(self, node: NodeProto) -> tuple[Floats, Floats] | None:
        """Scale and zero point of a DequantizeLinear, None unless they are one constant each."""
        given = [self.constant(name) if name else np.zeros(1) for name in (*node.input[1:], "")[:2]]
        scale, zero = given
        return (scale, zero) if scale is not None and zero is not None and scale.size == zero.size == 1 else None

    def ending(self, output: str) -> tuple[Ending, str]:
        """What the graph applies to the logits last, and the tensor that holds them before that."""
        for node in self._back(output, _SAME_CLASSES):
            if node.op_type in ENDINGS:
                return ENDINGS[node.op_type], node.input[0]
        return "logits", output

    def softmax(self, output: str) -> Softmax | None:
        """What ends an answer per pixel, also where pixels are moved behind it, past which `ending` does not look."""
        behind: list[str] = []
        for node in self._back(output, (*_SAME_CLASSES, *_MOVING)):
            if node.op_type in ENDINGS:
                reshaped = not set(behind) <= {"Identity", "Cast", *_MOVING} or node.op_type == "Sigmoid"
                axis = None if reshaped else int(attribute(node, "axis", self._axis))  # type: ignore[call-overload]
                return Softmax(node.op_type, axis, next((kind for kind in behind if kind in _MOVING), ""))
            behind.append(node.op_type)
        return None

    def features(self, logits: str) -> str | None:
        """Input of the last Gemm or MatMul with fixed weights that leads to the logits, or None when there is none."""
        for node in self._back(logits, _AFTER_DENSE):
            if node.op_type in ("Gemm", "MatMul"):
                computed = [name for name in node.input[:2] if not self.is_fixed(name)]
                return computed[0] if len(computed) == 1 else None
        return None

    def map(self, logits: str) -> str | None:
        """Input of the last convolution that leads to the logits of pixels, or None when there is none."""
        for node in self._back(logits, (*_AFTER_DENSE, *_MOVING)):
            if node.op_type == "Conv":
                return str(node.input[0])
        return None

    def rectified(self, name: str) -> bool:
        """Whether a tensor is never negative because a ReLU lies before it, with nothing but pooling between."""
        nodes = self._back(name, (*_SAME_VALUES, *_POOLING))
        return any(node.op_type == "Relu" for node in nodes)

    def _back(self, name: str, through: tuple[str, ...]) -> Iterator[NodeProto]:
        """Nodes behind a tensor: those of `through`, and the first that is not."""
        while (node := self.makers.get(name)) is not None:
            yield node
            computed = [source for source in node.input if source and not self.is_fixed(source)]
            if node.op_type not in through or not computed:
                return
            if node.op_type in _ARITHMETIC and len(computed) > 1:
                return
            name = computed[0]
