"""The torch.fx graph under construction: emit a call, or fold it when everything it needs is known.

Every emitted call is tried at once on *meta* tensors (shapes without data) at two sizes of the free dimensions. A
dimension that is equal in both trials is a constant of the graph, so most shape arithmetic folds away; a call that
fails in a trial would have failed when run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from edgekd.onnx_import.tensors import MAXIMUM_ELEMENTS
from edgekd.onnx_import.values import Element, Sizes, Unconvertible, Value, sizes_tensor

MAXIMUM_FOLDED = 2**25
"""Constants that are computed while importing may hold this many elements together (128 MiB of float32), and `_MORE`
times what the file stores: dequantizing or casting a weight makes it anew."""
_MORE = 4
MAXIMUM_TENSOR = 2**33
"""No tensor of a graph may have more elements than this in a trial."""
_KEPT_REAL = 2**20  # elements: a larger tensor is tried without data


def size(x: Tensor, axis: int) -> int:
    """The length of one axis, a Python int."""
    return x.shape[axis]


class GraphBuilder:
    """Collects the calls, buffers and trial values of one import."""

    def __init__(self, batch_growth: int | None, stored: int = 0) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.batch_growth = batch_growth
        """How many times larger a batch that the file fixed is in the second trial; None when it stays fixed."""
        self._trials: dict[fx.Node, tuple[Any, Any] | None] = {}
        self._buffers: dict[int, tuple[fx.Node, Tensor]] = {}
        self._sizes: dict[tuple[fx.Node, int], fx.Node] = {}
        self.first_input: fx.Node | None = None
        self._may_fold = MAXIMUM_FOLDED + _MORE * stored
        self._carried: dict[fx.Node, torch.dtype] = {}
        self._entered: set[fx.Node] = set()

    def placeholder(self, name: str, trials: tuple[Tensor, Tensor], dtype: torch.dtype) -> fx.Node:
        """A graph input of a type and what it looks like in the two trials: as floats, it is carried."""
        node = self.graph.placeholder(_identifier(name))
        self._trials[node] = trials
        if trials[0].dtype != dtype:
            self._carried[node] = dtype
            self._entered.add(node)
        self.first_input = self.first_input or node
        return node

    def emit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function when the module runs, or now when all its arguments are constants.

        Arguments may nest values in tuples and lists. Returns a node, or the result itself.
        """
        arguments = map_aggregate((args, kwargs), self.materialised)
        if not _nodes_in(arguments):
            return self._fold(function, *arguments)
        with_buffers = map_aggregate(arguments, self._with_buffer)
        node = self.graph.call_function(function, *with_buffers)
        self._trials[node] = self._try(function, arguments)
        return node

    def trial(self, value: object) -> tuple[Any, Any] | None:
        """What a value is in the two trials, or None when a trial cannot tell."""
        return self._trials.get(value) if isinstance(value, fx.Node) else (value, value)

    def shape(self, value: Value) -> list[int | fx.Node]:
        """The shape of a tensor; a node for each axis that differs between the trials."""
        if isinstance(value, Sizes):
            return [] if value.scalar else [len(value.elements)]
        if isinstance(value, Tensor):
            return list(value.shape)
        first, second = self.trial_shapes(value)
        return [n if n == m else self._size(value, axis) for axis, (n, m) in enumerate(zip(first, second, strict=True))]

    def trial_shapes(self, value: Value) -> tuple[Sequence[int], Sequence[int]]:
        """The shape of a tensor in both trials.

        Raises:
            Unconvertible: the shape depends on data.
        """
        if isinstance(value, Sizes):
            length = [] if value.scalar else [len(value.elements)]
            return length, length
        trials = self.trial(value)
        if trials is None or not isinstance(trials[0], Tensor):
            raise Unconvertible("the shape of its input depends on data")
        return trials[0].shape, trials[1].shape

    def dtype(self, value: Value) -> torch.dtype | None:
        """Element type of a tensor, None when a trial cannot tell."""
        if isinstance(value, fx.Node):
            trials = self.trial(value)
            return trials[0].dtype if trials and isinstance(trials[0], Tensor) else None
        return value.dtype

    def grown(self, values: Sequence[Value | None]) -> bool:
        """Whether the batch that is being made free shows in the shape of any of these."""
        if not self.batch_growth:
            return False
        pairs = (self._trials.get(value) for value in values if isinstance(value, fx.Node))
        shapes = ((p[0].shape, p[1].shape) for p in pairs if p and isinstance(p[0], Tensor))
        return any(
            n and m == n * self.batch_growth for first, second in shapes for n, m in zip(first, second, strict=True)
        )

    def carry(self, value: Value, dtype: torch.dtype, moved: Sequence[Value | None] = ()) -> Value:
        """Declare that a float tensor stands for integers of this type, so that a gradient can pass.

        One that only moves elements of a carried input, which is among `moved`, is still that input.
        """
        if isinstance(value, fx.Node):
            self._carried[value] = dtype
            if not self._entered.isdisjoint(source for source in moved if isinstance(source, fx.Node)):
                self._entered.add(value)
            return value
        return self.emit(torch.Tensor.to, value, dtype)  # type: ignore[no-any-return]

    def carried_type(self, value: Value | None) -> torch.dtype | None:
        """The integer type that a float tensor stands for, or None."""
        return self._carried.get(value) if isinstance(value, fx.Node) else None

    def settled(self, value: Value) -> Value:
        """The integers that a carried tensor stands for; any other value as it is.

        Raises:
            Unconvertible: they are those of an input, to which the gradient would then be zero.
        """
        dtype = self.carried_type(value)
        if isinstance(value, fx.Node) and value in self._entered:
            raise Unconvertible(
                f"it computes with the {str(dtype).removeprefix('torch.')} input as it is, not as floats"
            )
        return value if dtype is None else self.emit(torch.Tensor.to, value, dtype)

    def output(self, values: Sequence[Value]) -> fx.GraphModule:
        """The finished module, returning these values as a tuple."""
        self.graph.output(tuple(self._with_buffer(self.materialised(self.settled(value))) for value in values))
        self.graph.eliminate_dead_code()
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph, "ImportedGraph")

    def _size(self, value: fx.Node, axis: int) -> fx.Node:
        if (value, axis) not in self._sizes:
            self._sizes[value, axis] = self.emit(size, value, axis)
        return self._sizes[value, axis]

    def materialised(self, value: Any) -> Any:
        """Shape arithmetic as a tensor; anything else as it is."""
        if not isinstance(value, Sizes):
            return value
        if not any(isinstance(element, fx.Node) for element in value.elements):
            return sizes_tensor(value.elements, value.scalar, value.dtype, torch.empty(0))
        return self.emit(sizes_tensor, list(value.elements), value.scalar, value.dtype, self.first_input)

    def _with_buffer(self, value: Any) -> Any:
        """A constant tensor becomes a buffer of the module, once."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._buffers:
            name = f"constant_{len(self._buffers)}"
            self.root.register_buffer(name, value)
            node = self.graph.get_attr(name)
            self._trials[node] = (value, value)
            self._buffers[id(value)] = (node, value)
        return self._buffers[id(value)][0]

    def _fold(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The result now; many constants that are each just small enough are refused as one that is not."""
        _check_extent(function, args, kwargs, self._may_fold)
        with torch.no_grad():
            result = function(*args, **kwargs)
        self._may_fold -= sum(t.numel() for t in _parts(result) if isinstance(t, Tensor) and not t._is_view())
        if self._may_fold < 0:
            raise Unconvertible("its constants are absurdly large together")
        return result

    def _try(self, function: Callable[..., Any], arguments: Any) -> tuple[Any, Any] | None:
        if any(self._trials.get(node) is None for node in _nodes_in(arguments)):
            return None
        results = []
        for which in (0, 1):
            try:
                results.append(_dry_run(function, *map_aggregate(arguments, partial(self._trial_of, which))))
            except (NotImplementedError, RuntimeError) as error:
                if "meta tensor" not in str(error) and not isinstance(error, NotImplementedError):
                    raise
                return None  # the result depends on data that a trial does not have
        return results[0], results[1]

    def _trial_of(self, which: int, value: Any) -> Any:
        trials = self.trial(value)
        assert trials is not None
        return trials[which]


