"""Images that follow a gradient themselves: a few steps from where a generator, or breeding, has left them.

DeepInversion (Yin et al., 2020) goes thousands of steps, from noise. What begins as an image needs few, and keeps what
it began with: of bred images edges and plain grounds, which no generator draws that knows no statistics.
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
    """Images some signed steps down a loss, as in projected gradient descent (Madry et al., 2018).

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
