"""Small nets of the kinds that get exported: written here, so that no model zoo is needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Sequential):
    """Two convolutions, three dense layers, for `[N, 1, 28, 28]`."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Dropout(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip


class Residual(nn.Module):
    """A basic block of ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.short = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_b(self.b(F.relu(self.norm_a(self.a(x)))))
        return F.relu(y + self.short(x))


class ResNet(nn.Sequential):
    """Three stages for `[N, 3, 32, 32]`."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 32, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip


class Inverted(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze and excite, project."""

    def __init__(self, channels: int, wide: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish())
        depthwise = nn.Conv2d(wide, wide, 5, stride, 2, groups=wide, bias=False)
        self.depth = nn.Sequential(depthwise, nn.BatchNorm2d(wide), nn.Hardswish())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 8, 1), nn.ReLU(), nn.Conv2d(8, wide, 1), nn.Hardsigmoid()
        )
        self.project = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.adds = stride == 1 and channels == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        y = self.project(y * self.gate(y))
        return x + y if self.adds else y


class MobileNetV3(nn.Sequential):
    """Three blocks for `[N, 3, 32, 32]`."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
            Inverted(8, 16, 8, 1), Inverted(8, 24, 16, 2), Inverted(16, 32, 16, 1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 32), nn.Hardswish(), nn.Linear(32, 10),
        )  # fmt: skip


class Block(nn.Module):
    """A transformer block: attention with explicit heads and a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_a, self.norm_b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(self.norm_a(x)).reshape(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.out(attended.transpose(1, 2).reshape(n, length, width))
        return x + self.mlp(self.norm_b(x))


class ViT(nn.Module):
    """Patches of 8, a class token, two blocks, for `[N, 3, 32, 32]`."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.places = nn.Parameter(torch.randn(1, 17, 32))
        self.blocks = nn.Sequential(Block(32, 4), Block(32, 4))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class ConvNeXtBlock(nn.Module):
    """Depthwise 7×7, layer norm over channels, inverted bottleneck."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(width, width, 7, 1, 3, groups=width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Sequential):
    """Two blocks for `[N, 3, 32, 32]`."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 4, 4), nn.GroupNorm(1, 16), ConvNeXtBlock(16), ConvNeXtBlock(16),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 10),
        )  # fmt: skip


class UNet(nn.Module):
    """One way down by pooling, one up by a transposed convolution and one by interpolation: classes per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.InstanceNorm2d(8, affine=True), nn.LeakyReLU(0.1))
        self.b = nn.Sequential(nn.Conv2d(8, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.PReLU(16))
        self.c = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ELU())
        self.up = nn.ConvTranspose2d(16, 16, 2, 2)
        self.d, self.e = nn.Conv2d(32, 8, 3, 1, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.avg_pool2d(b, 2))
        d = F.silu(self.d(torch.cat([self.up(c), b], 1)))
        d = F.interpolate(d, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.e(torch.cat([d, a], 1))


class Sequences(nn.Module):
    """An LSTM over a series `[N, 12, 6]`, both ways, then a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        y, _ = self.gru(y)
        return self.head(y[:, -1])


class TextClassifier(nn.Module):
    """Embeddings, two transformer blocks with a mean over the words, for tokens `[N, 16]`."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 32), nn.Embedding(64, 32)
        self.blocks, self.norm, self.head = (
            nn.Sequential(Block(32, 4), Block(32, 4)),
            nn.LayerNorm(32),
            nn.Linear(32, 4),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x)).mean(1))


IMAGE = (3, 32, 32)
NETS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "LeNet": (LeNet, (1, 28, 28)),
    "ResNet": (ResNet, IMAGE),
    "MobileNetV3": (MobileNetV3, IMAGE),
    "ViT": (ViT, IMAGE),
    "ConvNeXt": (ConvNeXt, IMAGE),
    "UNet": (UNet, IMAGE),
    "LSTM and GRU": (Sequences, (12, 6)),
    "text": (TextClassifier, (16,)),
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A net with its statistics stirred, in eval mode, and a batch of two for it."""
    torch.manual_seed(sum(map(ord, name)))
    kind, shape = NETS[name]
    net = kind()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    net.eval().requires_grad_(False)
    return net, torch.randint(0, 50, (2, *shape)) if name == "text" else torch.randn(2, *shape)
