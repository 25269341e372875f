"""Images out of the bytes they are stored as, in numpy: what held-out images, labelled ones and questions are kept in.

It makes no bytes out of images: only training does that, in torch, in `teachers/codes.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def from_codes(codes: NDArray[np.uint8], low: float, high: float) -> NDArray[np.float32]:
    """float32 images of uint8 codes of the same shape: 0 is low, 255 is high."""
    return (low + codes.astype(np.float32) * np.float32((high - low) / 255)).astype(np.float32)
