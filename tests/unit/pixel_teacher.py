"""Teachers of classes per pixel: one that is trained in seconds on drawn shapes, and one of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edgekd.quiet import quiet

SIDE = 24


def scenes(count: int, seed: int, grid: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 `[count, 1, 24, 24]` of a bright blot and a striped one on noise; classes `[count, grid, grid]`.

    A class is that of the pixel in the middle of a cell: 0 is the ground, 1 bright, 2 striped.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images, classes = random.uniform(0, 0.4, (count, SIDE, SIDE)), np.zeros((count, SIDE, SIDE), np.int64)
    for image, labels in zip(images, classes, strict=True):
        for kind in random.permutation([1, 2]):
            centre, radius = random.uniform(5, SIDE - 5, 2), random.uniform(3, 6)
            mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
            fill = random.uniform(0.6, 1.0) * (np.ones_like(image) if kind == 1 else columns // 2 % 2)
            image[mask], labels[mask] = fill[mask], kind
    step = SIDE // grid
    middles = slice(step // 2, None, step)
    return images[:, None].astype(np.float32), classes[:, middles, middles]


class Net(nn.Module):
    """Two halvings by strided convolutions, then up again by `scale`, 1 for an answer of 6x6 pixels."""

    def __init__(self, scale: int, ending: str) -> None:
        super().__init__()
        sizes = ((1, 16, 1), (16, 32, 2), (32, 48, 2), (48, 32, 1))
        blocks = ((nn.Conv2d(a, b, 3, s, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b, s in sizes)
        self.first, *rest = (nn.Sequential(*block) for block in blocks)
        self.body = nn.Sequential(*rest)
        self.head = nn.Conv2d(32 + 16 * (scale > 1), 3, 1)
        self.scale, self.ending = scale, ending

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        out = self.body(first)
        if self.scale > 1:
            out = functional.interpolate(out, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
            out = torch.cat([out, first], dim=1)
        logits = self.head(out)
        return logits.softmax(dim=1) if self.ending == "softmax" else logits


def trained(path: Path, *, scale: int, ending: str = "", steps: int = 150) -> Net:
    """A network that has seen drawn shapes, and its file, batch normalization kept."""
    torch.manual_seed(0)
    net = Net(scale, "")
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(steps):
        images, classes = (torch.from_numpy(part) for part in scenes(32, step, SIDE * scale // 4))
        loss = functional.cross_entropy(net(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.ending = ending
    net.eval()
    dynamic = ({0: torch.export.Dim("batch")},)
    options = {"input_names": ["image"], "output_names": ["scores"], "dynamic_shapes": dynamic, "verbose": False}
    with quiet():
        program = torch.onnx.export(net, (torch.zeros(2, 1, SIDE, SIDE),), dynamo=True, optimize=False, **options)
    program.save(path)
    return net


def random_teacher(
    seed: int = 0, *, columns: int = 4, layout: str = "NCHW", ending: str = "", axis: int | None = None
) -> onnx.ModelProto:
    """`image` [N, 2, 8, 12] to `scores` [N, K, 4, 6], or with the axes of both the other way round; opset 18.

    Args:
        seed: of the weights.
        columns: K.
        layout: of input and output.
        ending: operator behind the logits.
        axis: of the ending; that of the classes, if not told.
    """
    random = np.random.default_rng(seed)
    last = layout == "NHWC"
    weights = {
        "kernel": random.normal(0, 0.6, (8, 2, 3, 3)),
        **{"scale": random.uniform(0.5, 1.5, 8), "shift": random.normal(0, 0.2, 8)},
        **{"mean": random.normal(0, 0.3, 8), "variance": random.uniform(0.2, 0.9, 8)},
        "head": random.normal(0, 2.0, (columns, 8, 1, 1)),
    }
    first, end = "turned" if last else "image", "scores" if ending else "logits"
    nodes = [helper.make_node("Transpose", ["image"], ["turned"], "turn", perm=[0, 3, 1, 2])] if last else []
    nodes += [
        helper.make_node("Conv", [first, "kernel"], ["c"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["b"], "norm"),
        helper.make_node("Relu", ["b"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "head"], ["planes" if last else "logits"], "classify"),
    ]
    if last:
        nodes.append(helper.make_node("Transpose", ["planes"], ["logits"], "back", perm=[0, 2, 3, 1]))
    if ending:
        chosen = {} if ending == "Sigmoid" else {"axis": axis if axis is not None else 3 if last else 1}
        nodes.append(helper.make_node(ending, ["logits"], ["scores"], "ending", **chosen))
    sizes = (["N", 8, 12, 2], ["N", 4, 6, columns]) if last else (["N", 2, 8, 12], ["N", columns, 4, 6])
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, sizes[0])],
        [helper.make_tensor_value_info(end, TensorProto.FLOAT, sizes[1])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
