"""Student architectures: standardized images `[N, C, H, W]`, or token ids, to logits `[N, K]`, each with a width.

It holds no pretrained weights and does not try to be a model zoo: `module:factory` brings any other network. Each can
also be the trunk of `headers.MultiHeader`: `stages`, `tail` and `drop_tail` are what that asks for.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """`channels` times `width` to the nearest `multiple`, never more than a tenth less (MobileNet's rounding)."""
    wanted = channels * width
    rounded = max(multiple, int(wanted + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * wanted else rounded


class LeNet5(nn.Module):
    """LeNet-5 as used by DAFL (lenet.py): convolutions 6-16-120, dense 84, for images of 28 to 40 pixels.

    `width` 0.5 gives LeNet-5-Half (3-8-60, 42). Images smaller than 32 are padded with zeros (LeCun et al., 1998).
    `sizes` are channels and dense width of other ones: CDFKD's on MNIST has 2-4-60, 30 (models/lenet.py).
    """

    def __init__(
        self, channels: int, classes: int, width: float = 1.0, sizes: tuple[int, int, int, int] = (6, 16, 120, 84)
    ) -> None:
        super().__init__()
        c1, c2, c3, hidden = (scaled(c, width) for c in sizes)
        self.conv1 = nn.Conv2d(channels, c1, 5)
        self.conv2 = nn.Conv2d(c1, c2, 5)
        self.conv3 = nn.Conv2d(c2, c3, 5)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(c3, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = self.pool(self.stages(images)[-1]).flatten(1)
        logits: Tensor = self.classifier(functional.relu(self.dense(out)))
        return logits

    def stages(self, images: Tensor) -> list[Tensor]:
        """The maps of the three convolutions, the first two pooled."""
        short = max(0, 32 - images.shape[-1]), max(0, 32 - images.shape[-2])
        images = functional.pad(
            images, (short[0] // 2, short[0] - short[0] // 2, short[1] // 2, short[1] - short[1] // 2)
        )
        first = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        second = functional.max_pool2d(functional.relu(self.conv2(first)), 2)
        return [first, second, functional.relu(self.conv3(second))]

    def tail(self) -> nn.Module:
        """Average and dense layer."""
        dense = nn.Linear(self.conv3.out_channels, self.dense.out_features)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense, nn.ReLU())

    def drop_tail(self) -> None:
        """Without dense layer and classifier."""
        del self.pool, self.dense, self.classifier


class Mlp(nn.Module):
    """Three dense layers of 256 and a classifier, for rows of F features; `width` scales the 256."""

    def __init__(self, features: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        hidden = scaled(256, width, 8)
        self.first, self.second, self.third = (nn.Linear(size, hidden) for size in (features, hidden, hidden))
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits `[N, K]` of rows `[N, F]`."""
        out = functional.relu(self.second(functional.relu(self.first(rows))))
        logits: Tensor = self.classifier(functional.relu(self.third(out)))
        return logits


class TextCnn(nn.Module):
    """A convolution over embedded tokens and its greatest value over time (Kim, 2014, arXiv 1408.5882).

    One width of filter instead of three, and beside each greatest value the mean: so small an embedding has to count
    words too. `width` scales the embedding's 32 numbers and the convolution's 64 channels.
    """

    def __init__(self, vocabulary: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        numbers, channels = scaled(32, width), scaled(64, width, 8)
        self.embedding = nn.Embedding(vocabulary, numbers)
        # Torch begins with a deviation of 1, which words that were seen a few times never lose: of 1,066 validation
        # sentences of rt-polarity a student then got 69.8 % right, from 0.1 on 74.4 % (one run each, K = 1).
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.filters = nn.Conv1d(numbers, channels, 3, padding=1)
        self.classifier = nn.Linear(2 * channels, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `[N, K]` of ids `[N, T]`, each below the vocabulary."""
        found = functional.relu(self.filters(self.embedding(ids).transpose(1, 2)))
        logits: Tensor = self.classifier(torch.cat([found.amax(dim=2), found.mean(dim=2)], dim=1))
        return logits


def _pointwise(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """A 1x1 convolution with a stride.

    With fewer than 16 channels the pixels are picked first, by a pooling over one pixel, which is the same: oneDNN's
    weight gradient of the strided convolution writes out of bounds there, channels last (uxlfoundation/oneDNN#6035).
    """
    if stride == 1 or inputs >= 16:
        return [nn.Conv2d(inputs, outputs, 1, stride, bias=False)]
    return [nn.MaxPool2d(1, stride), nn.Conv2d(inputs, outputs, 1, bias=False)]


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
            self.shortcut = nn.Sequential(*_pointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.norm1(self.conv1(images)))
        return functional.relu(self.norm2(self.conv2(out)) + self.shortcut(images))


class ResNet(nn.Module):
    """A residual network: 3x3 stem, stages of basic blocks, global average, one dense layer.

    `stages` lists (channels, blocks, stride of the first block). ResNet-18 in its CIFAR form has a stem of 64 channels
    and stages (64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2).
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: float,
        stem: int,
        stages: tuple[tuple[int, int, int], ...],
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        previous = scaled(stem, width)
        self.stem = nn.Conv2d(channels, previous, 3, stem_stride, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(previous)
        layers: list[nn.Module] = []
        for size, blocks, stride in stages:
            for block in range(blocks):
                layers.append(ResidualBlock(previous, scaled(size, width), stride if block == 0 else 1))
                previous = scaled(size, width)
        self.blocks = nn.Sequential(*layers)
        self.ends = list(accumulate(blocks for _, blocks, _ in stages))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(previous, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.stages(images)[-1]).flatten(1))
        return logits

    def stages(self, images: Tensor) -> list[Tensor]:
        """The map behind the last block of each stage."""
        maps = [functional.relu(self.stem_norm(self.stem(images)))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return [maps[end] for end in self.ends]

    def tail(self) -> nn.Module:
        """The average."""
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def drop_tail(self) -> None:
        """Without the classifier."""
        del self.pool, self.classifier


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., 2018) in the hard-sigmoid form of MobileNetV3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, scaled(channels, 0.25, 8), 1)
        self.expand = nn.Conv2d(scaled(channels, 0.25, 8), channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        scale = self.expand(functional.relu(self.reduce(self.pool(images))))
        return images * functional.hardsigmoid(scale)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, squeeze and excite, project (Howard et al., 2019, MobileNetV3)."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, attention: bool, act: type[nn.Module]
    ) -> None:
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.layers = nn.Sequential(
            *([nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act()] if hidden != inputs else []),
            *(depthwise, nn.BatchNorm2d(hidden), act()),
            *([SqueezeExcite(hidden)] if attention else []),
            *(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layers(images)
        return images + out if self.shortcut else out


class MobileNetV3Small(nn.Module):
    """MobileNetV3-Small (Howard et al., 2019, table 2); images under 64 pixels skip the first two halvings."""

    STEM = 3
    # kernel, expanded, out, squeeze-and-excite, hard-swish, stride
    BLOCKS = (
        *((3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1)),
        *((5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1)),
        *((5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2)),
        *((5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1)),
    )

    def __init__(self, channels: int, classes: int, width: float, small_images: bool) -> None:
        super().__init__()
        previous = scaled(16, width, 8)
        first = 1 if small_images else 2
        layers: list[nn.Module] = [nn.Conv2d(channels, previous, 3, first, 1, bias=False), nn.BatchNorm2d(previous)]
        layers.append(nn.Hardswish())
        for index, (kernel, hidden, out, attention, hard, stride) in enumerate(self.BLOCKS):
            sizes = scaled(hidden, width, 8), scaled(out, width, 8)
            act = nn.Hardswish if hard else nn.ReLU
            layers.append(InvertedResidual(previous, *sizes, kernel, first if index == 0 else stride, attention, act))
            previous = sizes[1]
        self.last = previous, scaled(576, width, 8), scaled(1024, width, 8)
        self.features = nn.Sequential(*layers, *self._widened())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(*self.last[1:])
        self.classifier = nn.Linear(self.last[2], classes)

    def _widened(self) -> tuple[nn.Module, ...]:
        """The last convolution."""
        return nn.Conv2d(*self.last[:2], 1, bias=False), nn.BatchNorm2d(self.last[1]), nn.Hardswish()

    def forward(self, images: Tensor) -> Tensor:
        out = self.pool(self.features(images)).flatten(1)
        logits: Tensor = self.classifier(functional.hardswish(self.dense(out)))
        return logits

    def stages(self, images: Tensor) -> list[Tensor]:
        """The map behind the last block of each resolution, the stem's left out."""
        layers = list(self.features)[: self.STEM + len(self.BLOCKS)]
        out = images
        for layer in layers[: self.STEM + 1]:
            out = layer(out)
        maps = [out]
        for block in layers[self.STEM + 1 :]:
            out = block(maps[-1])
            maps[len(maps) - (out.shape[-2:] == maps[-1].shape[-2:]) :] = [out]
        return maps

    def tail(self) -> nn.Module:
        """Last convolution, average and dense layer."""
        dense = nn.Linear(*self.last[1:])
        return nn.Sequential(*self._widened(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense, nn.Hardswish())

    def drop_tail(self) -> None:
        """Without last convolution, dense layer and classifier."""
        self.features = nn.Sequential(*list(self.features)[: self.STEM + len(self.BLOCKS)])
        del self.pool, self.dense, self.classifier
