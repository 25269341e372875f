"""Images moved by a few pixels or mirrored before they are shown: the teacher's answer is asked anew each time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def moved(images: Tensor, shift: int, mirror: bool, fill: float) -> Tensor:
    """Each of `[N, C, H, W]` cut at random from itself with a border of `shift` pixels; half of them mirrored.

    Differentiable, and as random as torch's global state. The border is `fill`, in the images' own range.
    """
    count, _, height, width = images.shape
    if shift:
        padded = functional.pad(images, (shift,) * 4, value=fill).permute(0, 2, 3, 1)
        corners = torch.randint(2 * shift + 1, (2, count, 1))
        rows, columns = corners[0] + torch.arange(height), corners[1] + torch.arange(width)
        images = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if mirror:
        images = torch.where(torch.rand(count, 1, 1, 1) < 0.5, images.flip(3), images)
    return images
