"""The student of pixels: it answers on the teacher's grid, whatever that is, and is no student of anything else."""

import pytest
import torch

from edgekd import networks
from edgekd.errors import BadSetting, UnknownName

SHAPES = {
    "as large as the image": ((3, 50, 37), (50, 37)),
    "a quarter of it": ((3, 50, 37), (13, 10)),
    "between two levels": ((3, 64, 64), (7, 11)),
    "larger than the image": ((1, 10, 10), (20, 30)),
    "of an image too small to halve": ((1, 6, 40), (3, 20)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_it_answers_on_the_grid_of_the_teacher(name):
    shape, grid = SHAPES[name]
    student = networks.build_student("unet", 0.25, shape, 5, grid)
    assert student(torch.zeros(2, *shape)).shape == (2, 5, *grid)
    assert all(p.grad is not None for p in gradients(student, shape))


def gradients(student, shape):
    student(torch.rand(2, *shape)).sum().backward()
    return student.parameters()


def test_only_levels_as_coarse_as_the_answer_are_decoded():
    fine, coarse = (networks.build_student("unet", 0.25, (1, 64, 64), 2, grid) for grid in ((64, 64), (16, 16)))
    assert fine.sizes == [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)]
    assert (len(fine.up), len(coarse.up)) == (4, 2)
    assert networks.build_student("unet", 0.25, (1, 512, 512), 2, (64, 64)).sizes[-1] == (4, 4)
    assert networks.build_student("unet", 0.25, (1, 512, 512), 2, (512, 512)).sizes[-1] == (32, 32)


@pytest.mark.parametrize("teacher", [100_000, 289_514, 21_000_000])
def test_auto_takes_about_a_quarter_of_the_teacher(teacher):
    name, width = networks.choose_student("auto", None, (3, 64, 64), 10, teacher, (16, 16))
    assert name == "unet"
    size = networks.parameters(networks.build_student(name, width, (3, 64, 64), 10, (16, 16)))
    assert 0.22 * teacher < size <= 0.27 * teacher


def test_auto_without_a_teacher_s_size_takes_the_usual_width():
    assert networks.choose_student("auto", None, (3, 64, 64), 10, None, (16, 16)) == ("unet", 1.0)
    assert networks.choose_student("auto", None, (3, 64, 64), 10, None) == ("cnn-small", 0.5)
    assert networks.choose_student("auto", 0.25, (3, 64, 64), 10, None) == ("cnn-small", 0.25)


def test_students_of_images_and_of_pixels_do_not_stand_in_for_each_other():
    with pytest.raises(BadSetting, match=r"student cnn-small: it answers for the image .*allowed: auto, unet, module:"):
        networks.build_student("cnn-small", 0.5, (1, 24, 24), 3, (24, 24))
    with pytest.raises(BadSetting, match="student unet: it answers for every pixel, the teacher for the image"):
        networks.build_student("unet", 0.5, (1, 24, 24), 3)
    with pytest.raises(UnknownName, match="did you mean unet"):
        networks.build_student("u-net", 0.5, (1, 24, 24), 3, (24, 24))


def test_no_map_is_narrower_than_eight_channels():
    narrow = networks.build_student("unet", 1 / 64, (3, 64, 64), 2, (64, 64))
    assert {block[0].out_channels for block in (*narrow.down, *narrow.up)} == {8}
    usual = networks.build_student("unet", 0.25, (3, 64, 64), 2, (64, 64))
    assert [block[0].out_channels for block in usual.down] == [8, 8, 16, 32, 64]
