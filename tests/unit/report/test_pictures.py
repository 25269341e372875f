"""Pictures are what a decoder that is not ours reads out of them."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from edgekd.report import pictures


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGBA"
        return np.asarray(image)


def test_a_png_is_read_back_pixel_by_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(5, 7, 4), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(pictures.png(pixels)), pixels)


def test_a_strip_holds_its_images_in_order_with_transparent_gaps() -> None:
    images = np.random.default_rng(1).integers(0, 256, size=(3, 3, 4, 4), dtype=np.uint8)
    node = pictures.strip(images, "three", columns=2)
    shown = decoded(base64.b64decode(node.get("src", "").partition(",")[2]))
    assert shown.shape == (9, 9, 4)
    for number, (top, left) in enumerate([(0, 0), (0, 5), (5, 0)]):
        square = shown[top : top + 4, left : left + 4]
        np.testing.assert_array_equal(square[..., :3].transpose(2, 0, 1), images[number])
        assert (square[..., 3] == 255).all()
    assert not shown[4].any()
    assert not shown[5:, 5:].any()
    assert node.get("alt") == "three"


def test_channels_that_are_no_colours_show_the_first() -> None:
    images = np.stack([np.full((2, 2), 9), np.full((2, 2), 200)])[None].astype(np.uint8)
    assert (pictures.coloured(images)[..., :3] == 9).all()


def test_large_images_become_means_of_squares() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    small = pictures.smaller(image, 4)
    assert small.shape == (1, 1, 4, 4)
    assert small[0, 0, 0, 0] == round(np.mean([0, 1, 8, 9]))
    assert pictures.smaller(np.zeros((1, 1, 1, 100), np.uint8), 10).shape[2:] == (1, 10)
    np.testing.assert_array_equal(pictures.smaller(image, 8), image)


def test_filters_are_grey_at_zero_and_each_in_its_own_range() -> None:
    weights = np.array([[[[0.0, 1.0]]], [[[-4.0, 2.0]]], [[[0.0, 0.0]]]])
    np.testing.assert_array_equal(pictures.filters(weights, 9)[:, 0, 0], [[128, 255], [0, 191], [128, 128]])
    assert pictures.filters(np.ones((9, 3, 2, 2)), 4).shape == (4, 3, 2, 2)
    assert pictures.filters(np.ones((2, 64, 2, 2)), 4).shape == (2, 1, 2, 2)


def test_long_lists_say_how_many_more() -> None:
    assert pictures.listed(["a", "b"]) == "a, b"
    assert pictures.listed([str(k) for k in range(1008)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 1,000 more"
