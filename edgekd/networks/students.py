"""Student architectures, by name and width.

Every student maps images `[N, C, H, W]` in the teacher's input range to logits `[N, K]` and standardises its own input
with fixed constants, so that the exported file takes the very tensor the teacher takes.

It does not hold pretrained weights, and it does not try to be a model zoo: `module:factory` brings any other network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """`channels` times `width`, rounded to `multiple`, at least one multiple."""
    return max(multiple, round(channels * width / multiple) * multiple)


class LeNet5(nn.Module):
    """LeNet-5 as used by DAFL (lenet.py): convolutions 6-16-120, dense 84, for images of 28 to 40 pixels.

    `width` 0.5 gives LeNet-5-Half (3-8-60, 42). Smaller images than 32 are padded to 32 with their own border value zero,
    as LeCun et al. (1998) do.
    """

    def __init__(self, channels: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, hidden = (scaled(c, width) for c in (6, 16, 120, 84))
        self.conv1 = nn.Conv2d(channels, c1, 5)
        self.conv2 = nn.Conv2d(c1, c2, 5)
        self.conv3 = nn.Conv2d(c2, c3, 5)
        self.dense = nn.Linear(c3, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        short = max(0, 32 - images.shape[-1]), max(0, 32 - images.shape[-2])
        images = functional.pad(images, (short[0] // 2, short[0] - short[0] // 2, short[1] // 2, short[1] - short[1] // 2))
        out = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        out = functional.max_pool2d(functional.relu(self.conv2(out)), 2)
        out = functional.relu(self.conv3(out)).mean(dim=(2, 3))
        return self.classifier(functional.relu(self.dense(out)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization and a shortcut (He et al., 2016, basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.norm1(self.conv1(images)))
        return functional.relu(self.norm2(self.conv2(out)) + self.shortcut(images))


class ResNet(nn.Module):
    """A residual network: 3x3 stem at full resolution, stages of basic blocks, global average, one dense layer.

    `stages` lists (channels, blocks, stride of the first block). ResNet-18 in its CIFAR form has a stem of 64 channels
    and stages (64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2).
    """

    def __init__(
        self, channels: int, classes: int, width: float, stem: int, stages: tuple[tuple[int, int, int], ...]
    ) -> None:
        super().__init__()
        previous = scaled(stem, width)
        self.stem = nn.Conv2d(channels, previous, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(previous)
        layers: list[nn.Module] = []
        for size, blocks, stride in stages:
            for block in range(blocks):
                layers.append(ResidualBlock(previous, scaled(size, width), stride if block == 0 else 1))
                previous = scaled(size, width)
        self.blocks = nn.Sequential(*layers)
        self.classifier = nn.Linear(previous, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.stem_norm(self.stem(images)))
        return self.classifier(self.blocks(out).mean(dim=(2, 3)))
