"""Folded batch normalization is found where it was, in the files of both exporters, by the native module's outputs."""

from __future__ import annotations

import onnx
import pytest
import torch
from nets import NETS, build
from test_exports import export
from torch import Tensor, nn

from edgekd.onnx_import import import_onnx
from edgekd.teachers.points import channel_axes, folded_points

NEVER_NORMALIZED = {"LeNet": 2, "UNet": 2}
"""Biased layers before an activation that never had batch normalization, which the file cannot tell."""


class Bottleneck(nn.Module):
    """A linear bottleneck that leads into the next convolution, and squeeze-and-excite on a normalized output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, 1, 1, bias=False) for _ in range(3))
        self.norm_a, self.norm_b, self.norm_c = (nn.BatchNorm2d(4) for _ in range(3))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_b(self.b(self.norm_a(self.a(x))))
        y = y * torch.sigmoid(self.gate(y))[:, :, None, None]
        return nn.functional.gelu(self.norm_c(self.c(y)), approximate="tanh").mean((2, 3))


def normalized(net: nn.Module, example: Tensor) -> list[Tensor]:
    """What the batch normalization layers of a net put out."""
    seen: list[Tensor] = []
    layers = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(lambda _module, _inputs, y: seen.append(y)) for layer in layers]
    net(example)
    for hook in hooks:
        hook.remove()
    return seen


def transpose_before_bias(model: onnx.ModelProto) -> None:
    """As converters from channels last leave it: the bias of a convolution is added behind a Transpose."""
    nodes, node = list(model.graph.node), onnx.helper.make_node
    del model.graph.node[:]
    for layer in nodes:
        if layer.op_type != "Conv" or len(layer.input) < 3:
            model.graph.node.append(layer)
            continue
        bias, end = layer.input.pop(), layer.output[0]
        layer.output[0] = f"{end}_first"
        behind = [
            node("Transpose", [f"{end}_first"], [f"{end}_last"], perm=[0, 2, 3, 1]),
            node("Add", [f"{end}_last", bias], [f"{end}_biased"]),
            node("Transpose", [f"{end}_biased"], [end], perm=[0, 3, 1, 2]),
        ]
        model.graph.node.extend([layer, *behind])


def check(net: nn.Module, example: Tensor, *, dynamo: bool, others: int, channels_last: bool = False) -> None:
    """Every normalized output is a point, and `others` points are none."""
    model = export(net, example, dynamo=dynamo, opset=18)
    if channels_last:
        transpose_before_bias(model)
    points = folded_points(model)
    axes = channel_axes(model, points)
    assert axes == [3 if point.endswith("_biased") else 1 for point in points]
    assert not channels_last or 3 in axes
    tensors = import_onnx(model, points)(example) if points else ()
    tensors = tuple(x.movedim(axis, 1) for x, axis in zip(tensors, axes, strict=True))
    wanted = normalized(net, example)
    same = [[x.shape == y.shape and torch.allclose(x, y, rtol=1e-4, atol=1e-4) for x in tensors] for y in wanted]
    assert all(sum(row) == 1 for row in same)
    assert len(points) == len(wanted) + others


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_every_folded_output_is_found(name: str, dynamo: bool) -> None:
    net, example = build(name)
    check(net, example, dynamo=dynamo, others=NEVER_NORMALIZED.get(name, 0))


@pytest.mark.parametrize("name", ["LeNet", "ResNet", "MobileNetV3", "UNet"])
def test_every_folded_output_is_found_behind_a_transposition(name: str) -> None:
    net, example = build(name)
    check(net, example, dynamo=False, others=NEVER_NORMALIZED.get(name, 0), channels_last=True)


@pytest.mark.parametrize("dynamo", [False, True])
def test_linear_bottlenecks_and_gates(dynamo: bool) -> None:
    torch.manual_seed(0)
    net = Bottleneck().requires_grad_(False)
    net.train()(torch.randn(8, 4, 6, 6))
    check(net.eval(), torch.randn(2, 4, 6, 6), dynamo=dynamo, others=0)


def test_kept_batch_normalization_leaves_no_points() -> None:
    net, example = build("ResNet")
    model = export(net, example, dynamo=True, opset=18, optimize=False)
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}
    assert folded_points(model) == ()
