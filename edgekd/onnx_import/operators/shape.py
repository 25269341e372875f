"""Shape arithmetic and what it feeds: Shape, Reshape, Expand, Concat, Split, Transpose, Cast, constants."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import math
import operator as python
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgekd.onnx_import.graph import check_elements
from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.operators.elementwise import on_sizes
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.tensors import dtype_of, to_torch
from edgekd.onnx_import.values import Element, Sizes, Unconvertible, Value


@operator("Shape", carried=True)
def shape(node: NodeView) -> Value:
    """The sizes of a tensor, or of some of its axes."""
    sizes = node.shape(node.value(0))
    end = node.integer("end", len(sizes))
    return node.sizes(sizes[node.integer("start", 0) : end], scalar=False)


@operator("Size", carried=True)
def element_count(node: NodeView) -> Value:
    """The number of elements."""
    total: Element = 1
    for length in node.shape(node.value(0)):
        total = node.emit(python.mul, total, length)
    return node.sizes([total], scalar=True)


@operator("Constant")
def constant(node: NodeView) -> Value:
    """A tensor stored in the node."""
    for name, dtype in (("value_int", torch.int64), ("value_ints", torch.int64)):
        if node.has(name):
            stored = node.attribute(name)
            return torch.tensor(stored.i if name == "value_int" else list(stored.ints), dtype=dtype)
    if node.has("value_float"):
        return torch.tensor(node.number("value_float", 0.0))
    if node.has("value_floats"):
        return torch.tensor(node.numbers("value_floats"))
    if not node.has("value"):
        raise Unconvertible("its value is of a kind that is not supported")
    return to_torch(node.tensor_attribute("value"))


@operator("ConstantOfShape", since=9)
def constant_of_shape(node: NodeView) -> Value:
    """A tensor of one repeated value."""
    value = to_torch(node.tensor_attribute("value")) if node.has("value") else torch.zeros(1)
    sizes = node.elements(0)
    check_elements(*sizes)
    return node.emit(filled, sizes, value.reshape(-1)[0].item(), value.dtype, _device_source(node))


def _device_source(node: NodeView) -> Any:
    """A tensor on the device of the run, when there is anything to compute at run time."""
    sources = [v for v in node.inputs if isinstance(v, fx.Node)]
    runs = any(isinstance(v, Sizes) for v in node.inputs)
    return sources[0] if sources else (node.builder.first_input if runs else None)


def filled(sizes: Sequence[int], value: float, dtype: torch.dtype, like: Tensor | None) -> Tensor:
    """A tensor of one repeated value, on the device of `like`."""
    return torch.full(tuple(sizes), value, dtype=dtype, device=None if like is None else like.device)


@operator("Identity", moves=True)
def identity(node: NodeView) -> Value:
    """The input."""
    return node.value(0)


@operator("Dropout", moves=True)
def dropout(node: NodeView) -> Value | tuple[Value, ...]:
    """The input: an imported graph does not train."""
    x = node.value(0)
    if not any(node.output_names[1:]):
        return x
    return x, node.emit(torch.ones_like, node.as_tensor(x), dtype=torch.bool)


@operator("Cast", carried=True)
def cast(node: NodeView) -> Value:
    """Another element type."""
    x, dtype = node.value(0), dtype_of(node.integer("to", 1))
    if node.carried_type(x) is not None:
        x = x if dtype.is_floating_point else node.builder.settled(x)
        return node.emit(torch.Tensor.to, x, dtype)  # a node of its own, so that it counts as floats from here on
    return converted(node, x, dtype)


@operator("CastLike", since=15)
def cast_like(node: NodeView) -> Value:
    """The element type of the second input."""
    dtype = node.dtype(node.value(1))
    if dtype is None:
        raise Unconvertible("the type of its second input is not known")
    return converted(node, node.value(0), dtype)


def converted(node: NodeView, x: Value, dtype: torch.dtype) -> Value:
    """A value as another type; itself when it is of that type already."""
    if node.dtype(x) == dtype:
        return x
    if isinstance(x, Sizes):
        kind = bool if dtype == torch.bool else float if dtype.is_floating_point else int
        return on_sizes(node, kind, (x,), dtype)
    return node.emit(torch.Tensor.to, x, dtype)


@operator("Reshape", moves=True)
def reshape(node: NodeView) -> Value:
    """Another shape: 0 copies the input's size, one -1 is what remains; a batch the file fixed is made free."""
    x = node.value(0)
    target = node.elements(1)
    if isinstance(x, Sizes):
        if len(target) > 1:
            return node.emit(torch.reshape, node.as_tensor(x), target)
        return node.sizes(x.elements, scalar=not target, dtype=x.dtype)
    if not node.integer("allowzero", 0):
        sizes = node.shape(x) if 0 in target else []
        target = [sizes[i] if t == 0 and not isinstance(t, fx.Node) else t for i, t in enumerate(target)]
    if node.builder.batch_growth and isinstance(x, fx.Node):
        target = _elastic(node, x, target)
    if sum(isinstance(t, fx.Node) for t in target) == 1 and -1 not in target and 0 not in target:
        target = [-1 if isinstance(t, fx.Node) else t for t in target]
    return node.emit(torch.reshape, x, tuple(target))


