"""Images that follow a gradient themselves, without a generator: a few steps from where they are.

DeepInversion (Yin et al., 2020) goes thousands of steps, from noise. An image that the teacher already takes for the
wanted class needs few, and keeps what a generator that knows no statistics would never draw: edges, plain grounds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgekd.codes import Bound
from edgekd.teachers.codes import rounded, spread

STEP = 0.02
"""How far every pixel moves in a step, as a share of its range."""


def refined(images: Tensor, loss: Callable[[Tensor], Tensor], steps: int, low: Bound, high: Bound) -> Tensor:
    """Images some signed steps (Goodfellow et al., 2015, eq. after 2; Madry et al., 2018) down a loss.

    Args:
        images: `[N, C, H, W]`; they are not changed.
        loss: of the images as the teacher is shown them, on the grid of their codes: a scalar.
        steps: how many.
        low, high: the range they stay in.

    Returns:
        `[N, C, H, W]`, on that grid.
    """
    start, end = spread(low, images), spread(high, images)
    found = images.detach().clone()
    for _ in range(steps):
        found.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(rounded(found, low, high)), [found])
        found = torch.clamp(found.detach() - STEP * (end - start) * gradient.sign(), start, end)
    return rounded(found, low, high)
