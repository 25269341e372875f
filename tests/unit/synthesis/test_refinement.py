"""Refining: images go down a loss by as much as was said, and stay images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.synthesis.refinement import STEP, refined
from edgekd.teachers.codes import from_codes, to_codes

GREY = torch.full((2, 3, 4, 4), 128 / 255)


def darkness(images: Tensor) -> Tensor:
    return images.sum()


def test_every_pixel_goes_down_the_loss_by_a_fiftieth_of_the_range_in_each_step() -> None:
    found = refined(GREY, darkness, 4, 0.0, 1.0)
    assert torch.allclose(GREY - found, torch.full_like(GREY, 4 * STEP), atol=1 / 255)
    assert torch.equal(GREY, torch.full_like(GREY, 128 / 255))
    assert not found.requires_grad


def test_they_stay_in_the_range_of_each_channel_and_on_the_grid_of_their_codes() -> None:
    low, high = (-1.0, 0.0, 2.0), (1.0, 10.0, 3.0)
    images = from_codes(torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8), low, high)
    found = refined(images, darkness, 60, low, high)
    assert torch.equal(found, torch.tensor(low).view(-1, 1, 1).expand_as(found))
    halfway = refined(images, darkness, 7, low, high)
    assert torch.allclose(halfway, from_codes(to_codes(halfway, low, high), low, high), atol=1e-6)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_loss_is_asked_about_what_a_teacher_would_be_shown(steps: int) -> None:
    shown: list[Tensor] = []

    def noted(images: Tensor) -> Tensor:
        shown.append(images.detach())
        return (images - 1).square().sum()

    refined(GREY, noted, steps, 0.0, 1.0)
    assert len(shown) == steps
    for images in shown:
        assert torch.allclose(images, from_codes(to_codes(images, 0.0, 1.0), 0.0, 1.0), atol=1e-6)


def test_what_the_loss_does_not_see_stays() -> None:
    found = refined(GREY, lambda images: images[:, 0].sum(), 2, 0.0, 1.0)
    assert torch.allclose(found[:, 1:], GREY[:, 1:], atol=1e-6)
    assert bool((found[:, 0] < GREY[:, 0]).all())