def _elastic(node: NodeView, x: fx.Node, target: list[Element]) -> list[Element]:
    """A target shape that follows a batch which the file fixed.

    Row-major order tells which axis of the target holds the batch: the one with as many elements before it as the
    batch axis of the input has.
    """
    before, after = node.builder.trial_shapes(x)
    growth = node.builder.batch_growth or 1
    grown = next((a for a, (n, m) in enumerate(zip(before, after, strict=True)) if m == n * growth and n), None)
    if grown is None:
        return target
    first = _resolved([_first_trial(node, t) for t in target], math.prod(before))
    place, count = 0, math.prod(before[:grown])
    while place < len(first) and math.prod(first[:place]) < count:
        place += 1
    if place == len(first) or math.prod(first[:place]) != count:
        raise Unconvertible("the reshape mixes samples of the batch")
    if isinstance(target[place], fx.Node) or target[place] == -1:
        return target
    if -1 not in target:
        return [*target[:place], -1, *target[place + 1 :]]
    length = node.shape(x)[grown]
    if first[place] % before[grown]:
        raise Unconvertible("the reshape mixes samples of the batch")
    factor = first[place] // before[grown]
    free = length if factor == 1 else node.emit(python.mul, length, factor)
    return [*target[:place], free, *target[place + 1 :]]


def _first_trial(node: NodeView, element: Element) -> int:
    trial = node.builder.trial(element)
    if trial is None:
        raise Unconvertible("its target shape depends on data")
    return int(trial[0])


