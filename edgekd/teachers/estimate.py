"""A gradient for teachers that have none: finite differences along random directions.

`estimated` is one `torch.autograd.Function`: forward asks, backward asks again beside every image. It is to any
objective what an exact backward would be, only noisier and dearer: `directions` more questions per image.

The estimate is that of DFME (Truong et al., CVPR 2021, eq. 4) and MAZE (Kariyappa et al., CVPR 2021, eq. 6) with two
changes. Directions are signs, one 8-bit step per pixel, so that every question is an image a camera could have taken
and a server of bytes sees the difference. And what is differenced are the logits, not the loss, so that the product
with the loss's gradient is a sum over classes of what was answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Ask = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Directions:
    """Along which directions a gradient is estimated.

    Attributes:
        count: questions per image.
        coarse: side of the squares of pixels that move together; 1 moves every pixel by itself. The estimate is then of
            the gradient's mean over each square, of fewer dimensions and therefore less noisy.
        low, high: range of the images.
        step: how far a pixel is moved, in 1/255 of the range.
    """

    count: int
    coarse: int
    low: float
    high: float
    step: int = 1


def estimated(ask: Ask, images: Tensor, directions: Directions) -> Tensor:
    """Logits of images `[N, C, H, W]`, with an estimated gradient to the images.

    Args:
        ask: images to logits, without a gradient; called once now and `directions.count` times in the backward pass.
        images: on the grid of 8-bit codes.
        directions: how the gradient is estimated. The directions are drawn from torch's own random numbers.
    """
    logits: Tensor = _Estimated.apply(images, ask, directions)  # type: ignore[no-untyped-call]  # missing in the stubs
    return logits


class _Estimated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, ask: Ask, directions: Directions) -> Tensor:
        logits = ask(images)
        ctx.save_for_backward(images, logits)
        ctx.ask, ctx.directions = ask, directions
        return logits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """`mean_i <G, f(x + s v_i) - f(x)> / s * w_i`: in expectation over the v, to second order, the product G J.

        Forward differences suffice: the signs are symmetric, so that what is of second order averages out.
        """
        images, logits = ctx.saved_tensors
        directions: Directions = ctx.directions
        step = directions.step * (directions.high - directions.low) / 255
        total = torch.zeros_like(images, dtype=torch.float32)
        for _ in range(directions.count):
            signs = _signs(images, directions.coarse)
            moved = (images + step * signs).clamp(directions.low, directions.high)
            slope = (gradient.float() * (ctx.ask(moved) - logits)).flatten(1).sum(dim=1) / step
            total += slope.view(-1, 1, 1, 1) * signs
        mean = total / (directions.count * directions.coarse**2)
        return (mean * _narrowness(images, step, directions)).to(images.dtype), None, None


def _signs(images: Tensor, coarse: int) -> Tensor:
    """Random signs `[N, C, H, W]`, the same within squares of `coarse` pixels."""
    count, channels, height, width = images.shape
    rows, columns = -(-height // coarse), -(-width // coarse)
    signs = torch.randint(2, (count, channels, rows, columns)).float() * 2 - 1
    signs = signs.repeat_interleave(coarse, dim=2).repeat_interleave(coarse, dim=3)
    return signs[:, :, :height, :width].to(images.device)


def _narrowness(images: Tensor, step: float, directions: Directions) -> Tensor:
    """1, but up to 2 at the ends of the range, where a pixel can move one way only, and so half as far on average."""
    up, down = (directions.high - images).clamp(max=step), (images - directions.low).clamp(max=step)
    return 2 * step / (up + down)
