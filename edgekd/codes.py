"""Images out of the bytes they are stored as, in numpy: what held-out images, labelled ones and questions are kept in.

Training does the same in torch, in `teachers/codes.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def from_codes(codes: NDArray[np.uint8], low: float, high: float) -> NDArray[np.float32]:
    """float32 images of uint8 codes of the same shape: 0 is low, 255 is high."""
    return (low + codes.astype(np.float32) * np.float32((high - low) / 255)).astype(np.float32)


def to_codes(images: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """uint8 codes of float32 images of the same shape, the nearest ones; what is beyond the range is cut off."""
    codes: NDArray[np.uint8] = np.rint((images - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    return codes
