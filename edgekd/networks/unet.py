"""The student for the class of every pixel: standardized images `[N, C, H, W]` to logits `[N, K, h, w]`.

It is a plain U-Net of operators that every INT8 runtime has: 3x3 convolutions, nearest-neighbour doublings, joins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.networks.students import scaled

Grid = tuple[int, int]
FIRST, MOST, FEWEST = 16, 256, 8
"""Channels at width 1: of the images' own resolution, doubled at every halving, and at most; and at any width at least.
Two channels at the answer's resolution are a third quicker than eight, and can hardly tell classes apart."""
DEPTH, SMALLEST = 4, 4
"""Halvings below the answer's resolution at most, and the side in pixels that none goes below."""


class UNet(nn.Module):
    """Encoder and decoder with skip connections (Ronneberger et al., 2015), batch-normalized, sizes kept by padding.

    Every level has half the resolution of the one before and twice its channels. Down it goes by a strided convolution,
    up by repeating pixels; levels finer than the answer are not decoded. What is left between the last level and the
    answer's grid is interpolated.

    Args:
        shape: channels, height, width of an image.
        classes: K.
        width: factor on the channels; no map has fewer than `FEWEST`.
        grid: h, w of the answer.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: float, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.sizes = _halvings((shape[1], shape[2]), grid)
        self.last = max(level for level, size in enumerate(self.sizes) if level == 0 or _covers(size, grid))
        maps = [max(FEWEST, scaled(min(FIRST * 2**level, MOST), width)) for level in range(len(self.sizes))]
        inputs = [shape[0], *maps[:-1]]
        self.down = nn.ModuleList(
            _convolutions(inputs[level], maps[level], 2 if level else 1, 1 if level < self.last else 2)
            for level in range(len(maps))
        )
        self.up = nn.ModuleList(
            _convolutions(maps[level] + maps[level + 1], maps[level], 1, 2) for level in range(self.last, len(maps) - 1)
        )
        self.classifier = nn.Conv2d(maps[self.last], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, K, h, w]`."""
        out, skipped = images, list[Tensor]()
        for block in self.down:
            out = block(out)
            skipped.append(out)
        for level in range(len(self.sizes) - 2, self.last - 1, -1):
            # By a factor, not to a size: in ONNX a size holds the batch, and so would be computed at every run.
            larger = functional.interpolate(out, scale_factor=2.0, mode="nearest")
            larger = larger[:, :, : self.sizes[level][0], : self.sizes[level][1]]
            out = self.up[level - self.last](torch.cat([larger, skipped[level]], dim=1))
        logits: Tensor = self.classifier(out)
        if self.sizes[self.last] == self.grid:
            return logits
        return functional.interpolate(logits, size=self.grid, mode="bilinear", align_corners=False)


def _covers(size: Grid, grid: Grid) -> bool:
    return size[0] >= grid[0] and size[1] >= grid[1]


def _halvings(image: Grid, grid: Grid) -> list[Grid]:
    """Sizes of the levels, the image's own first."""
    sizes, below = [image], 0
    while below < DEPTH and min(sizes[-1]) >= 2 * SMALLEST:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        below += not _covers(sizes[-1], grid)
    return sizes


def _convolutions(inputs: int, outputs: int, stride: int, count: int) -> nn.Sequential:
    """3x3 convolutions, each with batch normalization and ReLU; the first has the stride."""
    layers: list[nn.Module] = []
    for index in range(count):
        first = index == 0
        layers += [nn.Conv2d(inputs if first else outputs, outputs, 3, stride if first else 1, 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
