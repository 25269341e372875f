"""Resize and Upsample: torch's interpolate where the two agree, one small matrix per axis otherwise."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgekd.onnx_import.graph import check_elements
from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Element, Unconvertible, Value


@dataclass(frozen=True)
class Sampling:
    """How one axis is resampled: the attributes of Resize.

    `region` is the part of the axis that `tf_crop_and_resize` reads, in shares of its length.
    """

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    fill: float
    region: tuple[float, float] = (0.0, 1.0)


@operator("Upsample", until=9)
def upsample(node: NodeView) -> Value:
    """Resize before opset 10: scales alone, coordinates asymmetric."""
    scales = node.numbers("scales") or [float(s) for s in node.constant(1, "scales").tolist()]
    how = Sampling(node.text("mode", "nearest"), "asymmetric", "floor", -0.75, False, False, 0.0)
    return _resized(node, list(range(len(scales))), list(scales), None, [how] * len(scales))


@operator("Resize", since=10, until=10)
def resize_by_scales(node: NodeView) -> Value:
    """Opset 10: scales alone, coordinates asymmetric."""
    scales = [float(s) for s in node.constant(1, "scales").tolist()]
    how = Sampling(node.text("mode", "nearest"), "asymmetric", "floor", -0.75, False, False, 0.0)
    return _resized(node, list(range(len(scales))), list(scales), None, [how] * len(scales))


@operator("Resize", since=11)
def resize(node: NodeView) -> Value:
    """Resample some axes by scales or to sizes."""
    x = node.value(0)
    axes = [node.axis(x, a) for a in node.integers("axes") or range(node.rank(x))]
    scales: list[Element] | None = None if node.optional(2) is None else node.elements(2)
    sizes: list[Element] | None = None if node.optional(3) is None else node.elements(3)
    if sizes:
        scales = None
        sizes, scales = _kept_aspect(node, axes, sizes)
    if not (scales or sizes):
        raise Unconvertible("neither scales nor sizes are given")
    return _resized(node, axes, scales, sizes, _samplings(node, axes))


def _samplings(node: NodeView, axes: list[int]) -> list[Sampling]:
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    region = [0.0] * len(axes) + [1.0] * len(axes)
    if coordinates == "tf_crop_and_resize":
        region = [float(r) for r in node.constant(1, "roi").tolist()]
    return [
        Sampling(
            node.text("mode", "nearest"),
            coordinates,
            node.text("nearest_mode", "round_prefer_floor"),
            node.number("cubic_coeff_a", -0.75),
            bool(node.integer("exclude_outside", 0)),
            bool(node.integer("antialias", 0)),
            node.number("extrapolation_value", 0.0),
            (region[i], region[len(axes) + i]),
        )
        for i in range(len(axes))
    ]


def _kept_aspect(
    node: NodeView, axes: list[int], sizes: list[Element]
) -> tuple[list[Element] | None, list[Element] | None]:
    """Sizes, or one scale for all axes where the proportions are to be kept."""
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return sizes, None
    lengths = [node.shape(node.value(0))[a] for a in axes]
    if not all(isinstance(n, int) for n in (*lengths, *sizes)):
        raise Unconvertible("keeping the proportions needs fixed sizes")
    ratios = [float(s) / float(n) for s, n in zip(sizes, lengths, strict=True)]  # type: ignore[arg-type]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    rounded: list[Element] = [math.floor(scale * float(n) + 0.5) for n in lengths]  # type: ignore[arg-type]
    return rounded, [scale] * len(axes)


def _resized(
    node: NodeView,
    axes: list[int],
    scales: list[Element] | None,
    sizes: list[Element] | None,
    how: list[Sampling],
) -> Value:
    x = node.tensor(0)
    lengths = [node.shape(x)[a] for a in axes]
    if len(axes) != len(sizes or scales or []):
        raise Unconvertible("scales or sizes do not fit the rank of the input")
    if sizes is None:
        assert scales is not None
        sizes = [node.emit(scaled_length, n, s) for n, s in zip(lengths, scales, strict=True)]
    check_elements(*sizes)
    sizes = _free_batch(node, x, axes, sizes)
    factors: list[Element | None] = [*scales] if scales else [None] * len(axes)
    plan = [
        (axis, size, factor, sampling)
        for axis, length, size, factor, sampling in zip(axes, lengths, sizes, factors, how, strict=True)
        if not _unchanged(length, size, factor, sampling)
    ]
    fast = _interpolate_arguments(node, x, plan)
    if fast is not None:
        return node.emit(F.interpolate, x, size=tuple(size for _, size, _, _ in plan), **fast)
    for axis, size, factor, sampling in plan:
        x = _resampled(node, x, axis, size, factor, sampling)
    return x


def _free_batch(node: NodeView, x: Value, axes: list[int], sizes: list[Element]) -> list[Element]:
    """Sizes in which the batch that the file fixed is that of the input."""
    growth = node.builder.batch_growth
    before, after = node.builder.trial_shapes(x)
    lengths = node.shape(x)
    return [
        lengths[a] if growth and after[a] == before[a] * growth and s == before[a] else s
        for a, s in zip(axes, sizes, strict=True)
    ]


def _unchanged(length: Element, size: Element, factor: Element | None, how: Sampling) -> bool:
    same = length is size or (isinstance(length, int) and length == size)
    return same and factor in (None, 1.0) and how.coordinates != "tf_crop_and_resize"


def scaled_length(length: int, scale: float) -> int:
    """The length of an axis after scaling."""
    return length if scale == 1 else math.floor(length * scale)


_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _interpolate_arguments(
    node: NodeView, x: Tensor | fx.Node, plan: list[tuple[int, Any, Any, Sampling]]
) -> dict[str, Any] | None:
    """Arguments of F.interpolate, where it does exactly what is asked; else None."""
    if not plan or [axis for axis, *_ in plan] != list(range(2, node.rank(x))) or len(plan) > 3:
        return None
    how = plan[0][3]
    lengths = node.shape(x)[2:]
    exact = all(f is None or _divides(n, s, f) for (_, s, f, _), n in zip(plan, lengths, strict=True))
    if not exact or how.antialias or how.exclude_outside:
        return None
    if how.mode == "nearest":
        whole = all(isinstance(f, float) and f == int(f) for _, _, f, _ in plan)
        agrees = (how.coordinates, how.nearest) == ("asymmetric", "floor") and whole
        agrees |= whole and how.coordinates == "half_pixel" and how.nearest.startswith("round")
        return {"mode": "nearest"} if agrees else None
    modes = _LINEAR if how.mode == "linear" else {2: "bicubic"} if how.cubic == -0.75 else {}
    if len(plan) not in modes:
        return None
    if how.coordinates == "half_pixel":
        return {"mode": modes[len(plan)], "align_corners": False}
    return {"mode": modes[len(plan)], "align_corners": True} if how.coordinates == "align_corners" else None


def _divides(length: Any, size: Any, factor: Any) -> bool:
    """Whether size / length is the factor itself, so that nothing was lost in rounding."""
    if isinstance(factor, float) and factor == int(factor):
        return True
    return isinstance(length, int) and isinstance(size, int) and isinstance(factor, float) and length * factor == size


def _resampled(
    node: NodeView, x: Tensor | fx.Node, axis: int, size: Any, factor: Any, how: Sampling
) -> Tensor | fx.Node:
    length = node.shape(x)[axis]
    dtype = node.dtype(x)
    like = x if any(isinstance(n, fx.Node) for n in (length, size, factor)) else None
    settings = (how.mode, how.coordinates, how.nearest, how.cubic, how.exclude_outside, how.antialias, how.region)
    weights = node.emit(resampling, length, size, factor, settings, dtype, like)
    resampled = node.emit(along, x, weights, axis)
    if how.coordinates != "tf_crop_and_resize":
        return resampled
    outside = node.emit(outside_region, length, size, how.region, node.rank(x) - axis - 1, like)
    return node.emit(torch.masked_fill, resampled, outside, how.fill)


def along(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Every vector along an axis times the matrix `[new, old]`."""
    if not x.is_floating_point():
        return along(x.double(), weights.double(), axis).round().to(x.dtype)
    return (x.transpose(axis, -1) @ weights.to(x.dtype).t()).transpose(axis, -1)


