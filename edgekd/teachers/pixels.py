"""What a teacher takes: the shape and the layout of its images, the range of their values, how they are normalized.

What a person states wins over what a graph or a server tells, and that over a default. It reads no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekd import inference
from edgekd.codes import MOST_IDS, Bound, Layout
from edgekd.errors import BadModel, BadSetting
from edgekd.tasks import Task
from edgekd.teachers.wiring import Head

Dtype = Literal["float32", "uint8", "int64", "int32"]
"""Of an input: `uint8` takes whole numbers from 0 to 255, the others token ids."""
OF_IDS: tuple[Dtype, ...] = ("int64", "int32")
WHOLE = "as uint8; its students take the same numbers as float32"
_SHAPE_HINT = "say it with --input-shape C,H,W"
PIXEL = (1, 1)
"""Height and width of what is no image: the F features of a row of a table are channels of its one pixel."""


@dataclass(frozen=True)
class Stated:
    """What a person states about a teacher's images and answers; None where nothing was said.

    Attributes:
        input_shape: channels, height, width.
        input_range: lowest and highest value.
        bounds: the same of every channel, in their order; tables have features of many units.
        mean, std: per channel or one for all, in the input's own range.
        layout: order of the input's axes.
        task: how its answers are read.
    """

    input_shape: tuple[int, int, int] | None = None
    input_range: tuple[float, float] | None = None
    bounds: Sequence[tuple[float, float]] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    layout: Layout | None = None
    task: Task | None = None


@dataclass(frozen=True)
class PixelValues:
    """Range and normalization, each with its source: "graph", "flag" or "default"."""

    low: Bound
    high: Bound
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    range_source: str
    normalization_source: str


NOTHING_DONE = Head(np.ones(1), np.zeros(1), None, "")
"""The head of a teacher whose graph cannot be seen."""


def image_axes(
    name: str, dims: Sequence[int | None], stated: Stated, where: object
) -> tuple[tuple[int | None, ...], bool]:
    """The axes of an input, an image's or `[N, F]` of a table, and whether it takes numbers in one row.

    Args:
        name: of the input.
        dims: its sizes, None where one is free.
        stated: a row is the pixels of an image only where its shape is stated.
        where: for the message.

    Raises:
        BadModel: neither an image nor such a row.
        BadSetting: a shape is stated that does not fit the row.
    """
    if len(dims) == 4:
        return tuple(dims), False
    if len(dims) != 2:
        what = f"input {name!r} is {shown(dims)}, not an image"
        raise BadModel(what, where=where, allowed="[N,C,H,W] or [N,H,W,C], or [N,F] of a table")
    shape = stated.input_shape
    if dims[1] is None and shape is None:
        hint = "say how many features a row has with --input-shape F, or which image its pixels are with C,H,W"
        raise BadModel(f"input {name!r} leaves the number of features free", where=where, hint=hint)
    if shape is not None and dims[1] not in (None, math.prod(shape)):
        allowed = f"{dims[1]}, or an image of so many"
        raise BadSetting(f"it takes {dims[1]} numbers", where="--input-shape", allowed=allowed)
    if shape is None or shape[1:] == PIXEL:
        return (dims[0], dims[1] or math.prod(shape or ())), True
    return (dims[0], *inference.fed_shape(shape, stated.layout or "NCHW")), True


def sequence_axes(name: str, dims: Sequence[int | None], stated: Stated, where: object) -> tuple[int | None, int]:
    """The axes of an input of token ids `[N, T]`: batch, None where it is free, and length.

    Raises:
        BadModel: it leaves T free, and nobody says it.
        BadSetting: a shape is stated that does not fit.
    """
    shape = stated.input_shape
    if shape is not None and (shape[1:] != PIXEL or dims[1] not in (None, shape[0])):
        allowed = f"T, the length of its sequences{f', {dims[1]}' if dims[1] else ''}"
        raise BadSetting(f"input {name!r} takes token ids [N,T]", where="--input-shape", allowed=allowed)
    length = dims[1] or (shape[0] if shape is not None else None)
    if length is None:
        hint = "say how many ids a sequence has with --input-shape T; shorter ones are padded as its tokenizer pads"
        raise BadModel(f"input {name!r} leaves the length of its sequences free", where=where, hint=hint)
    return dims[0], length


def shown(dims: Sequence[int | None]) -> str:
    """Sizes for a message: `[?,1,28,28]`."""
    return "[" + ",".join("?" if size is None else str(size) for size in dims) + "]"


def image_layout(
    stated: Layout | None, dims: Sequence[int | None], head: Head = NOTHING_DONE, dtype: Dtype = "float32"
) -> tuple[Layout, str]:
    """The order of axes of an input `[N, ?, ?, ?]`, `[N, F]` or `[N, T]`, and where it was learned."""
    if len(dims) == 2:
        return ("NT" if dtype in OF_IDS else "NF"), "graph"
    if stated is not None:
        return stated, "flag"
    if head.channels_first is not None:
        return ("NCHW" if head.channels_first else "NHWC"), "graph"
    first, last = (dims[axis] in (1, 3) for axis in (1, 3))
    if first != last:
        return ("NCHW" if first else "NHWC"), "graph"
    return "NCHW", "default"


def image_shape(
    dims: Sequence[int | None], layout: Layout, stated: tuple[int, int, int] | None, where: object
) -> tuple[int, int, int]:
    """Channels, height and width of an input `[N, ?, ?, ?]`, None where a size is left free; of a table's `[N, F]`.

    Raises:
        BadModel: a size is left free and not stated.
        BadSetting: what is stated does not fit.
    """
    told = (dims[3], dims[1], dims[2]) if layout == "NHWC" else (*dims[1:], *PIXEL)[:3]
    found = []
    for index, name in enumerate(("channels", "height", "width")):
        size = told[index]
        if size is None and stated is None:
            raise BadModel(f"its input leaves the {name} free", where=where, hint=_SHAPE_HINT)
        if size is not None and stated is not None and size != stated[index]:
            raise BadSetting(f"{name} {stated[index]} does not fit the file's {size}", where="--input-shape")
        found.append(size if size is not None else stated[index] if stated else 0)
    if min(found) < 1:
        raise BadSetting("every size must be at least 1", where="--input-shape")
    return found[0], found[1], found[2]


def _per_channel(values: Sequence[float] | None, channels: int, flag: str) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) not in (1, channels):
        raise BadSetting(f"{len(values)} values for {channels} channels", where=flag, allowed=f"1 or {channels} values")
    return tuple(map(float, values)) * (channels if len(values) == 1 else 1)


def pixel_values(head: Head, channels: int, stated: Stated, dtype: Dtype = "float32") -> PixelValues:
    """The range of an input and how it is normalized, from what was stated, the head of the graph, or [0, 1].

    That of a uint8 input is [0, 255], whatever the graph does to it.

    Raises:
        BadSetting: what is stated does not fit.
    """
    stated_mean, stated_std = _per_channel(stated.mean, channels, "--mean"), _per_channel(stated.std, channels, "--std")
    if (stated_mean is None) != (stated_std is None):
        raise BadSetting("give both or neither", where="--mean/--std")
    if stated_std is not None and min(stated_std) <= 0:
        raise BadSetting("a deviation must be above 0", where="--std")
    mean, std, source = stated_mean, stated_std, "flag"
    if mean is None:
        mean, std = _folded(head, channels)
        source = "graph" if mean is not None else "default"
    implied = implied_range(mean, std) if mean is not None and std is not None else None
    # Scaling alone, or subtraction alone, tells the range but not how the images are spread in it.
    if source == "graph" and (not head.offset.any() or (head.scale == 1).all()):
        mean, std, normalization_source = None, None, "default"
    else:
        normalization_source = source
    if dtype == "uint8":
        if stated.input_range not in (None, (0, 255)):
            raise BadSetting("its input is uint8", where="--input-range", allowed="0,255")
        low, high, range_source = 0.0, 255.0, "graph"
    elif stated.bounds is not None:
        return PixelValues(*_each(stated, channels), mean, std, "flag", normalization_source)
    elif stated.input_range is not None:
        low, high, range_source = *stated.input_range, "flag"
    elif implied is not None:
        low, high, range_source = *implied, source
    else:
        low, high, range_source = 0.0, 1.0, "default"
    if not low < high:
        raise BadSetting(f"{low:g},{high:g} is empty", where="--input-range", allowed="LOW,HIGH with LOW below HIGH")
    return PixelValues(low, high, mean, std, range_source, normalization_source)


def id_values(stated: Stated, known: int | None, where: object) -> PixelValues:
    """The range of token ids: those of the table they are looked up in, or fewer, as stated.

    Args:
        stated: its input range are the least and the largest id.
        known: rows of the smallest such table, None where the graph shows none.
        where: for messages.

    Raises:
        BadModel: there is no table, and nobody says how many ids there are; or more than float32 can tell apart.
        BadSetting: what is stated is none of ids, or not in the table.
    """
    flags = {"--mean/--std": stated.mean or stated.std, "--bounds": stated.bounds, "--layout": stated.layout}
    if said := [flag for flag, value in flags.items() if value is not None]:
        raise BadSetting("its input is token ids", where=", ".join(said), allowed="without")
    if stated.input_range is None:
        if known is None:
            hint = "say which ids it takes with --input-range 0,LAST"
            raise BadModel("no table in it tells how many token ids there are", where=where, hint=hint)
        low, high, source = 0, known - 1, "graph"
    else:
        low, high = (int(end) for end in stated.input_range)
        source, most = "flag", (known or MOST_IDS) - 1
        if (low, high) != tuple(stated.input_range) or low or not 0 < high <= most:
            allowed = f"0,LAST with LAST up to {most}"
            raise BadSetting(
                f"{stated.input_range[0]:g},{stated.input_range[1]:g} are no ids of it",
                where="--input-range",
                allowed=allowed,
            )
    if not 1 <= high < MOST_IDS:
        raise BadModel(f"it has {high + 1} token ids", where=where, allowed=f"2 to {MOST_IDS}")
    return PixelValues(float(low), float(high), None, None, source, "default")


def _each(stated: Stated, channels: int) -> tuple[Bound, Bound]:
    """The ends of the ranges of every channel."""
    bounds = stated.bounds or ()
    if stated.input_range is not None:
        raise BadSetting("--bounds tells it already", where="--input-range", allowed="one of them")
    if len(bounds) != channels:
        what = f"{len(bounds)} ranges for {channels} features"
        raise BadSetting(what, where="--bounds", allowed=f"{channels} lines of LOW,HIGH")
    low, high = zip(*bounds, strict=True)
    return low, high


def _folded(head: Head, channels: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation of `scale * x + offset = (x - mean) / std`, or None when there is no such step."""
    changes = head.offset.any() or (head.scale != 1).any()
    if not changes or (head.scale <= 0).any():
        return None, None
    mean, std = (np.broadcast_to(v, channels) for v in (-head.offset / head.scale, 1 / head.scale))
    return tuple(float(f"{v:.7g}") for v in mean), tuple(float(f"{v:.7g}") for v in std)


def implied_range(mean: Sequence[float], std: Sequence[float]) -> tuple[float, float] | None:
    """The range of values that a normalization `(x - mean) / std` was made for, or None when it does not tell.

    A mean of at most 1 with a deviation of at most 1 belongs to values in [0, 1]; a mean of up to 255, or a division by
    about 255, to [0, 255].
    """
    if min(mean) < 0 or max(mean) > 255:
        return None
    if max(mean) <= 1 and max(std) <= 1:
        return 0.0, 1.0
    return (0.0, 255.0) if max(mean) > 1 or max(std) > 16 else None
