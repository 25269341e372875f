"""Procedural images: right shape and range, varied, and the same for the same seed."""

import pytest
import torch

from edgekd.synthesis import priors


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 48)])
def test_images_fill_the_asked_shape_and_range(shape):
    torch.manual_seed(0)
    images = priors.draw(600, shape)
    assert images.shape == (600, *shape)
    assert images.isfinite().all()
    assert 0.0 <= images.min() < 0.02
    assert 0.9 < images.max() <= 1.0


@pytest.mark.parametrize("family", priors.FAMILIES)
def test_every_family_varies_between_images_and_within_them(family):
    torch.manual_seed(0)
    images = family(64, (3, 24, 24))
    assert images.flatten(1).std(dim=1).median() > 0.02
    assert images.std(dim=0).min() > 0.01


def test_the_seed_decides():
    torch.manual_seed(7)
    first = priors.draw(40, (1, 16, 16))
    torch.manual_seed(7)
    assert torch.equal(first, priors.draw(40, (1, 16, 16)))
