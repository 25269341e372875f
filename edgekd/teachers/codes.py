"""Images as bytes: what the bank stores, what the ledger knows a question by, and so what every teacher is shown.

Token ids are stored as they are, see `edgekd.codes`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgekd.codes import Bound, CodeType


def to_codes(images: Tensor, low: Bound, high: Bound, kind: CodeType = "uint8") -> Tensor:
    """Codes of images `[N, C, H, W]` in [low, high]: of uint8 0 is low, 255 is high; ids are rounded to whole ones."""
    start, end = spread(low, images), spread(high, images)
    if kind == "int32":
        return images.round().clamp(start, end).to(torch.int32)
    codes: Tensor = ((images - start) * (255 / (end - start))).round().clamp(0, 255).to(torch.uint8)
    return codes


def from_codes(codes: Tensor, low: Bound, high: Bound) -> Tensor:
    """float32 images of codes: the inverse of `to_codes`, exact on its results."""
    if codes.dtype != torch.uint8:
        return codes.float()
    start, end = spread(low, codes), spread(high, codes)
    images: Tensor = start + codes.float() * ((end - start) / 255)
    return images


def spread(bound: Bound, images: Tensor) -> Any:
    """An end of a range so that it goes with images `[N, C, H, W]`: the number, or `[C, 1, 1]` where they are."""
    return (
        bound
        if isinstance(bound, float | int)
        else torch.tensor(bound, dtype=torch.float32, device=images.device).view(-1, 1, 1)
    )


def within(shares: Tensor, low: Bound, high: Bound) -> Tensor:
    """Images `[N, C, H, W]` whose values are told as shares, 0 to 1, of their range."""
    start, end = spread(low, shares), spread(high, shares)
    images: Tensor = start + (end - start) * shares
    return images


def rounded(images: Tensor, low: Bound, high: Bound, kind: CodeType = "uint8") -> Tensor:
    """Images on the grid of `to_codes`, gradient straight through: the teacher then sees what the bank stores."""
    return images + (from_codes(to_codes(images.detach(), low, high, kind), low, high) - images).detach()
