"""Folded batch normalization is found where it was, in the files of both exporters, by the native module's outputs."""

from __future__ import annotations

import pytest
import torch
from nets import NETS, build
from test_exports import export
from torch import Tensor, nn

from edgekd.onnx_import import import_onnx
from edgekd.teachers.points import folded_points

NEVER_NORMALIZED = {"LeNet": 4, "MobileNetV3": 1, "UNet": 2}
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


def check(net: nn.Module, example: Tensor, *, dynamo: bool, others: int) -> None:
    """Every normalized output is a point, and `others` points are none."""
    model = export(net, example, dynamo=dynamo, opset=18)
    points = folded_points(model)
    tensors = import_onnx(model, points)(example) if points else ()
    wanted = normalized(net, example)
    same = [[x.shape == y.shape and torch.allclose(x, y, rtol=1e-4, atol=1e-4) for x in tensors] for y in wanted]
    assert all(sum(row) == 1 for row in same)
    assert len(points) == len(wanted) + others


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_every_folded_output_is_found(name: str, dynamo: bool) -> None:
    net, example = build(name)
    check(net, example, dynamo=dynamo, others=NEVER_NORMALIZED.get(name, 0))


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
