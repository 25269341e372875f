"""Slice, Pad, Gather*, Scatter* and other moves by index."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import operator as python
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgekd.onnx_import.graph import check_elements
from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.operators.convolution import torch_pads
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.tensors import dtype_of
from edgekd.onnx_import.values import Element, Sizes, Unconvertible, Value


@operator("Slice", moves=True)
def slice_of(node: NodeView) -> Value:
    """From starts to ends by steps along some axes: inputs from opset 10 on, attributes before."""
    x = node.value(0)
    if node.opset < 10:
        starts: list[Element] = list(node.integers("starts") or [])
        ends: list[Element] = list(node.integers("ends") or [])
        axes, steps = node.integers("axes") or list(range(len(starts))), [1] * len(starts)
    else:
        starts, ends = node.elements(1), node.elements(2)
        axes = list(range(len(starts)))
        if node.optional(3) is not None:
            axes = [int(a) for a in node.constant(3, "axes").reshape(-1).tolist()]
        steps = [1] * len(starts)
        if node.optional(4) is not None:
            steps = [int(s) for s in node.constant(4, "steps").reshape(-1).tolist()]
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise Unconvertible("starts, ends, axes and steps do not fit together")
    if isinstance(x, Sizes):
        return _sizes_slice(node, x, starts, ends, steps)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = _sliced(node, x, node.axis(x, axis), start, end, step)
    return x


def _sizes_slice(node: NodeView, x: Sizes, starts: list[Element], ends: list[Element], steps: list[int]) -> Value:
    if any(isinstance(bound, fx.Node) for bound in (*starts, *ends)):
        raise Unconvertible("a slice of a shape by another shape is not supported")
    start, end = (int(bound[0]) for bound in (starts, ends) if not isinstance(bound[0], fx.Node))
    part = slice(start, _end(end, steps[0]), steps[0])
    return node.sizes(x.elements[part], scalar=False, dtype=x.dtype)


def _end(end: int, step: int) -> int | None:
    """A far negative end of a backward slice means: to the beginning."""
    return None if step < 0 and end < -(2**31) + 1 else end


def _sliced(node: NodeView, x: Tensor | fx.Node, axis: int, start: Element, end: Element, step: int) -> Any:
    if step < 0:
        return node.emit(backwards, x, axis, start, end, step)
    if start == 0 and step == 1 and isinstance(end, int) and end >= 2**31 - 1:
        return x
    end = 2**62 if isinstance(end, int) and end > 2**62 else end
    return node.emit(python.getitem, x, (*[slice(None)] * axis, slice(start, end, step)))


def backwards(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """A slice with a negative step, bounds as ONNX clamps them."""
    length = x.shape[axis]
    first = min(max(start + length if start < 0 else start, 0), length - 1)
    last = min(max(end + length if end < 0 else end, -1), length - 1)
    return x.index_select(axis, torch.arange(first, last, step, device=x.device) if first > last else _none(x))


def _none(x: Tensor) -> Tensor:
    return torch.zeros(0, dtype=torch.int64, device=x.device)


_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Pad", moves=True)
def pad(node: NodeView) -> Value:
    """More elements around the tensor, or fewer: constant, mirrored, repeated or wrapped."""
    x, rank = node.tensor(0), node.rank(node.value(0))
    mode = node.text("mode", "constant")
    begins, ends = _pads(node, rank)
    value = _fill(node)
    while begins and begins[0] == 0 and ends[0] == 0 and mode == "constant":
        begins, ends = begins[1:], ends[1:]
    if not begins:
        return x
    _check_extent(node, x, begins, ends)
    if mode == "constant":
        return node.emit(F.pad, x, torch_pads(begins, ends), "constant", value)
    leading = [*begins[:2], *ends[:2]]
    if (
        rank in (3, 4, 5)
        and leading == [0] * 4
        and all(isinstance(p, int) and p >= 0 for p in (*begins, *ends))
        and mode != "wrap"
    ):
        return node.emit(F.pad, x, torch_pads(begins[2:], ends[2:]), _MODES[mode])
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if (begin, end) != (0, 0):
            x = node.emit(reindexed, x, axis, begin, end, mode)
    return x


def _check_extent(node: NodeView, x: Value, begins: list[Element], ends: list[Element]) -> None:
    """Refuse an absurd padding before anything is allocated."""
    axes = zip(node.shape(x)[-len(begins) :], begins, ends, strict=True)
    known = [axis for axis in axes if all(isinstance(n, int) for n in axis)]
    check_elements(*(max(sum(axis), 1) for axis in known))  # type: ignore[arg-type]


def _pads(node: NodeView, rank: int) -> tuple[list[Element], list[Element]]:
    pads: list[Element] = list(node.integers("pads") or []) if node.opset < 11 else node.elements(1)
    axes = node.optional_constant(3, "axes")
    if axes is None:
        if len(pads) != 2 * rank:
            raise Unconvertible(f"{len(pads)} pads for a tensor of rank {rank}")
        return pads[:rank], pads[rank:]
    places = [node.axis(node.value(0), int(a)) for a in axes.tolist()]
    begins: list[Element] = [0] * rank
    ends: list[Element] = [0] * rank
    for i, place in enumerate(places):
        begins[place], ends[place] = pads[i], pads[len(places) + i]
    return begins, ends


def _fill(node: NodeView) -> float:
    if node.opset < 11:
        return node.number("value", 0.0)
    given = node.optional_constant(2, "fill value")
    return 0.0 if given is None else given.reshape(-1)[0].item()


def reindexed(x: Tensor, axis: int, begin: int, end: int, mode: str) -> Tensor:
    """Padding one axis by repeating positions that exist."""
    n = x.shape[axis]
    places = torch.arange(-begin, n + end, device=x.device)
    if mode == "wrap":
        places = places % n
    elif mode == "edge":
        places = places.clamp(0, n - 1)
    else:
        period = max(2 * (n - 1), 1)
        places = places % period
        places = torch.minimum(places, period - places) if n > 1 else places
    return x.index_select(axis, places)


@operator("Gather", moves=True)
def gather(node: NodeView) -> Value:
    """Rows, columns, ... by index along one axis."""
    x, indices = node.value(0), node.value(1)
    axis = node.axis(x, node.integer("axis", 0))
    if isinstance(x, Sizes) and isinstance(indices, Tensor) and indices.ndim <= 1:
        elements = [x.elements[i] for i in indices.reshape(-1).tolist()]
        return node.sizes(elements, scalar=indices.ndim == 0, dtype=x.dtype)
    x, indices = node.as_tensor(x), node.as_tensor(indices)
    if not isinstance(indices, Tensor):
        return node.emit(gathered, x, axis, indices)
    length = node.shape(x)[axis]
    if indices.numel() and isinstance(length, int) and not -length <= indices.min() <= indices.max() < length:
        raise Unconvertible(f"an index is outside an axis of length {length}")
    if indices.ndim == 0:
        return node.emit(torch.select, x, axis, int(indices))
    if indices.ndim == 1 and (indices >= 0).all():
        return node.emit(torch.index_select, x, axis, indices.long())
    return node.emit(gathered, x, axis, indices)


def gathered(x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """Index one axis by a tensor of any rank; negative indices count from the end."""
    places = wrapped(indices, x.shape[axis])
    return x.index_select(axis, places.reshape(-1)).reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def wrapped(indices: Tensor, length: int) -> Tensor:
    """Indices counted from the front, as int64."""
    indices = indices.long()
    return torch.where(indices < 0, indices + length, indices)


@operator("GatherElements", since=11)
def gather_elements(node: NodeView) -> Value:
    """One element per index, along one axis."""
    axis = node.axis(node.value(0), node.integer("axis", 0))
    return node.emit(elements_at, node.tensor(0), axis, node.tensor(1))


def elements_at(x: Tensor, axis: int, indices: Tensor) -> Tensor:
    """torch.gather with negative indices."""
    return torch.gather(x, axis, wrapped(indices, x.shape[axis]))


@operator("GatherND", since=11)
def gather_nd(node: NodeView) -> Value:
    """Slices by index tuples, which the last axis of the indices holds."""
    return node.emit(slices_at, node.tensor(0), node.tensor(1), node.integer("batch_dims", 0))


def slices_at(x: Tensor, indices: Tensor, batch_axes: int) -> Tensor:
    """x[batch..., indices[..., 0], indices[..., 1], ...]."""
    indices = indices.long()
    lead: list[Tensor] = []
    for axis in range(batch_axes):
        shape = [1] * (indices.ndim - 1)
        shape[axis] = x.shape[axis]
        lead.append(torch.arange(x.shape[axis], device=x.device).reshape(shape))
    return x[(*lead, *indices.unbind(-1))]


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", "Scatter", since=9)
def scatter_elements(node: NodeView) -> Value:
    """A copy with some elements replaced, or combined with what was there."""
    x = node.tensor(0)
    axis = node.axis(x, node.integer("axis", 0))
    return node.emit(scattered, x, axis, node.tensor(1), node.tensor(2), node.text("reduction", "none"))


def scattered(x: Tensor, axis: int, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """torch.scatter with negative indices."""
    places = wrapped(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


@operator("ScatterND", since=11)
def scatter_nd(node: NodeView) -> Value:
    """A copy with some slices replaced, or combined with what was there."""
    tensors = [node.tensor(i) for i in range(3)]
    return node.emit(slices_scattered, *tensors, node.text("reduction", "none"))


def slices_scattered(x: Tensor, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """Scatter whole slices by index tuples, which the last axis of the indices holds."""
    depth = indices.shape[-1]
    flat = x.reshape(-1, *x.shape[depth:]) if depth < x.ndim else x.reshape(-1)
    rows = torch.zeros_like(indices[..., 0], dtype=torch.int64)
    for axis in range(depth):
        rows = rows * x.shape[axis] + wrapped(indices[..., axis], x.shape[axis])
    rows, updates = rows.reshape(-1), updates.reshape(-1, *x.shape[depth:])
    if reduction == "none":
        return flat.index_put((rows,), updates.to(x.dtype)).reshape(x.shape)
    if reduction == "add":
        return flat.index_add(0, rows, updates).reshape(x.shape)
    places = rows.reshape(-1, *[1] * (flat.ndim - 1)).expand_as(updates)
    return flat.scatter_reduce(0, places, updates, _REDUCTIONS[reduction]).reshape(x.shape)


@operator("OneHot", since=9)
def one_hot(node: NodeView) -> Value:
    """One value at the index along a new axis, another elsewhere."""
    indices, values = node.tensor(0), node.tensor(2)
    (depth,) = node.elements(1)
    depth = depth if isinstance(depth, fx.Node) else int(depth)
    check_elements(*node.shape(indices), depth)
    return node.emit(marked, indices, depth, values, node.integer("axis", -1))


def marked(indices: Tensor, depth: int, values: Tensor, axis: int) -> Tensor:
    """values[1] at the index along a new axis, values[0] elsewhere and for indices out of range."""
    axis = axis % (indices.ndim + 1)
    places = wrapped(indices, depth).unsqueeze(axis)
    shape = [1] * places.ndim
    shape[axis] = depth
    hot = places == torch.arange(depth, device=indices.device).reshape(shape)
    return torch.where(hot, values[1], values[0])


@operator("CumSum", since=11)
def cumulative_sum(node: NodeView) -> Value:
    """Running sum along an axis, maybe from the end, maybe without the element itself."""
    axis = int(node.constant(1, "axis").reshape(-1)[0])
    flags = bool(node.integer("exclusive", 0)), bool(node.integer("reverse", 0))
    return node.emit(running_sum, node.tensor(0), axis, *flags)


def running_sum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Running sum along an axis."""
    x = x.flip(axis) if reverse else x
    total = torch.cumsum(x, axis, dtype=x.dtype)
    total = total - x if exclusive else total
    return total.flip(axis) if reverse else total


