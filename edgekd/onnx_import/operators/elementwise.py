"""Arithmetic, comparisons, logic and rounding with numpy's broadcasting; on sizes as Python numbers."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import math
import operator as python
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Element, Sizes, Value

_WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64, torch.int8: torch.int16}
_LACKING = (torch.uint16, torch.uint32, torch.uint64)


KERNELS: dict[str, Callable[..., Tensor]] = {}
"""What `narrow` may call, by operator: generated code can hold a name, not a function."""


def narrow(op_type: str, *args: Any) -> Tensor:
    """Call a kernel on types that torch has none for, by way of a wider one."""
    types = [a.dtype for a in args if isinstance(a, Tensor) and a.dtype in _LACKING]
    if not types:
        return KERNELS[op_type](*args)
    wide = [a.to(_WIDER[a.dtype]) if isinstance(a, Tensor) and a.dtype in _WIDER else a for a in args]
    result = KERNELS[op_type](*wide)
    return result.to(types[0]) if result.dtype == _WIDER[types[0]] else result


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """Division; of integers towards zero."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def power(a: Tensor, b: Tensor) -> Tensor:
    """a to the b in the type of a."""
    return torch.pow(a, b).to(a.dtype)


def truncated_int(a: int, b: int) -> int:
    """Division of sizes, which ONNX truncates when they are integers."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b  # type: ignore[return-value]
    return a // b if (a < 0) == (b < 0) else -(-a // b)


_BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "Add": (torch.add, python.add),
    "Sub": (torch.sub, python.sub),
    "Mul": (torch.mul, python.mul),
    "Div": (torch.div, truncated_int),
    "Pow": (power, python.pow),
    "Equal": (torch.eq, python.eq),
    "Greater": (torch.gt, python.gt),
    "Less": (torch.lt, python.lt),
    "GreaterOrEqual": (torch.ge, python.ge),
    "LessOrEqual": (torch.le, python.le),
    "And": (torch.logical_and, python.and_),
    "Or": (torch.logical_or, python.or_),
    "Xor": (torch.logical_xor, python.xor),
    "BitwiseAnd": (torch.bitwise_and, python.and_),
    "BitwiseOr": (torch.bitwise_or, python.or_),
    "BitwiseXor": (torch.bitwise_xor, python.xor),
}
_LOGICAL = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor")


@operator(*_BINARY)
def binary(node: NodeView) -> Value:
    """Two operands, broadcast."""
    a, b = node.value(0), node.value(1)
    on_tensors, on_numbers = _BINARY[node.op_type]
    if _are_sizes(a, b):
        dtype = torch.bool if node.op_type in _LOGICAL else a.dtype  # type: ignore[union-attr]
        return on_sizes(node, on_numbers, (a, b), dtype)
    kind = node.dtype(a)
    if node.op_type == "Div" and kind is not None and not kind.is_floating_point:
        on_tensors = quotient
    if node.op_type == "Pow" and kind == node.dtype(b) and kind is not None and kind.is_floating_point:
        on_tensors = torch.pow
    a, b = _as_number(node, a, b), _as_number(node, b, a)
    if kind in _LACKING or node.dtype(b) in _LACKING if not isinstance(b, int | float) else kind in _LACKING:
        return node.emit(narrow, node.op_type, a, b)
    return node.emit(on_tensors, a, b)


def _as_number(node: NodeView, value: Any, other: Any) -> Any:
    """A constant of one element becomes a Python number where that changes neither type nor shape of the result."""
    if not isinstance(value, Tensor) or not isinstance(other, fx.Node) or value.numel() != 1:
        return value
    if (
        node.op_type in ("And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Pow")
        and value.dtype == torch.bool
    ):
        return value
    if value.dtype != node.dtype(other) or value.ndim > node.rank(other) or value.dtype == torch.bool:
        return value
    is_left = node.optional(0) is value
    if is_left and node.op_type not in ("Add", "Mul"):
        return value  # torch's functions want a tensor on the left
    return value.item()


def _are_sizes(*values: Any) -> bool:
    """Whether this is shape arithmetic: sizes, and constants of rank 0 or 1 beside them."""
    fits = all(isinstance(v, Sizes) or (isinstance(v, Tensor) and v.ndim <= 1) for v in values)
    return fits and any(isinstance(v, Sizes) for v in values)


def on_sizes(node: NodeView, function: Callable[..., Any], values: tuple[Any, ...], dtype: torch.dtype) -> Value:
    """Broadcast a function of Python numbers over operands of rank 0 or 1."""
    lists = [node.elements_of(v) for v in values]
    scalar = all(v.scalar if isinstance(v, Sizes) else v.ndim == 0 for v in values)
    length = max(map(len, lists)) if all(map(len, lists)) else 0
    columns: list[list[Element]] = [list(e) * length if len(e) == 1 else e for e in lists]
    return node.sizes([node.emit(function, *row) for row in zip(*columns, strict=True)], scalar=scalar, dtype=dtype)


@operator("Mod", since=10)
def mod(node: NodeView) -> Value:
    """Remainder with the sign of the divisor, or of the dividend with fmod=1."""
    kernel = "Mod.fmod" if node.integer("fmod", 0) else "Mod"
    if _are_sizes(node.value(0), node.value(1)):
        return on_sizes(node, python.mod, (node.value(0), node.value(1)), torch.int64)
    return node.emit(narrow, kernel, node.tensor(0), node.tensor(1))


@operator("BitShift", since=11)
def bit_shift(node: NodeView) -> Value:
    """Bits moved left or right; integers without sign."""
    kernel = f"BitShift.{node.text('direction')}"
    return node.emit(narrow, kernel, node.tensor(0), node.tensor(1))


_VARIADIC: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "Max": (torch.maximum, max),
    "Min": (torch.minimum, min),
    "Sum": (torch.add, python.add),
    "Mean": (torch.add, python.add),
}


@operator(*_VARIADIC)
def variadic(node: NodeView) -> Value:
    """Any number of operands, broadcast."""
    on_tensors, on_numbers = _VARIADIC[node.op_type]
    values = [node.value(i) for i in range(len(node.inputs))]
    if _are_sizes(*values) and node.op_type != "Mean":
        dtype = values[0].dtype  # type: ignore[union-attr]
        return reduce(lambda a, b: on_sizes(node, on_numbers, (a, b), dtype), values)
    lacking = node.dtype(values[0]) in _LACKING
    emit = (
        (lambda a, b: node.emit(narrow, node.op_type, a, b)) if lacking else (lambda a, b: node.emit(on_tensors, a, b))
    )
    total = reduce(emit, [node.as_tensor(value) for value in values])
    return node.emit(torch.div, total, len(values)) if node.op_type == "Mean" else total


_UNARY: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Det": torch.linalg.det,
}
_UNARY_ON_NUMBERS: dict[str, Callable[..., Any]] = {
    "Abs": abs,
    "Neg": python.neg,
    "Ceil": math.ceil,
    "Floor": math.floor,
    "Sqrt": math.sqrt,
    "Not": python.not_,
}


@operator(*_UNARY)
def unary(node: NodeView) -> Value:
    """One operand."""
    x = node.value(0)
    if isinstance(x, Sizes) and node.op_type in _UNARY_ON_NUMBERS:
        return on_sizes(node, _UNARY_ON_NUMBERS[node.op_type], (x,), x.dtype)
    x = node.as_tensor(x)
    if node.dtype(x) in _LACKING:
        return node.emit(narrow, node.op_type, x)
    return node.emit(_UNARY[node.op_type], x)


@operator("IsInf", since=10)
def is_inf(node: NodeView) -> Value:
    """Infinite, of the signs asked for."""
    positive, negative = node.integer("detect_positive", 1), node.integer("detect_negative", 1)
    return node.emit(infinite, node.tensor(0), bool(positive), bool(negative))


def infinite(x: Tensor, positive: bool, negative: bool) -> Tensor:
    """Infinite, of the signs asked for."""
    return (torch.isposinf(x) & positive) | (torch.isneginf(x) & negative)


@operator("Where", since=9)
def where(node: NodeView) -> Value:
    """The second operand where the first holds, else the third."""
    values = tuple(node.value(i) for i in range(3))
    if _are_sizes(*values):
        return on_sizes(node, chosen, values, values[1].dtype)  # type: ignore[union-attr]
    condition, x, y = (node.as_tensor(value) for value in values)
    return node.emit(torch.where, condition, x, y)


def chosen(condition: bool, x: int, y: int) -> int:
    """x if the condition holds, else y."""
    return x if condition else y


KERNELS |= {name: kernel for name, (kernel, _) in (_BINARY | _VARIADIC).items()} | _UNARY
KERNELS |= {
    "Div": quotient,
    "Mod": torch.remainder,
    "Mod.fmod": torch.fmod,
    "BitShift.LEFT": torch.bitwise_left_shift,
    "BitShift.RIGHT": torch.bitwise_right_shift,
}
