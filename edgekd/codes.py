"""Images out of the bytes they are stored as, in numpy: what held-out images, labelled ones and questions are kept in.

Token ids are stored as the whole numbers they are: int32, where images are uint8.

Training does the same in torch, in `teachers/codes.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Layout = Literal["NCHW", "NHWC", "NF", "NT"]
"""Order of the axes of an input; NF: rows of F features, which edgekd holds as images of F channels and one pixel; NT:
sequences of T token ids, held likewise, the ids as the float32 numbers that they are."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Bound = float | Sequence[float]
"""An end of a range: one number, or one for every channel, as the features of a table have."""


IDS: Layout = "NT"
MOST_IDS = 2**24
"""Ids that float32 can tell apart."""
Codes = NDArray[np.uint8] | NDArray[np.int32]
CodeType = Literal["uint8", "int32"]


def stored_as(layout: str) -> CodeType:
    """The type of the codes of what has a layout: bytes of images and rows, ids as they are."""
    return "int32" if layout == IDS else "uint8"


def vocabulary(layout: str, high: Bound) -> int | None:
    """How many token ids there are, from 0, where an input takes such; None where it does not."""
    return int(extent(0.0, high)[1]) + 1 if layout == IDS else None


def from_codes(codes: Codes, low: Bound, high: Bound) -> NDArray[np.float32]:
    """float32 images of codes `[N, C, H, W]`, of that shape: of uint8 0 is low and 255 high; ids stay as they are."""
    if codes.dtype != np.uint8:
        return codes.astype(np.float32)
    start, end = by_channel(low), by_channel(high)
    images: NDArray[np.float32] = start + codes.astype(np.float32) * np.float32((end - start) / 255)
    return images.astype(np.float32)


def to_codes(images: NDArray[np.float32], low: Bound, high: Bound, kind: CodeType = "uint8") -> Codes:
    """Codes of float32 images of the same shape, the nearest ones; what is beyond the range is cut off."""
    start, end = by_channel(low), by_channel(high)
    if kind == "int32":
        return np.rint(images).clip(start, end).astype(np.int32)
    codes: Codes = np.rint((images - start) * (255 / (end - start))).clip(0, 255).astype(np.uint8)
    return codes


def by_channel(bound: Bound) -> Any:
    """An end of a range so that it goes with images `[N, C, H, W]`: the number, or float32 `[C, 1, 1]`."""
    return bound if isinstance(bound, float | int) else np.asarray(bound, np.float32).reshape(-1, 1, 1)


def extent(low: Bound, high: Bound) -> tuple[float, float]:
    """The least and the largest value that there is in any channel."""
    return float(np.min(low)), float(np.max(high))
