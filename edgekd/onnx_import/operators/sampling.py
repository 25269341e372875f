"""GridSample, AffineGrid, Col2Im, CenterCropPad, MaxUnpool: moves of pixels that are not plain indexing."""

from __future__ import annotations

# mypy: no-warn-return-any
# (what emit returns is up to torch)
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.onnx_import.graph import check_elements
from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.operators.convolution import torch_pads
from edgekd.onnx_import.registry import operator
from edgekd.onnx_import.values import Unconvertible, Value

_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@operator("GridSample", since=16)
def grid_sample(node: NodeView) -> Value:
    """Values at places of a grid in -1 to 1."""
    mode = node.text("mode", "linear")
    mode = _MODES.get(mode, mode)
    padding, corners = node.text("padding_mode", "zeros"), bool(node.integer("align_corners", 0))
    if node.rank(node.value(0)) not in (4, 5):
        raise Unconvertible("only two and three spatial axes are supported")
    return node.emit(F.grid_sample, node.tensor(0), node.tensor(1), mode, padding, corners)


@operator("AffineGrid", since=20)
def affine_grid(node: NodeView) -> Value:
    """A grid of places by an affine map."""
    size = [int(n) for n in node.constant(1, "size").tolist()]
    check_elements(*size)
    return node.emit(F.affine_grid, node.tensor(0), size, bool(node.integer("align_corners", 0)))


@operator("Col2Im", since=18)
def column_to_image(node: NodeView) -> Value:
    """Overlapping blocks added up to an image, two spatial axes."""
    size, block = ([int(n) for n in node.constant(i, "shape").tolist()] for i in (1, 2))
    if len(size) != 2:
        raise Unconvertible("only two spatial axes are supported")
    check_elements(*size)
    pads = node.integers("pads") or [0] * 4
    dilation, stride = node.integers("dilations") or [1, 1], node.integers("strides") or [1, 1]
    whole = [size[i] + pads[i] + pads[i + 2] for i in range(2)]
    image = node.emit(F.fold, node.tensor(0), whole, block, dilation, 0, stride)
    return node.emit(F.pad, image, (-pads[1], -pads[3], -pads[0], -pads[2]))


@operator("CenterCropPad", since=18)
def center_crop_pad(node: NodeView) -> Value:
    """The middle of each axis, or zeros around it."""
    x = node.tensor(0)
    sizes = node.elements(1)
    axes = [node.axis(x, a) for a in node.integers("axes") or range(node.rank(x))]
    check_elements(*sizes)
    for axis, size in zip(axes, sizes, strict=True):
        x = node.emit(centred, x, axis, size)
    return x


def centred(x: Tensor, axis: int, size: int) -> Tensor:
    """One axis cropped or padded to a length, evenly at both ends."""
    extra = size - x.shape[axis]
    if extra <= 0:
        return x.narrow(axis, -extra // 2, size)
    pads = [0, 0] * (x.ndim - axis - 1) + [extra // 2, extra - extra // 2]
    return F.pad(x, pads)


@operator("MaxUnpool", since=9)
def max_unpool(node: NodeView) -> Value:
    """Values put back where MaxPool found them, zeros elsewhere."""
    x, spatial = node.tensor(0), node.rank(node.value(0)) - 2
    kernel, stride = node.integers("kernel_shape") or [], node.integers("strides") or [1] * spatial
    pads = node.integers("pads") or [0] * 2 * spatial
    sizes = [n for n in node.shape(x) if isinstance(n, int)]
    if len(sizes) != spatial + 2:
        raise Unconvertible("the input must be of fixed size")
    lengths = [
        (n - 1) * s + k - pads[i] - pads[i + spatial]
        for i, (n, s, k) in enumerate(zip(sizes[2:], stride, kernel, strict=True))
    ]
    check_elements(*sizes[:2], *lengths)
    image = node.emit(unpooled, x, node.tensor(1), [*sizes[:2], *lengths])
    if node.optional(2) is None:
        return image
    wanted = [int(n) for n in node.constant(2, "output shape").tolist()][2:]
    check_elements(*wanted)
    return node.emit(F.pad, image, torch_pads([0] * spatial, [w - n for w, n in zip(wanted, lengths, strict=True)]))


def unpooled(x: Tensor, indices: Tensor, size: list[int]) -> Tensor:
    """Values written at indices into the whole flattened tensor."""
    flat = torch.zeros(size, dtype=x.dtype, device=x.device).reshape(-1)
    return flat.scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(size)


@operator("Compress", since=9)
def compress(node: NodeView) -> Value:
    """The slices along an axis whose condition holds; the condition must be known."""
    kept = node.constant(1, "condition").reshape(-1).nonzero().reshape(-1)
    x = node.tensor(0)
    if not node.has("axis"):
        return node.emit(torch.index_select, node.emit(torch.reshape, x, (-1,)), 0, kept)
    return node.emit(torch.index_select, x, node.axis(x, node.integer("axis", 0)), kept)


@operator("CumProd", since=26)
def cumulative_product(node: NodeView) -> Value:
    """Running product along an axis, maybe from the end, maybe without the element itself."""
    axis = int(node.constant(1, "axis").reshape(-1)[0])
    flags = bool(node.integer("exclusive", 0)), bool(node.integer("reverse", 0))
    return node.emit(running_product, node.tensor(0), axis, *flags)


def running_product(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Running product along an axis."""
    x = x.flip(axis) if reverse else x
    if exclusive:
        ones = torch.ones_like(x.narrow(axis, 0, 1))
        x = torch.cat([ones, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    total = torch.cumprod(x, axis, dtype=x.dtype)
    return total.flip(axis) if reverse else total
