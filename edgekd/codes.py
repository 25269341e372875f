"""Images out of the bytes they are stored as, in numpy: what held-out images, labelled ones and questions are kept in.

Training does the same in torch, in `teachers/codes.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Layout = Literal["NCHW", "NHWC", "NF"]
"""Order of the axes of an input; NF: rows of F features, which edgekd holds as images of F channels and one pixel."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Bound = float | Sequence[float]
"""An end of a range: one number, or one for every channel, as the features of a table have."""


def from_codes(codes: NDArray[np.uint8], low: Bound, high: Bound) -> NDArray[np.float32]:
    """float32 images of uint8 codes `[N, C, H, W]`, of the same shape: 0 is low, 255 is high."""
    start, end = by_channel(low), by_channel(high)
    images: NDArray[np.float32] = start + codes.astype(np.float32) * np.float32((end - start) / 255)
    return images.astype(np.float32)


def to_codes(images: NDArray[np.float32], low: Bound, high: Bound) -> NDArray[np.uint8]:
    """uint8 codes of float32 images of the same shape, the nearest ones; what is beyond the range is cut off."""
    start, end = by_channel(low), by_channel(high)
    codes: NDArray[np.uint8] = np.rint((images - start) * (255 / (end - start))).clip(0, 255).astype(np.uint8)
    return codes


def by_channel(bound: Bound) -> Any:
    """An end of a range so that it goes with images `[N, C, H, W]`: the number, or float32 `[C, 1, 1]`."""
    return bound if isinstance(bound, float | int) else np.asarray(bound, np.float32).reshape(-1, 1, 1)


def extent(low: Bound, high: Bound) -> tuple[float, float]:
    """The least and the largest value that there is in any channel."""
    return float(np.min(low)), float(np.max(high))
