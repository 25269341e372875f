"""Procedural images: what pictures have in common before anyone says of what.

Four families, each after a known model of natural images: multi-octave value noise (a 1/f spectrum), dead leaves
(occluding shapes; Lee, Mumford and Huang 2001), shapes on a plain ground, and strokes. All parameters are drawn at
random, dark and bright grounds alike; nothing here knows a data set. `draw` mixes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Shape = tuple[int, int, int]


def draw(count: int, shape: Shape, shares: Tensor | None = None) -> Tensor:
    """`count` images `[count, C, H, W]` in [0, 1], by torch's global random state.

    Args:
        count, shape: how many, and `(C, H, W)`.
        shares: of each family, as drawn and inverted, `[families, 2]`; without them a quarter of each, half inverted.
    """
    if shares is None:
        quarter = math.ceil(count / len(FAMILIES))
        images = torch.cat([family(quarter, shape) for family in FAMILIES])[torch.randperm(len(FAMILIES) * quarter)]
        return _developed(images[:count])
    kinds = torch.multinomial(shares.flatten(), count, replacement=True).sort().values
    counts = kinds.bincount(minlength=shares.numel()).view(-1, 2).sum(1).tolist()
    images = torch.cat([family(own, shape) for family, own in zip(FAMILIES, counts, strict=True) if own])
    order = torch.randperm(count)
    return _developed(images[order], (kinds[order] % 2 == 1).view(-1, 1, 1, 1))


def _uniform(*size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(size)


def _developed(images: Tensor, inverted: Tensor | None = None) -> Tensor:
    """Random contrast, brightness curve and inversion, half of the images lightly blurred; clipped to [0, 1]."""
    count = len(images)
    images = images.clamp(0, 1) ** torch.exp(_uniform(count, 1, 1, 1, low=-0.7, high=0.7))
    images = torch.where(torch.rand(count, 1, 1, 1) < 0.5 if inverted is None else inverted, 1 - images, images)
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.where(torch.rand(count, 1, 1, 1) < 0.5, blurred, images)
    return (images * _uniform(count, 1, 1, 1, low=0.5, high=1.0)).clamp(0, 1)


def value_noise(count: int, shape: Shape) -> Tensor:
    """Random grids of doubling resolution, smoothly enlarged and summed with falling weight."""
    channels, height, width = shape
    total, slope = torch.zeros(count, *shape), _uniform(count, 1, 1, 1, low=0.3, high=0.9)
    cells = 2
    while cells <= min(height, width):
        grid = torch.randn(count, channels, cells, cells)
        smooth = functional.interpolate(grid, size=(height, width), mode="bilinear", align_corners=True)
        total += smooth * slope ** math.log2(cells)
        cells *= 2
    flat = total.flatten(1)
    bottom, top = flat.amin(1).view(-1, 1, 1, 1), flat.amax(1).view(-1, 1, 1, 1)
    return (total - bottom) / (top - bottom)


def _coordinates(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, `[1, H, W]`, from -1 to 1."""
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return rows.view(1, -1, 1).expand(1, height, width), columns.view(1, 1, -1).expand(1, height, width)


def superellipses(count: int, height: int, width: int, size: tuple[float, float], spread: float) -> Tensor:
    """Masks `[N, 1, H, W]` of one rotated superellipse each: diamonds, ellipses, rounded and sharp rectangles."""
    rows, columns = _coordinates(height, width)
    one = (count, 1, 1)
    y, x = rows - _uniform(*one, low=-spread, high=spread), columns - _uniform(*one, low=-spread, high=spread)
    angle = _uniform(*one, high=math.pi)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    power = torch.exp(_uniform(*one, low=0.0, high=2.3))
    axes = [_uniform(*one, low=size[0], high=size[1]) for _ in range(2)]
    return ((u / axes[0]).abs() ** power + (v / axes[1]).abs() ** power < 1).unsqueeze(1)


def dead_leaves(count: int, shape: Shape) -> Tensor:
    """Opaque shapes of random size and colour, each over the ones before."""
    channels, height, width = shape
    images = _uniform(count, channels, 1, 1).expand(count, *shape).clone()
    for leaf in range(24):
        mask = superellipses(count, height, width, (0.08, 0.9 / (1 + leaf / 6)), 1.1)
        images = torch.where(mask, _uniform(count, channels, 1, 1), images)
    return images


def silhouettes(count: int, shape: Shape) -> Tensor:
    """One to five shapes joined or cut out, half of them mirrored, filled with noise or flat, on a plain ground."""
    _, height, width = shape
    mask = superellipses(count, height, width, (0.2, 0.9), 0.25)
    for part in range(4):
        other, kind = superellipses(count, height, width, (0.1, 0.7), 0.7), torch.rand(count, 1, 1, 1)
        mask = torch.where(kind < 0.45, mask | other, torch.where(kind < 0.65, mask & ~other, mask))
        if part == 1:
            mask = torch.where(torch.rand(count, 1, 1, 1) < 0.5, mask | mask.flip(-1), mask)
    fill = value_noise(count, shape) * _uniform(count, 1, 1, 1) + _uniform(count, 1, 1, 1, low=0.1)
    ground = _uniform(count, shape[0], 1, 1, high=0.15)
    return torch.where(mask, fill.clamp(0, 1), ground)


def strokes(count: int, shape: Shape) -> Tensor:
    """One to three soft-edged curves of random thickness on a plain ground."""
    channels, height, width = shape
    rows, columns = _coordinates(height, width)
    images = torch.zeros(count, 1, height, width)
    t = torch.linspace(0, 1, 24).view(1, -1, 1)
    basis = torch.cat([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], dim=2)
    for stroke in range(3):
        points = basis @ _uniform(count, 4, 2, low=-1.1, high=1.1)
        y, x = points[..., 0].view(count, -1, 1, 1), points[..., 1].view(count, -1, 1, 1)
        distance = ((rows.unsqueeze(1) - y) ** 2 + (columns.unsqueeze(1) - x) ** 2).amin(1, keepdim=True).sqrt()
        thickness = _uniform(count, 1, 1, 1, low=0.04, high=0.25)
        ink = ((thickness - distance) * min(height, width) / 3 + 0.5).clamp(0, 1)
        present = torch.rand(count, 1, 1, 1) < (1.0, 0.7, 0.4)[stroke]
        images = torch.where(present, torch.maximum(images, ink), images)
    colour, ground = _uniform(count, channels, 1, 1, low=0.4), _uniform(count, channels, 1, 1, high=0.2)
    return images * colour + (1 - images) * ground


FAMILIES: tuple[Callable[[int, Shape], Tensor], ...] = (value_noise, dead_leaves, silhouettes, strokes)
