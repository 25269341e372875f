"""WRN-40-2 and WRN-16-2 (Zagoruyko and Komodakis, 2016), the pair that data-free methods report beside ResNets.

`edgekd distill … --student wide_resnet:wrn_16_2`, started in this folder, takes a student from here.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    """Batch norm and rectifier before each of two 3x3 convolutions, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm_a, self.norm_b = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv_a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv_b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        active = functional.relu(self.norm_a(inputs))
        out: Tensor = self.conv_b(functional.relu(self.norm_b(self.conv_a(active))))
        return out + (inputs if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """`depth` = 6 n + 4 layers: three stages of n blocks with 16, 32 and 64 times `widen` channels."""

    def __init__(self, channels: int, classes: int, depth: int, widen: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 16
        for stage in range(3):
            outputs = 16 * 2**stage * widen
            for index in range((depth - 4) // 6):
                blocks.append(_Block(inputs, outputs, 2 if stage and not index else 1))
                inputs = outputs
        self.stem, self.blocks = nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.Sequential(*blocks)
        self.norm, self.classifier = nn.BatchNorm2d(inputs), nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.norm(self.blocks(self.stem(images))))
        logits: Tensor = self.classifier(out.mean((2, 3)))
        return logits


def wrn_40_2(shape: tuple[int, int, int], classes: int, _: float = 1.0) -> nn.Module:
    """The teacher: 2.24 M parameters."""
    return WideResNet(shape[0], classes, 40, 2)


def wrn_16_2(shape: tuple[int, int, int], classes: int, _: float = 1.0) -> nn.Module:
    """The student: 0.69 M parameters."""
    return WideResNet(shape[0], classes, 16, 2)