@operator("Trilu", since=14)
def trilu(node: NodeView) -> Value:
    """The upper or lower triangle, 0 elsewhere."""
    (diagonal,) = node.elements(1) if node.optional(1) is not None else (0,)
    function = torch.triu if node.integer("upper", 1) else torch.tril
    return node.emit(function, node.tensor(0), diagonal)


@operator("ReverseSequence", since=10)
def reverse_sequence(node: NodeView) -> Value:
    """The first elements of each sequence in reverse."""
    axes = node.integer("time_axis", 0), node.integer("batch_axis", 1)
    return node.emit(reversed_sequences, node.tensor(0), node.tensor(1), *axes)


def reversed_sequences(x: Tensor, lengths: Tensor, time: int, batch: int) -> Tensor:
    """The first `lengths` elements of each sequence in reverse."""
    moved = x.movedim((batch, time), (0, 1))
    steps = torch.arange(moved.shape[1], device=x.device)[None]
    places = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    rows = torch.arange(moved.shape[0], device=x.device)[:, None]
    return moved[rows, places].movedim((0, 1), (batch, time))


@operator("EyeLike", since=9)
def eye_like(node: NodeView) -> Value:
    """Ones on a diagonal, in the shape of the input."""
    x = node.tensor(0)
    dtype = dtype_of(node.integer("dtype", 1)) if node.has("dtype") else node.dtype(x)
    return node.emit(diagonal_ones, x, node.integer("k", 0), dtype)


def diagonal_ones(x: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    """Ones where column - row is k."""
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape)
    return (columns[None] - rows[:, None] == k).to(dtype)


@operator("NonZero", since=9)
def non_zero(node: NodeView) -> Value:
    """Positions of the elements that are not 0, one column each."""
    return node.emit(positions, node.tensor(0))


def positions(x: Tensor) -> Tensor:
    """Positions of the elements that are not 0, one column each."""
    return torch.nonzero(x).t()