def _nodes_in(arguments: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(arguments, lambda node: found.append(node) or node)  # type: ignore[func-returns-value]
    return found


def _identifier(name: str) -> str:
    cleaned = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return f"input_{cleaned}" if not cleaned or cleaned[0].isdigit() or cleaned[0] == "_" else cleaned


def _check_extent(function: Callable[..., Any], args: Any, kwargs: Any, most: int) -> None:
    """Refuse a constant of more than `most` elements before allocating it."""
    args, kwargs = map_aggregate((args, kwargs), _to_meta)
    try:
        with torch.no_grad(), torch.device("meta"):
            results = function(*args, **kwargs)
    except (NotImplementedError, RuntimeError, TypeError):  # needs data: the function itself limits what it makes
        return
    for result in _parts(results):
        if isinstance(result, Tensor) and result.numel() > most:
            raise Unconvertible(f"a constant of shape {list(result.shape)} is absurdly large")


def check_elements(*dimensions: Element) -> None:
    """Refuse an absurd size before allocating it, where a trial could not tell."""
    total = math.prod(d for d in dimensions if isinstance(d, int))
    if abs(total) > MAXIMUM_ELEMENTS:
        raise Unconvertible(f"a tensor of {total} elements is absurdly large")


def _parts(result: Any) -> Sequence[Any]:
    return result if isinstance(result, tuple | list) else (result,)


def _to_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _dry_run(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run without data, unless all tensors are small and real: those are shape arithmetic."""
    tensors: list[Tensor] = []
    map_aggregate((args, kwargs), lambda v: tensors.append(v) if isinstance(v, Tensor) else None)
    if any(t.is_meta or t.numel() > _KEPT_REAL for t in tensors):
        args, kwargs = map_aggregate((args, kwargs), _to_meta)
    with torch.no_grad():
        result = function(*args, **kwargs)
    for tensor in _parts(result):
        if isinstance(tensor, Tensor) and tensor.numel() > MAXIMUM_TENSOR:
            raise Unconvertible(f"a tensor of shape {list(tensor.shape)} is absurdly large")
    return result