def _resolved(target: list[int], total: int) -> list[int]:
    rest = math.prod(t for t in target if t != -1)
    return [total // rest if t == -1 and rest else t for t in target]


@operator("Flatten", moves=True)
def flatten(node: NodeView) -> Value:
    """Two axes: those before `axis`, and the rest."""
    x = node.tensor(0)
    rank, axis = node.rank(x), node.integer("axis", 1)
    axis += rank if axis < 0 else 0
    if axis == 1 and rank > 1:
        return node.emit(torch.flatten, x, 1)
    sizes = node.shape(x)
    if all(isinstance(n, int) for n in sizes[:axis]) and 0 not in sizes:
        return node.emit(torch.reshape, x, (math.prod(map(int, sizes[:axis])), -1))  # type: ignore[arg-type]
    rest = [int(n) for n in sizes[axis:] if isinstance(n, int)]
    if len(rest) == rank - axis and 0 not in sizes:
        return node.emit(torch.reshape, x, (-1, math.prod(rest)))
    return node.emit(in_two, x, axis)


def in_two(x: Tensor, axis: int) -> Tensor:
    """Two axes: those before `axis`, and the rest."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose", moves=True)
def transpose(node: NodeView) -> Value:
    """Axes in another order; reversed by default."""
    x = node.tensor(0)
    order = node.integers("perm")
    return node.emit(torch.permute, x, tuple(range(node.rank(x))[::-1] if order is None else order))


def axes_of(node: NodeView, position: int) -> list[int] | None:
    """Axes given as an input or, in older opsets, as an attribute."""
    if node.has("axes"):
        return node.integers("axes")
    given = node.optional_constant(position, "axes")
    return None if given is None else [int(a) for a in given.reshape(-1).tolist()]


@operator("Squeeze", moves=True)
def squeeze(node: NodeView) -> Value:
    """Without some axes of length 1, or all of them."""
    x = node.value(0)
    axes = axes_of(node, 1)
    if isinstance(x, Sizes):
        return node.sizes(x.elements, scalar=len(x.elements) == 1, dtype=x.dtype)
    before, after = node.builder.trial_shapes(x)
    if axes is None:
        axes = [a for a, n in enumerate(before) if n == 1]
    axes = [node.axis(x, a) for a in axes]
    if any(after[a] != 1 or before[a] != 1 for a in axes):
        raise Unconvertible("an axis to squeeze is not of length 1")
    for axis in sorted(axes, reverse=True):
        x = node.emit(torch.squeeze, x, axis)
    return x


@operator("Unsqueeze", moves=True)
def unsqueeze(node: NodeView) -> Value:
    """With new axes of length 1."""
    x, axes = node.value(0), axes_of(node, 1) or []
    if isinstance(x, Sizes) and x.scalar and len(axes) == 1:
        return node.sizes(x.elements, scalar=False, dtype=x.dtype)
    x = node.as_tensor(x)
    rank = node.rank(x) + len(axes)
    if rank > 64:
        raise Unconvertible(f"rank {rank} is too high")
    for axis in sorted(a + rank if a < 0 else a for a in axes):
        x = node.emit(torch.unsqueeze, x, axis)
    return x


@operator("Concat", moves=True)
def concat(node: NodeView) -> Value:
    """Side by side along one axis."""
    values = [node.value(i) for i in range(len(node.inputs))]
    if any(isinstance(v, Sizes) for v in values) and not any(isinstance(v, fx.Node) for v in values):
        elements = [element for value in values for element in node.elements_of(value)]
        return node.sizes(elements, scalar=False, dtype=values[0].dtype)  # type: ignore[union-attr]
    tensors = [node.as_tensor(value) for value in values]
    axis = node.axis(tensors[0], node.integer("axis", 1))
    if node.builder.batch_growth:
        tensors = _same_batch(node, tensors, axis)
    return tensors[0] if len(tensors) == 1 else node.emit(torch.cat, tensors, axis)


def _same_batch(node: NodeView, tensors: list[Tensor | fx.Node], axis: int) -> list[Tensor | fx.Node]:
    """Repeat a constant (a class token) over a batch that was made free."""
    shapes = [node.builder.trial_shapes(t) for t in tensors]
    rank = len(shapes[0][0])
    for free in (a for a in range(rank) if a != axis):
        longest = max(range(len(tensors)), key=lambda i: shapes[i][1][free])
        for i, (_, after) in enumerate(shapes):
            if after[free] < shapes[longest][1][free]:
                sizes: list[Element] = [-1] * rank
                sizes[free] = node.shape(tensors[longest])[free]
                tensors[i] = node.emit(torch.Tensor.expand, _one_sample(tensors[i], free), tuple(sizes))
    return tensors


def _one_sample(value: Tensor | fx.Node, axis: int) -> Tensor:
    if not isinstance(value, Tensor) or not (value == value.narrow(axis, 0, 1)).all():
        raise Unconvertible("its inputs disagree about the batch")
    return value.narrow(axis, 0, 1)


@operator("Split", moves=True)
def split(node: NodeView) -> tuple[Value, ...]:
    """Parts along one axis: of given sizes, or equal (the last may be shorter)."""
    x, count = node.value(0), len(node.output_names)
    axis = node.axis(x, node.integer("axis", 0))
    parts: list[Element] | None = list(node.integers("split") or []) or None
    if node.optional(1) is not None:
        parts = node.elements(1)
    if isinstance(x, Sizes):
        return _split_sizes(node, x, parts, count)
    if parts is None:
        length = node.shape(x)[axis]
        chunk = node.emit(ceiling_division, length, count)
        last = node.emit(remaining, length, chunk, count)
        parts = [chunk] * (count - 1) + [last]
    pieces = node.emit(torch.split, x, parts, axis)
    return tuple(node.emit(python.getitem, pieces, i) for i in range(count))


def _split_sizes(node: NodeView, x: Sizes, parts: list[Element] | None, count: int) -> tuple[Value, ...]:
    lengths = [int(p) for p in parts if isinstance(p, int)] if parts else [len(x.elements) // count] * count
    starts = [sum(lengths[:i]) for i in range(count)]
    pieces = [x.elements[s : s + n] for s, n in zip(starts, lengths, strict=True)]
    return tuple(node.sizes(piece, scalar=False, dtype=x.dtype) for piece in pieces)


def ceiling_division(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def remaining(length: int, chunk: int, count: int) -> int:
    """What is left for the last of `count` chunks."""
    return length - chunk * (count - 1)


@operator("Expand", moves=True)
def expand(node: NodeView) -> Value:
    """Broadcast to a shape; a size that the input has already stays its own, so that a fixed batch becomes free."""
    x, target = node.tensor(0), node.elements(1)
    sizes = node.shape(x)
    missing = len(target) - len(sizes)
    target = [1] * -missing + target
    kept: list[Element] = list(target[: max(missing, 0)])
    check_elements(*(t for t in target if isinstance(t, int) and t > 0))
    for length, wanted in zip(sizes, target[max(missing, 0) :], strict=True):
        stays = wanted == 1 if isinstance(length, int) and length == 1 else True
        kept.append(-1 if stays else wanted)
        known = isinstance(length, int) and isinstance(wanted, int)
        if known and length != wanted and 1 not in (length, wanted):
            raise Unconvertible(f"a size of {length} cannot be expanded to {wanted}")
    return x if set(kept) <= {-1} else node.emit(torch.Tensor.expand, x, tuple(kept))


@operator("Tile", moves=True)
def tile(node: NodeView) -> Value:
    """The tensor repeated along each axis."""
    x, repeats = node.tensor(0), node.elements(1)
    check_elements(*node.shape(x), *repeats)
    return node.emit(torch.tile, x, tuple(repeats))


@operator("Range", since=11)
def range_of(node: NodeView) -> Value:
    """From start, up to but without limit, by delta."""
    values = [node.value(i) for i in range(3)]
    dtype = node.dtype(values[0])
    start, limit, delta = (node.elements_of(value)[0] for value in values)
    if not any(isinstance(v, fx.Node) for v in (start, limit, delta)):
        check_elements(math.ceil(abs((limit - start) / delta)) if delta else MANY)  # type: ignore[operator]
    return node.emit(counted, start, limit, delta, dtype, _device_source(node))


MANY = 2**62


def counted(start: float, limit: float, delta: float, dtype: torch.dtype, like: Tensor | None) -> Tensor:
    """From start by delta, as many as fit before limit."""
    device = None if like is None else like.device
    if (limit - start) * delta <= 0:
        return torch.zeros(0, dtype=dtype, device=device)
    return torch.arange(start, limit, delta, dtype=dtype, device=device)


@operator("DepthToSpace", moves=True)
def depth_to_space(node: NodeView) -> Value:
    """Blocks of channels become blocks of pixels."""
    x, block = node.tensor(0), node.integer("blocksize", 1)
    if node.text("mode", "DCR") == "CRD":
        return node.emit(torch.pixel_shuffle, x, block)
    return node.emit(depth_first_shuffle, x, block)


def depth_first_shuffle(x: Tensor, block: int) -> Tensor:
    """Pixel shuffle with the block's position as the slowest part of the channel."""
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // (block * block), h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // (block * block), h * block, w * block)


@operator("SpaceToDepth", moves=True)
def space_to_depth(node: NodeView) -> Value:
    """Blocks of pixels become blocks of channels."""
    function = F.pixel_unshuffle if node.text("mode", "DCR") == "CRD" else space_unshuffle
    return node.emit(function, node.tensor(0), node.integer("blocksize", 1))


def space_unshuffle(x: Tensor, block: int) -> Tensor:
    """Pixel unshuffle with the block's position as the slowest part of the channel."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block * block, h // block, w // block)
