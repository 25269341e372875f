"""Images moved and mirrored: every pixel is where a cut from the bordered image puts it."""

import torch

from edgekd.synthesis.motion import jittered, motions
from edgekd.synthesis.motion import moved as moved_as


def moved(images: torch.Tensor, shift: int, mirror: bool, fill: float) -> torch.Tensor:
    return moved_as(images, motions(len(images), shift, mirror), shift, mirror, fill)


def test_nothing_asked_is_nothing_done():
    images = torch.rand(3, 2, 5, 4)
    before = torch.get_rng_state()
    assert moved(images, 0, False, 0.0) is images
    assert torch.equal(torch.get_rng_state(), before)


def test_every_image_is_a_cut_of_its_own_with_a_border():
    torch.manual_seed(0)
    images = torch.rand(200, 2, 5, 4)
    found = moved(images, 2, False, -3.0)
    assert found.shape == images.shape
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), value=-3.0)
    cuts = torch.stack([padded[:, :, y : y + 5, x : x + 4] for y in range(5) for x in range(5)])
    hits = (cuts == found).flatten(2).all(2)
    assert hits.sum(0).eq(1).all()
    assert hits.any(1).all()  # all 25 places are used


def test_half_are_mirrored():
    torch.manual_seed(0)
    images = torch.rand(400, 1, 3, 3)
    found = moved(images, 0, True, 0.0)
    mirrored = (found == images.flip(3)).flatten(1).all(1)
    kept = (found == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250


def test_gradients_come_back_to_the_pixels_they_went_out_from():
    images = torch.rand(2, 1, 4, 4, dtype=torch.double, requires_grad=True)

    def seeded(values: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return moved(values, 1, True, 0.0)

    assert torch.autograd.gradcheck(seeded, (images,))


def test_an_image_is_jittered_by_a_share_of_its_side_and_no_further():
    torch.manual_seed(0)
    images = torch.zeros(400, 1, 10, 10)
    images[:, :, 5, 5] = 1
    found = jittered(images, 0.2, 0.0)
    places = {tuple(place) for place in found[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in range(3, 8) for column in range(3, 8)}
    assert found.sum() == 400


def test_rows_of_a_table_have_no_side_to_be_moved_by():
    rows = torch.rand(5, 7, 1, 1)
    assert torch.equal(jittered(rows, 0.07, 0.0), rows)
