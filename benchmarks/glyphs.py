"""Printed characters: those of the fonts that come with matplotlib, turned, sized and moved at random.

Data sets that anybody can make again, byte by byte with the same matplotlib and Pillow: capital letters, small Greek
ones, and signs in colours on grounds of other colours. Those to test are of fonts that no training image is of.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

DRAWN = 4
"""How many times larger a character is drawn before it is made as small as its image."""


@dataclass(frozen=True)
class Alphabet:
    """Characters, one a class, and the fonts that have them all."""

    characters: str
    training: tuple[str, ...]
    test: tuple[str, ...]
    side: int = 28
    coloured: bool = False

    def images(self, fonts: tuple[str, ...], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` of them, uint8 `[N, 1 or 3, side, side]`, and which they are, int64 `[N]`, 0 for the first."""
        random = np.random.default_rng(seed)
        labels = random.integers(len(self.characters), size=count)
        drawn = [
            _drawn(self.characters[label], fonts[random.integers(len(fonts))], self.side, random) for label in labels
        ]
        images = np.stack(drawn)[:, None]
        return (_coloured(images, random) if self.coloured else images), labels.astype(np.int64)


_SANS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono")
_SERIF = ("DejaVuSerif", "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBolIta", "STIXGeneralItalic")
LETTERS = Alphabet(
    string.ascii_uppercase,
    (*_SANS, "DejaVuSansMono-BoldOblique", *_SERIF, "cmr10", "cmss10", "cmti10"),
    ("DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralBol", "cmb10", "cmtt10"),
)
GREEK = Alphabet(
    "αβγδεζηθικλμνξοπρστυφχψω",
    (*_SANS, "DejaVuSansMono-BoldOblique", *_SERIF),
    ("DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralBol"),
)
SIGNS = Alphabet("☀☁☂☃☎☠☢☮☯♔♘♣♥♪⚓⚑⚙✂✈✎", _SANS, ("DejaVuSansMono-Bold", "DejaVuSans-BoldOblique"), 32, True)


def _drawn(character: str, font: str, width: int, random: np.random.Generator) -> np.ndarray:
    """White on black."""
    side = width * DRAWN
    image = Image.new("L", (side, side))
    size = side * random.uniform(0.6, 0.9)
    at = tuple(side / 2 + side * random.uniform(-0.08, 0.08, 2))
    ImageDraw.Draw(image).text(at, character, fill=255, font=_font(font, size), anchor="mm")
    turned = image.rotate(random.uniform(-15, 15), Image.Resampling.BILINEAR)
    return np.asarray(turned.resize((width, width), Image.Resampling.BOX))


def _coloured(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """In a colour, on a ground of another, with noise."""
    share = images / 255
    ink, ground = random.uniform(0, 255, (2, len(images), 3, 1, 1))
    ink = np.where(np.abs(ink - ground).max(1, keepdims=True) < 96, 255 - ground, ink)
    noise = random.normal(0, 10, (len(images), 3, *images.shape[2:]))
    found: np.ndarray = np.rint(share * ink + (1 - share) * ground + noise).clip(0, 255).astype(np.uint8)
    return found


def _font(name: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / f"fonts/ttf/{name}.ttf", size)
