"""The generator: latent vectors in, images in the teacher's own value range out.

It does not look at any data. What it knows of the images is the teacher's normalization, where that is known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.networks.latents import GaussianLatents, NoisyLatents

Output = Literal["tanh", "soft", "sigmoid"]


class Generator(nn.Module):
    """DAFL's generator (Chen et al., 2019, section 3.1; its code has the layers), for any image size.

    Dense layer to `2 * width` maps of about 7x7, then nearest-neighbour doublings and 3x3 convolutions up to the
    image's size, tanh, and batch normalization without parameters. That last layer gives each channel mean 0 and
    deviation 1 over a batch, which DAFL's teachers expect as input; here it is mapped on to `mean` and `std` and cut
    to [low, high], so that it also suits teachers that normalize inside their graph.

    Args:
        latents: where latent vectors of length z come from in training; an exported generator is given them.
        shape: channels, height, width of an image.
        width: maps before the last convolution; the published generator has 64.
        mean, std: per channel, in the units of [low, high].
        low, high: the range of the teacher's input.
        output: "tanh" as above; "soft", which normalizes before the tanh as well, so that it shades; or "sigmoid" from
            low to high and no normalization (NAYER).
    """

    def __init__(
        self,
        latents: GaussianLatents | NoisyLatents,
        shape: tuple[int, int, int],
        width: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        low: float,
        high: float,
        output: Output = "tanh",
    ) -> None:
        super().__init__()
        channels, *size = shape
        doublings = max(2, round(math.log2(min(size) / 8)))
        self.latents, self.latent = latents, latents.length
        self.low, self.high, self.output = low, high, output
        self.sizes = [tuple(math.ceil(side / 2**step) for side in size) for step in range(doublings, -1, -1)]
        widths = [2 * width] * doublings + [width]
        self.dense = nn.Linear(self.latent, widths[0] * math.prod(self.sizes[0]))
        # 0.8 is what the authors' code passes as eps; the paper does not tell, and it matters for training.
        self.first_norm = nn.BatchNorm2d(widths[0])
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b, eps=0.8) for b in widths[1:])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, 1, 1)
        self.before_tanh = nn.BatchNorm2d(channels, affine=False) if output == "soft" else nn.Identity()
        self.standardize = nn.BatchNorm2d(channels, affine=False)
        self.register_buffer("mean", torch.tensor(list(mean)).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).reshape(1, -1, 1, 1))

    def forward(self, latent: Tensor) -> Tensor:
        """Images `[N, C, H, W]` for latent vectors `[N, z]`."""
        out = self.dense(latent).unflatten(1, (-1, *self.sizes[0]))
        out = self.first_norm(out.contiguous(memory_format=torch.channels_last))
        for convolution, norm, size in zip(self.convolutions, self.norms, self.sizes[1:], strict=True):
            out = functional.interpolate(out, size=size, mode="nearest")
            out = functional.leaky_relu(norm(convolution(out)), 0.2)
        out = self.to_image(out).float()
        if self.output == "sigmoid":
            return self.low + (self.high - self.low) * torch.sigmoid(out)
        out = self.standardize(torch.tanh(self.before_tanh(out)))
        images: Tensor = self.get_buffer("mean") + self.get_buffer("std") * out
        return images.clamp(self.low, self.high)

    def reset(self) -> None:
        """Forget everything: all weights are drawn anew."""
        renew(self)
        self.latents.renew()


class RowGenerator(nn.Module):
    """Rows of a table: two dense layers with batch normalization, and a sigmoid between the ends of each feature.

    Args:
        latents: as of `Generator`.
        width: 16 times as many units in a layer, so that a recipe's width gives it about the time of the other one.
        low, high: the ends of each feature's range, `[F]`.
    """

    def __init__(
        self, latents: GaussianLatents | NoisyLatents, width: int, low: Sequence[float], high: Sequence[float]
    ) -> None:
        super().__init__()
        self.latents, self.latent = latents, latents.length
        sizes = (latents.length, 16 * width, 16 * width)
        hidden = ((nn.Linear(a, b), nn.BatchNorm1d(b), nn.LeakyReLU(0.2)) for a, b in itertools.pairwise(sizes))
        self.layers = nn.Sequential(*itertools.chain(*hidden), nn.Linear(sizes[-1], len(low)))
        self.register_buffer("low", torch.tensor(list(low)))
        self.register_buffer("span", torch.tensor(list(high)) - torch.tensor(list(low)))

    def forward(self, latent: Tensor) -> Tensor:
        """Rows `[N, F, 1, 1]` for latent vectors `[N, z]`."""
        rows = self.get_buffer("low") + self.get_buffer("span") * torch.sigmoid(self.layers(latent).float())
        return rows[:, :, None, None]

    def reset(self) -> None:
        """Forget everything: all weights are drawn anew."""
        renew(self)
        self.latents.renew()


def renew(network: nn.Module) -> None:
    """Draw the weights of its layers anew."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()
