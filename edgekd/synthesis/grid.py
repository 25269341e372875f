"""Pictures of generated images: one row per class, or two per label, as the teacher names them."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from edgekd.run_folder import atomic

COLUMNS, ROWS, GAP = 10, 20, 2


def write_grid(path: Path, codes: Tensor, chosen: Tensor) -> None:
    """Write a PNG of `[N, C, H, W]` uint8 images in rows by bool `[N, O]`: the newest ten of each option chosen.

    Only the first twenty options are shown; one without an image leaves its row dark. Of rows of a table, which are
    images of one pixel, nothing is written.
    """
    channels, height, width = codes.shape[1:]
    if height * width == 1:
        return
    rows = min(chosen.shape[1], ROWS)
    sheet = torch.zeros(3, rows * (height + GAP) - GAP, COLUMNS * (width + GAP) - GAP, dtype=torch.uint8)
    for row in range(rows):
        for column, image in enumerate(codes[chosen[:, row]][-COLUMNS:].flip(0)):
            top, left = row * (height + GAP), column * (width + GAP)
            colours = image if channels == 3 else image[:1].expand(3, height, width)
            sheet[:, top : top + height, left : left + width] = colours
    scale = max(1, 56 // height)
    picture = Image.fromarray(sheet.permute(1, 2, 0).contiguous().cpu().numpy())
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    encoded = io.BytesIO()
    picture.save(encoded, format="PNG")
    with atomic(path) as file:
        file.write(encoded.getvalue())
