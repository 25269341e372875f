"""Reductions, with axes as an attribute or as an input, and the arg-max."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import operator as python
from collections.abc import Callable

import torch
from torch import Tensor

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.operators.elementwise import KERNELS, narrow
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Sizes, Unconvertible, Value

Axes = tuple[int, ...]


def mean(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Mean; of integers rounded towards zero."""
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    return torch.mean(x.double(), axes, keep).to(x.dtype)


def total(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Sum in the type of x."""
    return torch.sum(x, axes, keep, dtype=x.dtype)


def product(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Product over several axes."""
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def largest(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Maximum; of nothing, the type's least value."""
    if any(x.shape[axis] == 0 for axis in axes):
        return torch.full(_reduced(x, axes, keep), _limit(x.dtype, least=True), dtype=x.dtype, device=x.device)
    return torch.amax(x, axes, keep)


def smallest(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Minimum; of nothing, the type's greatest value."""
    if any(x.shape[axis] == 0 for axis in axes):
        return torch.full(_reduced(x, axes, keep), _limit(x.dtype, least=False), dtype=x.dtype, device=x.device)
    return torch.amin(x, axes, keep)


def _reduced(x: Tensor, axes: Axes, keep: bool) -> list[int]:
    return [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]


def _limit(dtype: torch.dtype, *, least: bool) -> float:
    if dtype.is_floating_point:
        return float("-inf") if least else float("inf")
    if dtype == torch.bool:
        return not least
    return torch.iinfo(dtype).min if least else torch.iinfo(dtype).max


def l1(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Sum of magnitudes."""
    return total(x.abs(), axes, keep)


def l2(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Euclidean norm."""
    if x.is_floating_point():
        norm: Tensor = torch.linalg.vector_norm(x, 2.0, axes, keep)
        return norm
    return total(x * x, axes, keep).double().sqrt().to(x.dtype)


def log_sum(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Logarithm of the sum."""
    return torch.log(total(x, axes, keep)).to(x.dtype)


def log_sum_exp(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Logarithm of the sum of exponentials."""
    return torch.logsumexp(x if x.is_floating_point() else x.double(), axes, keep).to(x.dtype)


def sum_of_squares(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    """Sum of squares."""
    return total(x * x, axes, keep)


_FUNCTIONS: dict[str, Callable[[Tensor, Axes, bool], Tensor]] = {
    "ReduceMean": mean,
    "ReduceSum": total,
    "ReduceProd": product,
    "ReduceMax": largest,
    "ReduceMin": smallest,
    "ReduceL1": l1,
    "ReduceL2": l2,
    "ReduceLogSum": log_sum,
    "ReduceLogSumExp": log_sum_exp,
    "ReduceSumSquare": sum_of_squares,
}
KERNELS |= _FUNCTIONS
_PLAIN: dict[str, Callable[..., Tensor]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
}


@operator(*_FUNCTIONS)
def reduce(node: NodeView) -> Value:
    """Reduce over some axes, or all."""
    x = node.value(0)
    axes, keep = _axes(node), bool(node.integer("keepdims", 1))
    if axes is None:
        return x
    if isinstance(x, Sizes) and node.op_type == "ReduceProd":
        return _product_of_sizes(node, x, keep)
    tensor = node.as_tensor(x)
    dtype = node.dtype(tensor)
    empty = any(n == 0 for n in node.shape(tensor))
    if dtype is not None and dtype.is_floating_point and axes and not empty and node.op_type in _PLAIN:
        return node.emit(_PLAIN[node.op_type], tensor, axes, keep)
    return node.emit(narrow, node.op_type, tensor, axes, keep)


def _axes(node: NodeView) -> Axes | None:
    """The axes counted from the front; None when there is nothing to reduce over."""
    x = node.value(0)
    axes: list[int] | None = node.integers("axes")
    if axes is None and node.optional(1) is not None:
        axes = [int(a) for a in node.constant(1, "axes").reshape(-1).tolist()]
    if not axes:
        return None if node.integer("noop_with_empty_axes", 0) else tuple(range(node.rank(x)))
    return tuple(sorted({node.axis(x, axis) for axis in axes}))


def _product_of_sizes(node: NodeView, x: Sizes, keep: bool) -> Value:
    result = x.elements[0]
    for element in x.elements[1:]:
        result = node.emit(multiplied, result, element)
    return node.sizes([result], scalar=not keep, dtype=x.dtype)


def multiplied(a: int, b: int) -> int:
    """A product of sizes."""
    return a * b


@operator("ArgMax", "ArgMin")
def arg(node: NodeView) -> Value:
    """Where the largest or smallest value is along an axis: the first, or the last if asked."""
    function = last_extreme if node.integer("select_last_index", 0) else first_extreme
    x, axis = node.tensor(0), node.axis(node.value(0), node.integer("axis", 0))
    return node.emit(function, x, axis, bool(node.integer("keepdims", 1)), node.op_type == "ArgMax")


def first_extreme(x: Tensor, axis: int, keep: bool, largest_one: bool) -> Tensor:
    """First position of the extreme."""
    return torch.argmax(x, axis, keep) if largest_one else torch.argmin(x, axis, keep)


def last_extreme(x: Tensor, axis: int, keep: bool, largest_one: bool) -> Tensor:
    """Last position of the extreme."""
    return x.shape[axis] - 1 - first_extreme(x.flip(axis), axis, keep, largest_one)


@operator("TopK", since=10)
def top_k(node: NodeView) -> Value | tuple[Value, ...]:
    """The k largest or smallest along an axis, and where."""
    (k,) = node.elements(1)
    if isinstance(k, float):
        raise Unconvertible("k must be an integer")
    axis, largest_ones = node.integer("axis", -1), bool(node.integer("largest", 1))
    both = node.emit(selected, node.tensor(0), k, axis, largest_ones)
    if isinstance(both, tuple):
        return both
    return tuple(node.emit(python.getitem, both, i) for i in (0, 1))


def selected(x: Tensor, k: int, axis: int, largest_ones: bool) -> tuple[Tensor, Tensor]:
    """The k extremes and their positions; equal values keep their order."""
    values, indices = torch.sort(x, dim=axis, descending=largest_ones, stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)
