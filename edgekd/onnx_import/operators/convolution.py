"""Conv, ConvTranspose and what they share with pooling: explicit and automatic padding."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import operator as python
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Element, Unconvertible, Value

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("Conv")
def conv(node: NodeView) -> Value:
    """Convolution over one to three spatial axes."""
    return convolve(node, node.tensor(0), node.tensor(1), node.optional(2))


def convolve(node: NodeView, x: Tensor | fx.Node, weight: Tensor | fx.Node, bias: Value | None) -> Value:
    """Convolution of given tensors by the attributes of a node (also for the quantized convolutions)."""
    spatial = spatial_rank(node, x)
    kernel = [n for n in node.shape(weight)[2:] if isinstance(n, int)]
    if len(kernel) != spatial:
        raise Unconvertible("the kernel does not fit the rank of the input")
    stride, dilation = geometry(node, spatial)
    x, padding = padded(node, x, kernel, stride, dilation)
    group = node.integer("group", 1)
    return node.emit(CONVOLUTIONS[spatial], x, weight, bias, tuple(stride), padding, tuple(dilation), group)


@operator("ConvTranspose")
def conv_transpose(node: NodeView) -> Value:
    """Transposed convolution; uneven pads and `output_shape` become a crop or a pad of the result."""
    x, weight = node.tensor(0), node.tensor(1)
    spatial = spatial_rank(node, x)
    stride, dilation = geometry(node, spatial)
    kernel = [int(n) for n in node.shape(weight)[2:] if isinstance(n, int)]
    extra = node.integers("output_padding") or [0] * spatial
    pads = _transposed_pads(node, kernel, stride, dilation, extra)
    group = node.integer("group", 1)
    even = pads[:spatial] == pads[spatial:] and all(p >= 0 for p in pads)
    fits = all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True))
    if even and fits:
        args = (tuple(stride), tuple(pads[:spatial]), tuple(extra), group, tuple(dilation))
        return node.emit(TRANSPOSED[spatial], x, weight, node.optional(2), *args)
    full = node.emit(TRANSPOSED[spatial], x, weight, None, tuple(stride), 0, 0, group, tuple(dilation))
    ends = [e - p for e, p in zip(extra, pads[spatial:], strict=True)]
    trimmed = node.emit(F.pad, full, torch_pads([-p for p in pads[:spatial]], ends))
    if node.optional(2) is None:
        return trimmed
    bias = node.emit(torch.reshape, node.tensor(2), (-1, *[1] * spatial))
    return node.emit(torch.add, trimmed, bias)


def _transposed_pads(
    node: NodeView, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], extra: Sequence[int]
) -> list[int]:
    """Begin and end pads of a ConvTranspose, from `output_shape` or `auto_pad` if need be."""
    spatial = len(kernel)
    auto, shape = node.text("auto_pad", "NOTSET"), node.integers("output_shape")
    if auto in ("NOTSET", "VALID") and not shape:
        return node.integers("pads") or [0] * 2 * spatial
    sizes = node.shape(node.value(0))[2:]
    if shape and not all(isinstance(n, int) for n in sizes):
        raise Unconvertible("output_shape needs an input of fixed size")
    begins, ends = [], []
    for i in range(spatial):
        reach = (kernel[i] - 1) * dilation[i] + 1 + extra[i]
        total = reach - stride[i] if not shape else stride[i] * (int(sizes[i]) - 1) + reach - shape[i]  # type: ignore[arg-type]
        small, large = total // 2, total - total // 2
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return begins + ends


def spatial_rank(node: NodeView, x: Value) -> int:
    """Number of spatial axes, one to three."""
    spatial = node.rank(x) - 2
    if spatial not in CONVOLUTIONS:
        raise Unconvertible(f"{spatial} spatial axes; 1 to 3 are supported")
    return spatial


def geometry(node: NodeView, spatial: int) -> tuple[list[int], list[int]]:
    """Strides and dilations."""
    return node.integers("strides") or [1] * spatial, node.integers("dilations") or [1] * spatial


def torch_pads(begins: Sequence[Element], ends: Sequence[Element]) -> list[Element]:
    """ONNX's begins and ends as F.pad's list: last axis first."""
    pairs = zip(reversed(begins), reversed(ends), strict=True)
    return [pad for pair in pairs for pad in pair]


def padded(
    node: NodeView,
    x: Tensor | fx.Node,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    fill: float = 0.0,
) -> tuple[Tensor | fx.Node, tuple[int, ...]]:
    """Padding that torch's function takes itself, after padding the input where begin and end differ."""
    begins, ends = pads_of(node, x, kernel, stride, dilation)
    if begins == ends and all(isinstance(p, int) and p >= 0 for p in begins):
        return x, tuple(int(p) for p in begins)  # type: ignore[arg-type]
    return node.emit(F.pad, x, torch_pads(begins, ends), "constant", fill), (0,) * len(kernel)


def pads_of(
    node: NodeView, x: Value, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[Element], list[Element]]:
    """Begin and end pads per spatial axis by `pads` or `auto_pad`."""
    spatial, auto = len(kernel), node.text("auto_pad", "NOTSET")
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        given = node.integers("pads") if auto in ("NOTSET", "") else None
        pads: list[Element] = list(given or [0] * 2 * spatial)
        return pads[:spatial], pads[spatial:]
    begins: list[Element] = []
    ends: list[Element] = []
    for i, length in enumerate(node.shape(x)[2:]):
        total = node.emit(same_padding, length, kernel[i], stride[i], dilation[i])
        small, large = node.emit(python.floordiv, total, 2), node.emit(half_up, total)
        begins.append(small if auto == "SAME_UPPER" else large)
        ends.append(large if auto == "SAME_UPPER" else small)
    return begins, ends


def same_padding(length: int, kernel: int, stride: int, dilation: int) -> int:
    """Total padding of one axis so that the output has ceil(length / stride) elements."""
    reach = (kernel - 1) * dilation + 1
    return max(0, ((length + stride - 1) // stride - 1) * stride + reach - length)


def half_up(total: int) -> int:
    """The larger half of a padding."""
    return total - total // 2
