"""Capital letters of many prints: the fonts that come with matplotlib, turned, sized and moved at random.

They are a data set that anybody can make again, byte by byte with the same matplotlib and Pillow. The test letters are
of fonts that the training letters are not of.
"""

from __future__ import annotations

import string
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE, DRAWN = 28, 4
"""Pixels of an image, and how many times larger it is drawn before it is made that small."""
TRAINING = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBolIta", "STIXGeneralItalic"),
    *("cmr10", "cmss10", "cmti10"),
)
TEST = ("DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralBol", "cmb10", "cmtt10")


def letters(fonts: tuple[str, ...], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` letters, uint8 `[N, 1, 28, 28]`, white on black, and which they are, int64 `[N]`, 0 for A."""
    random = np.random.default_rng(seed)
    labels = random.integers(26, size=count)
    images = [_drawn(string.ascii_uppercase[label], fonts[random.integers(len(fonts))], random) for label in labels]
    return np.stack(images)[:, None], labels.astype(np.int64)


def _drawn(letter: str, font: str, random: np.random.Generator) -> np.ndarray:
    side = SIDE * DRAWN
    image = Image.new("L", (side, side))
    size = side * random.uniform(0.6, 0.9)
    at = tuple(side / 2 + side * random.uniform(-0.08, 0.08, 2))
    ImageDraw.Draw(image).text(at, letter, fill=255, font=_font(font, size), anchor="mm")
    turned = image.rotate(random.uniform(-15, 15), Image.Resampling.BILINEAR)
    return np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.BOX))


def _font(name: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / f"fonts/ttf/{name}.ttf", size)