def outside_region(length: int, size: int, region: tuple[float, float], trailing: int, like: Tensor | None) -> Tensor:
    """Which new places lie outside the input, shaped to broadcast."""
    places = _coordinates(length, size, None, "tf_crop_and_resize", region)
    outside = (places < 0) | (places > length - 1)
    outside = outside.reshape(-1, *[1] * trailing)
    return outside if like is None else outside.to(like.device)


Settings = tuple[str, str, str, float, bool, bool, tuple[float, float]]


def resampling(
    length: int, size: int, factor: float | None, settings: Settings, dtype: torch.dtype, like: Tensor | None
) -> Tensor:
    """The matrix `[size, length]` that resamples one axis, as the definition of Resize has it."""
    mode, coordinates, nearest, cubic, exclude_outside, antialias, region = settings
    places = _coordinates(length, size, factor, coordinates, region)
    if mode == "nearest":
        chosen = _rounded(places, nearest).clamp(0, length - 1).long()
        weights = F.one_hot(chosen, length).double()
    else:
        scale = factor if factor is not None else size / length
        stretch = max(1.0, 1.0 / scale) if antialias else 1.0
        weights = _interpolating(places, length, mode, cubic, stretch, exclude_outside)
    dtype = dtype if dtype.is_floating_point else torch.float64
    return weights.to(dtype=dtype, device=None if like is None else like.device)


