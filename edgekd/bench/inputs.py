"""What a model is fed while it is measured: the shape and type of every input at batch 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, ValueInfoProto

from edgekd.errors import BadModel
from edgekd.onnx_file import dimensions, real_inputs
from edgekd.teachers.wiring import Wiring

_DTYPES = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64", "bool")


@dataclass(frozen=True)
class InputSpec:
    """One input: its name, full shape with the batch, numpy dtype, and the range of its values.

    That of wide integers is 0 to the last id of the table in which the graph looks them up, or 1, valid in any table.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float


def describe(
    model: ModelProto, path: Path, input_shape: tuple[int, ...] | None, low: float, high: float
) -> list[InputSpec]:
    """Every input of a model, free dimensions filled in: the batch with 1, the rest from `input_shape`.

    Args:
        model: the parsed file, and `path` where it came from.
        input_shape: shape of the first input without the batch; channels may come first or last.
        low, high: range of the values, for floating inputs.

    Raises:
        BadModel: an input is no tensor, of a type that cannot be fed, or has a free dimension nobody filled.
    """
    values = real_inputs(model)
    shapes = (input_shape, *[None] * (len(values) - 1))
    wiring = Wiring(model)
    ids = {value.name: (0.0, (wiring.vocabulary(value.name) or 2) - 1.0) for value in values}
    return [_one(v, path, given, (low, high), ids[v.name]) for v, given in zip(values, shapes, strict=False)]


def _one(
    value: ValueInfoProto,
    path: Path,
    given: tuple[int, ...] | None,
    floats: tuple[float, float],
    ids: tuple[float, float],
) -> InputSpec:
    if value.type.WhichOneof("value") != "tensor_type":
        raise BadModel(f"input {value.name!r} is not a tensor", where=path)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    if dtype not in _DTYPES:
        raise BadModel(f"input {value.name!r} of type {dtype} cannot be fed", where=path, allowed=", ".join(_DTYPES))
    ends = ids if dtype in ("int32", "int64") else floats
    return InputSpec(value.name, _shape(value, path, given), dtype, *ends)


def _shape(value: ValueInfoProto, path: Path, given: tuple[int, ...] | None) -> tuple[int, ...]:
    known = dimensions(value)
    if known is None and given is None:
        raise BadModel(f"input {value.name!r} does not tell its shape", where=path, hint="give --input-shape")
    dims: list[int | None] = (
        [d or None for d in known] if known is not None else [None] * (1 + len(given or ()))
    )  # 0 stands for unknown
    batch, rest = dims[:1], dims[1:]
    if given is not None:
        rest = list(_fitting(rest, given, value.name, path))
    if None in rest:
        shown = [d if d else "?" for d in dims]
        hint = "give --input-shape, without the batch, such as 3,224,224"
        raise BadModel(f"input {value.name!r} leaves dimensions free: {shown}", where=path, hint=hint)
    return tuple(d or 1 for d in (*batch, *rest))


def _fitting(fixed: list[int | None], given: tuple[int, ...], name: str, path: Path) -> tuple[int, ...]:
    """`given` as it is, with its channels moved from first to last or back, or in one row: what first fits the file."""
    for shape in (given, (*given[1:], *given[:1]), (*given[-1:], *given[:-1]), (math.prod(given),)):
        if len(shape) == len(fixed) and all(f in (None, s) for f, s in zip(fixed, shape, strict=True)):
            return shape
    raise BadModel(f"input shape {list(given)} contradicts input {name!r}", where=path, allowed=str(fixed))
