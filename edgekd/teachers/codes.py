"""Images as bytes: what the bank stores, what the ledger knows a question by, and so what every teacher is shown."""

from __future__ import annotations

import torch
from torch import Tensor


def to_codes(images: Tensor, low: float, high: float) -> Tensor:
    """uint8 codes of images in [low, high]: 0 is low, 255 is high."""
    return ((images - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def from_codes(codes: Tensor, low: float, high: float) -> Tensor:
    """float32 images of uint8 codes: the inverse of `to_codes`, exact on its results."""
    return low + codes.float() * ((high - low) / 255)


def rounded(images: Tensor, low: float, high: float) -> Tensor:
    """Images on the grid of `to_codes`, gradient straight through: the teacher then sees what the bank stores."""
    return images + (from_codes(to_codes(images.detach(), low, high), low, high) - images).detach()
