"""Sizes at which a graph is tried while it is imported: two for each free dimension, so that free ones show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor

from edgekd.errors import BadModel
from edgekd.onnx_file import dimensions
from edgekd.onnx_import.tensors import dtype_of

GROWTH = 3
"""A batch that the file fixes is this many times larger in the second trial."""
_BATCHES = (2, 3)
_LENGTHS = ((512, 768), (64, 96), (8, 12))  # the larger, the less likely that two sizes meet by rounding


@dataclass(frozen=True)
class Trial:
    """Inputs without data, at two sizes.

    Attributes:
        tensors: one pair of meta tensors per graph input.
        batch: the batch of the first of each pair.
        batch_growth: `GROWTH` where a fixed batch is being made free, else None.
        batch_free: whether the batch differs between the two.
    """

    tensors: list[tuple[Tensor, Tensor]]
    batch: int | None
    batch_growth: int | None
    batch_free: bool


def trials(
    inputs: Sequence[onnx.ValueInfoProto], first: Sequence[int | None] | None = None, *, as_floats: bool = False
) -> Iterator[Trial]:
    """Trials from the most to the least general; the first at which the graph fits is the one to keep.

    Args:
        inputs: of the graph.
        first: sizes of the first input that the caller knows.
        as_floats: the first input is fed as float32, whatever its type.

    Raises:
        BadModel: an input without a rank, of an unknown type or absurd size; `first` does not fit the file.
    """
    shapes = [_shape(value) for value in inputs]
    if first is not None:
        shapes[:1] = [_stated(shapes[0], first, inputs[0].name)] if shapes else []
    types = [dtype_of(value.type.tensor_type.elem_type) for value in inputs]
    types[:1] = [torch.float32] if types and as_floats else types[:1]
    batch = shapes[0][0] if shapes and shapes[0] else None
    fixed = isinstance(batch, int)
    others = any(not isinstance(size, int) for shape in shapes for size in shape[1:])
    for freed in (True, False) if fixed and batch else (False,):
        for lengths in _LENGTHS if others else _LENGTHS[:1]:
            yield _trial(shapes, types, lengths, batch if fixed else None, freed)


def _stated(shape: list[int | str], stated: Sequence[int | None], name: str) -> list[int | str]:
    """A shape with the sizes that the caller states."""
    fits = len(shape) == len(stated) and all(
        s is None or not isinstance(n, int) or n == s for n, s in zip(shape, stated, strict=True)
    )
    if not fits:
        raise BadModel(f"its shape {shape} is not {list(stated)}", where=f"input {name}")
    return [n if s is None else s for n, s in zip(shape, stated, strict=True)]


def _trial(
    shapes: list[list[int | str]],
    types: list[torch.dtype],
    lengths: tuple[int, int],
    batch: int | str | None,
    freed: bool,
) -> Trial:
    leading = {shape[0] for shape in shapes if shape and not isinstance(shape[0], int)}

    def at(shape: list[int | str], which: int) -> list[int]:
        sizes = []
        for axis, size in enumerate(shape):
            if isinstance(size, int):
                grow = freed and which and axis == 0 and size == batch
                sizes.append(size * GROWTH if grow else size)
            else:
                sizes.append(_BATCHES[which] if size in leading else lengths[which])
        return sizes

    tensors = [
        (_meta(at(shape, 0), dtype), _meta(at(shape, 1), dtype)) for shape, dtype in zip(shapes, types, strict=True)
    ]
    first = batch if isinstance(batch, int) else (_BATCHES[0] if leading else None)
    return Trial(tensors, first, GROWTH if freed else None, freed or bool(leading))


def _meta(shape: list[int], dtype: torch.dtype) -> Tensor:
    try:
        return torch.empty(shape, dtype=dtype, device="meta")
    except (RuntimeError, TypeError) as error:  # TypeError: beyond 64 bits
        raise BadModel(f"an input has the absurd shape {shape}") from error


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """An input's shape, free dimensions by name."""
    known = dimensions(value)
    if known is None:
        raise BadModel("its rank is not stated, or it is no tensor", where=f"input {value.name}")
    named = value.type.tensor_type.shape.dim
    return [
        size if size is not None else named[axis].dim_param or f"{value.name}.{axis if axis else 'batch'}"
        for axis, size in enumerate(known)
    ]
