"""Images moved by a few pixels or mirrored before they are shown.

The teacher's answer is asked anew each time, but for images of bare labels that are jittered.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def motions(count: int, shift: int, mirror: bool) -> Tensor:
    """How each of `count` images is moved, int64 `[count, 3]`: rows, columns, and 1 where it is mirrored.

    Rows and columns are from 0 to 2 * `shift`. By torch's global random state, of which nothing is taken for nothing.
    """
    corners = torch.randint(2 * shift + 1, (count, 2)) if shift else torch.zeros(count, 2, dtype=torch.long)
    mirrored = torch.randint(2, (count, 1)) if mirror else torch.zeros(count, 1, dtype=torch.long)
    return torch.cat([corners, mirrored], dim=1)


def moved(images: Tensor, how: Tensor, shift: int, mirror: bool, fill: float) -> Tensor:
    """Each of `[N, C, H, W]` cut from itself with a border of `shift` pixels, and mirrored, as `motions` say.

    Differentiable. The border is `fill`, in the images' own range.
    """
    height, width = images.shape[2:]
    if shift:
        padded = functional.pad(images, (shift,) * 4, value=fill).permute(0, 2, 3, 1)
        rows, columns = how[:, :1] + torch.arange(height), how[:, 1:2] + torch.arange(width)
        places = torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]
        images = padded[places].permute(0, 3, 1, 2)
    if mirror:
        images = torch.where(how[:, 2].bool()[:, None, None, None], images.flip(3), images)
    return images


def jittered(images: Tensor, share: float, fill: float) -> Tensor:
    """Images `[N, C, H, W]`, each moved by up to a share of its shorter side, in whole pixels; the border is `fill`.

    For bare labels, which say nothing of the images near by: that these have the same label is an assumption about the
    teacher, as in all training on labels. Nobody is asked.
    """
    pixels = round(share * min(images.shape[2:]))
    return moved(images, motions(len(images), pixels, False), pixels, False, fill)
