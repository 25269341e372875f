"""Pictures of generated images: one row per class, as the teacher names them."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from edgekd.run_folder import atomic

COLUMNS, ROWS, GAP = 10, 20, 2


def write_grid(path: Path, codes: Tensor, logits: Tensor) -> None:
    """Write a PNG of `[N, C, H, W]` uint8 images in rows by arg-max of `[N, K]` logits: the newest ten of each class.

    Only the first twenty classes are shown; a class without an image leaves its row dark.
    """
    channels, height, width = codes.shape[1:]
    rows = min(logits.shape[1], ROWS)
    sheet = torch.zeros(3, rows * (height + GAP) - GAP, COLUMNS * (width + GAP) - GAP, dtype=torch.uint8)
    labels = logits.argmax(dim=1)
    for row in range(rows):
        for column, image in enumerate(codes[labels == row][-COLUMNS:].flip(0)):
            top, left = row * (height + GAP), column * (width + GAP)
            colours = image if channels == 3 else image[:1].expand(3, height, width)
            sheet[:, top : top + height, left : left + width] = colours
    scale = max(1, 56 // height)
    picture = Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    encoded = io.BytesIO()
    picture.save(encoded, format="PNG")
    with atomic(path) as file:
        file.write(encoded.getvalue())
