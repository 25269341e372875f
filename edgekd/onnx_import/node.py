"""One ONNX node as its converter sees it: typed attributes, inputs as values, and a way to emit calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto
from torch import Tensor, fx

from edgekd.onnx_import.graph import GraphBuilder
from edgekd.onnx_import.values import Element, Sizes, Unconvertible, Value


class NodeView:
    """A node, its inputs' values and the graph under construction."""

    def __init__(self, proto: NodeProto, inputs: Sequence[Value | None], opset: int, builder: GraphBuilder) -> None:
        self.op_type, self.opset, self.builder = proto.op_type, opset, builder
        self.inputs = list(inputs)
        self.output_names = list(proto.output)
        self._attributes = {a.name: a for a in proto.attribute}
        self.emit: Callable[..., Any] = builder.emit

    # Attributes

    def has(self, name: str) -> bool:
        """Whether the node carries an attribute."""
        return name in self._attributes

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return self._attributes[name].i if name in self._attributes else default

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        return self._attributes[name].f if name in self._attributes else default

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        return self._attributes[name].s.decode("utf-8", "replace") if name in self._attributes else default

    def integers(self, name: str) -> list[int] | None:
        """A list of integers, None when absent."""
        return list(self._attributes[name].ints) if name in self._attributes else None

    def numbers(self, name: str) -> list[float] | None:
        """A list of floats, None when absent."""
        return list(self._attributes[name].floats) if name in self._attributes else None

    def texts(self, name: str) -> list[str] | None:
        """A list of strings, None when absent."""
        return [s.decode("utf-8", "replace") for s in self._attributes[name].strings] if self.has(name) else None

    def tensor_attribute(self, name: str) -> TensorProto:
        """A tensor attribute."""
        tensor: TensorProto = self._attributes[name].t
        return tensor

    def attribute(self, name: str) -> onnx.AttributeProto:
        """An attribute as stored."""
        attribute: onnx.AttributeProto = self._attributes[name]
        return attribute

    # Inputs

    def optional(self, position: int) -> Value | None:
        """An input, None when the node leaves it out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def value(self, position: int) -> Value:
        """An input that must be there."""
        value = self.optional(position)
        if value is None:
            raise Unconvertible(f"input {position} is missing")
        return value

    def tensor(self, position: int) -> Tensor | fx.Node:
        """An input as something torch functions take: shape arithmetic becomes a tensor."""
        return self.as_tensor(self.value(position))

    def as_tensor(self, value: Value) -> Tensor | fx.Node:
        """A value as something torch functions take."""
        return self.builder.materialised(value)  # type: ignore[no-any-return]

    def constant(self, position: int, what: str) -> Tensor:
        """An input that must be known while importing."""
        value = self.value(position)
        if not isinstance(value, Tensor):
            raise Unconvertible(f"its {what} must be constant")
        return value

    def optional_constant(self, position: int, what: str) -> Tensor | None:
        """An input that may be absent but, if there, must be known while importing."""
        return None if self.optional(position) is None else self.constant(position, what)

    def elements(self, position: int) -> list[Element]:
        """An input of rank 0 or 1 as Python numbers or nodes that yield them."""
        return self.elements_of(self.value(position))

    def elements_of(self, value: Value) -> list[Element]:
        """A tensor of rank 0 or 1 as Python numbers or nodes that yield them."""
        if isinstance(value, Sizes):
            return list(value.elements)
        if isinstance(value, Tensor):
            if value.numel() > 4096:
                raise Unconvertible(f"a shape argument of {value.numel()} elements is absurdly large")
            return list(value.reshape(-1).tolist())
        count = self.builder.trial_shapes(value)[0].numel()  # type: ignore[attr-defined]
        flat = self.emit(torch.reshape, value, (-1,))
        return [self.emit(item, flat, i) for i in range(count)]

    # Facts

    def shape(self, value: Value) -> list[int | fx.Node]:
        """Shape of a tensor; a node for each axis that is free."""
        return self.builder.shape(value)

    def rank(self, value: Value) -> int:
        """Number of axes."""
        return len(self.builder.trial_shapes(value)[0])

    def dtype(self, value: Value) -> torch.dtype | None:
        """Element type, None when unknown."""
        return self.builder.dtype(value)

    def carry(self, value: Value, dtype: torch.dtype) -> Value:
        """Declare that a float tensor stands for integers of this type."""
        return self.builder.carry(value, dtype)

    def carried_type(self, value: Value | None) -> torch.dtype | None:
        """The integer type that a float tensor stands for, or None."""
        return self.builder.carried_type(value)

    def axis(self, value: Value, axis: int) -> int:
        """An axis counted from the front.

        Raises:
            Unconvertible: there is no such axis.
        """
        rank = self.rank(value)
        if not -rank <= axis < max(rank, 1):
            raise Unconvertible(f"axis {axis} is outside a tensor of rank {rank}")
        return axis % rank if rank else 0

    def sizes(self, elements: Sequence[Element], *, scalar: bool, dtype: torch.dtype = torch.int64) -> Value:
        """Numbers as a value: a constant when all are known."""
        value = Sizes(tuple(elements), scalar, dtype)
        known = not any(isinstance(element, fx.Node) for element in elements)
        return self.builder.materialised(value) if known else value


def item(x: Tensor, position: int) -> int | float | bool:
    """One element as a Python number."""
    return x[position].item()
