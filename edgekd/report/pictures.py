"""Images as PNG inside a page: strips of generated ones, means, filters.

The encoder is written out because a report is made where edgekd is installed without its extras, and so without Pillow:
a PNG is a header and rows that zlib has packed.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.tags import Node, tag

Pixels = NDArray[np.uint8]
GAP = 1


def png(pixels: Pixels) -> bytes:
    """uint8 `[H, W, 4]`, red, green, blue and opacity, as a file (PNG, third edition; colour type 6)."""
    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def picture(pixels: Pixels, alt: str, scale: float = 1.0) -> Node:
    """An image of the page; one pixel becomes `scale` of the screen's, and fewer where the screen is narrow."""
    height, width = pixels.shape[:2]
    return embedded(png(pixels), alt, width=round(width * scale), height=round(height * scale))


def embedded(content: bytes, alt: str, **size: int) -> Node:
    """A PNG as an image of the page, of its own size if none is told."""
    return tag("img", src="data:image/png;base64," + base64.b64encode(content).decode(), alt=alt, **size)


def coloured(images: Pixels) -> Pixels:
    """uint8 `[N, C, H, W]` as `[N, H, W, 4]`: three channels are colours, of any other number the first is shown."""
    shown = images if images.shape[1] == 3 else np.repeat(images[:, :1], 3, axis=1)
    opaque = np.full((len(images), 1, *images.shape[2:]), 255, np.uint8)
    return np.ascontiguousarray(np.concatenate([shown, opaque], axis=1).transpose(0, 2, 3, 1))


def smaller(images: Pixels, side: int) -> Pixels:
    """`[N, C, H, W]` with neither side longer than `side`, by the mean of squares."""
    step = -(-max(images.shape[2:]) // side)
    if step <= 1 or not len(images):
        return images
    count, channels, height, width = images.shape
    tall, wide = height // step, width // step
    if not tall or not wide:
        return images[:, :, :side, :side]
    squares = images[:, :, : tall * step, : wide * step].reshape(count, channels, tall, step, wide, step)
    shrunk: Pixels = squares.mean(axis=(3, 5)).round().astype(np.uint8)
    return shrunk


def sheet(images: Pixels, columns: int) -> Pixels:
    """`[N, H, W, 4]` side by side in rows, nothing between them; places that stay empty are transparent."""
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    whole = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        whole[top : top + height, left : left + width] = image
    return whole


def mean_image(images: Pixels) -> Pixels:
    """The mean of `[N, C, H, W]`, `[1, C, H, W]`."""
    mean: Pixels = images.mean(axis=0, keepdims=True).round().astype(np.uint8)
    return mean


def filters(weights: NDArray[np.floating], most: int) -> Pixels:
    """Filters `[O, I, h, w]` of a first layer as images `[n, 3 or 1, h, w]`: 0 is grey, each in its own range.

    Of three channels their colours, of any other number their mean.
    """
    some = np.asarray(weights[:most], np.float64)
    some = some if some.shape[1] == 3 else some.mean(axis=1, keepdims=True)
    reach = np.abs(some).max(axis=(1, 2, 3), keepdims=True)
    shown: Pixels = (127.5 + 127.5 * some / np.where(reach > 0, reach, 1)).round().astype(np.uint8)
    return shown


def strip(images: Pixels, alt: str, *, columns: int, side: int = 28, at_most: int = 64) -> Node:
    """Images `[N, C, H, W]` in rows, each about `side` pixels of the screen, stored with `at_most`."""
    stored = coloured(smaller(images, at_most))
    return picture(sheet(stored, columns), alt, side / max(stored.shape[1:3]))


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in a sentence, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")