def _coordinates(  # noqa: PLR0911 - one return per mode of the operator
    length: int, size: int, factor: float | None, kind: str, region: tuple[float, float]
) -> Tensor:
    """Where in the input each new element lies."""
    new = torch.arange(size, dtype=torch.float64)
    scale = size / length if factor is None else factor
    if kind == "asymmetric":
        return new / scale
    if kind == "align_corners":
        return new * (length - 1) / (size - 1) if size > 1 else new * 0
    if kind == "tf_crop_and_resize":
        start, end = region
        if size > 1:
            return start * (length - 1) + new * (end - start) * (length - 1) / (size - 1)
        return new * 0 + 0.5 * (start + end) * (length - 1)
    if kind == "pytorch_half_pixel" and size == 1:
        return new * 0
    if kind == "half_pixel_symmetric":
        adjustment = size / (scale * length)
        return length / 2 * (1 - adjustment) + (new + 0.5) / scale - 0.5
    if kind == "tf_half_pixel_for_nn":
        return (new + 0.5) / scale
    return (new + 0.5) / scale - 0.5


def _rounded(places: Tensor, how: str) -> Tensor:
    if how == "floor":
        return places.floor()
    if how == "ceil":
        return places.ceil()
    return (places - 0.5).ceil() if how == "round_prefer_floor" else (places + 0.5).floor()


def _interpolating(
    places: Tensor, length: int, mode: str, cubic: float, stretch: float, exclude_outside: bool
) -> Tensor:
    """Weights of a linear or cubic kernel; beyond the borders the border counts, or nothing does."""
    reach = math.ceil((1 if mode == "linear" else 2) * stretch)
    base = places.floor()
    taps = base[:, None] + torch.arange(-reach + 1, reach + 1, dtype=torch.float64)
    distance = ((places[:, None] - taps) / stretch).abs()
    weights = (1 - distance).clamp(min=0) if mode == "linear" else _cubic(distance, cubic)
    if exclude_outside:
        weights = torch.where((taps < 0) | (taps > length - 1), 0.0, weights)
    if exclude_outside or stretch != 1.0:
        weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(len(places), length, dtype=torch.float64)
    return matrix.scatter_add(1, taps.clamp(0, length - 1).long(), weights)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' kernel (1981), equation 4 with parameter a."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))
