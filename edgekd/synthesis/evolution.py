"""Breed procedural images by what the teacher's answers reveal: no gradient is needed, only scores.

Random procedural images fall into a few of a teacher's classes. Children of those that came nearest to a wanted class
are asked about next, and every class gets its share. Each image is asked about once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.synthesis import priors

TOURNAMENT = 64
"""Candidates of which the nearest to the wanted class becomes a parent."""


def children(codes_at: Callable[[Tensor], Tensor], scores: Tensor, count: int) -> Tensor:
    """`count` new images out of asked ones, all options wanted equally often.

    Args:
        codes_at: of the N images asked so far, the uint8 codes `[n, C, H, W]` at places `[n]`.
        scores: `[N, O]`, the log-probability of each option in the answers: a class, or a label on or off.

    Returns:
        float32 `[count, C, H, W]` in [0, 1]: two parents of one option mixed or collaged, then moved, turned, stretched
        and changed in brightness.
    """
    wanted = torch.randint(scores.shape[1], (count,))
    first, second = (codes_at(fittest(scores, wanted)).float() / 255 for _ in range(2))
    kind, share = torch.rand(count, 1, 1, 1), torch.rand(count, 1, 1, 1)
    collage = torch.where(priors.superellipses(count, first.shape[2], first.shape[3], (0.2, 0.8), 0.6), first, second)
    bred = torch.where(kind < 0.3, share * first + (1 - share) * second, torch.where(kind < 0.7, collage, first))
    return (_moved(bred) * (0.7 + 0.6 * torch.rand(count, 1, 1, 1))).clamp(0, 1)


def fittest(scores: Tensor, wanted: Tensor, among: int = TOURNAMENT) -> Tensor:
    """For every wanted class `[n]`, the index of the best of so many random candidates by scores `[N, K]`."""
    candidates = torch.randint(len(scores), (len(wanted), among))
    best = scores[candidates, wanted.unsqueeze(1)].argmax(dim=1, keepdim=True)
    return candidates.gather(1, best).squeeze(1)


def _moved(images: Tensor) -> Tensor:
    """A random affine map of each image: up to 17 degrees, a quarter in size, a thirteenth in place."""
    count = len(images)
    angle = 0.6 * torch.rand(count) - 0.3
    stretch = torch.exp(0.5 * torch.rand(count, 2) - 0.25)
    maps = torch.empty(count, 2, 3)
    maps[:, 0, 0], maps[:, 0, 1] = angle.cos() * stretch[:, 0], -angle.sin()
    maps[:, 1, 0], maps[:, 1, 1] = angle.sin(), angle.cos() * stretch[:, 1]
    maps[:, :, 2] = 0.3 * torch.rand(count, 2) - 0.15
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
