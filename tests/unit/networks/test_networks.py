"""Students and generators: sizes as published, any image size, one clear error for a bad name."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekd import networks
from edgekd.errors import BadSetting, UnknownName
from edgekd.networks.generators import Generator
from edgekd.networks.latents import GaussianLatents, NoisyLatents
from edgekd.networks.students import ResidualBlock


@pytest.mark.parametrize(("name", "expected"), [("lenet5", 61_706), ("lenet5-half", 15_738)])
def test_lenet_has_the_published_parameter_count(name, expected):
    factory, width = networks.STUDENTS[name]
    assert networks.parameters(factory((1, 32, 32), 10, width)) == expected


def test_resnet18_is_the_cifar_form():
    factory, width = networks.STUDENTS["resnet18"]
    assert networks.parameters(factory((3, 32, 32), 10, width)) == 11_173_962


def test_mobilenet_has_the_published_size():
    """2.54 M parameters with 1,000 classes (torchvision's mobilenet_v3_small, which counts 2,542,856)."""
    factory, width = networks.STUDENTS["mobilenetv3-small"]
    assert networks.parameters(factory((3, 224, 224), 1000, width)) == 2_542_856


@pytest.mark.parametrize("name", networks.STUDENTS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48)])
def test_every_student_takes_every_image_size(name, shape):
    factory, _ = networks.STUDENTS[name]
    assert factory(shape, 7, 0.25).eval()(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("teacher", [62_000, 289_514, 21_000_000])
def test_auto_takes_about_a_quarter_of_the_teacher(teacher):
    name, width = networks.choose_student("auto", None, (3, 32, 32), 10, teacher)
    size = networks.parameters(networks.build_student(name, width, (3, 32, 32), 10))
    assert 0.22 * teacher < size <= 0.27 * teacher


def test_auto_takes_the_same_student_whether_batch_normalization_was_folded_or_not():
    with_it, width = networks.choose_student("auto", None, (1, 28, 28), 10, 290_124)  # examples/teacher.onnx
    folded = networks.choose_student("auto", None, (1, 28, 28), 10, 288_908)
    assert folded == (with_it, width) == ("cnn-small", 0.5)


def test_an_unknown_student_lists_the_known_ones():
    with pytest.raises(UnknownName, match="did you mean cnn-small"):
        networks.build_student("cnn-smal", 1.0, (1, 28, 28), 10)


def own_network(shape, classes, width):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(shape[0] * shape[1] * shape[2], classes))


def test_a_factory_of_one_s_own(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "own", __import__("sys").modules[__name__])
    assert networks.build_student("own:own_network", 1.0, (1, 4, 4), 3)(torch.zeros(2, 1, 4, 4)).shape == (2, 3)
    with pytest.raises(BadSetting, match="has no attribute 'other'"):
        networks.build_student("own:other", 1.0, (1, 4, 4), 3)


def test_a_factory_is_found_in_the_working_directory(tmp_path, monkeypatch):
    """As a console script runs: its own folder is on the path, the working directory is not."""
    (tmp_path / "net_of_mine.py").write_text(
        "import torch\ndef make(shape, classes, width):\n    return torch.nn.LazyLinear(classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    before = [entry for entry in sys.path if entry not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", list(before))
    with pytest.raises(UnknownName):
        networks.build_student("net_of_mine", 1.0, (1, 4, 4), 3)
    assert networks.build_student("net_of_mine:make", 1.0, (1, 4, 4), 3).out_features == 3
    assert sys.path == before


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 50, 37), (3, 128, 128)])
def test_generated_images_have_the_shape_and_stay_in_range(shape):
    generator = Generator(
        GaussianLatents(16, 32), shape, 8, mean=[0.3] * shape[0], std=[0.4] * shape[0], low=0.0, high=1.0
    )
    images = generator(generator.latents()[0])
    assert images.shape == (32, *shape)
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    assert images.mean().item() == pytest.approx(0.3, abs=0.1)  # the cut at 0 lifts the mean a little


def test_the_published_generator_for_mnist():
    """Dense 100 -> 8192, convolutions 128-128-64-1, their norms (DAFL-train.py, 32x32, z = 100)."""
    generator = Generator(GaussianLatents(100, 512), (1, 32, 32), 64, mean=[0.0], std=[1.0], low=-3.0, high=3.0)
    expected = (
        100 * 8192 + 8192 + 2 * 128 + (128 * 128 * 9 + 128) + 2 * 128 + (128 * 64 * 9 + 64) + 2 * 64 + (64 * 9 + 1)
    )
    assert networks.parameters(generator) == expected


def test_a_narrow_shortcut_picks_the_pixels_that_a_strided_convolution_picks():
    narrow = ResidualBlock(8, 12, stride=2).shortcut
    assert [type(layer) for layer in narrow] == [nn.MaxPool2d, nn.Conv2d, nn.BatchNorm2d]
    images = torch.randn(3, 8, 7, 6)
    strided = functional.conv2d(images, narrow[1].weight, stride=2)
    torch.testing.assert_close(narrow[1](narrow[0](images)), strided)


def test_no_student_strides_a_convolution_of_one_pixel_over_few_channels():
    """It corrupts memory in training (oneDNN issue 6035), which a test of the gradient might survive."""
    for name in networks.STUDENTS:
        layers = networks.build_student(name, 0.1, (1, 64, 64), 10).modules()
        strided = (m for m in layers if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1))
        assert all(layer.in_channels >= 16 for layer in strided), name


def noisy_generator(output: str = "sigmoid") -> Generator:
    return Generator(NoisyLatents(6, 4, 10), (1, 12, 12), 4, mean=[0.5], std=[0.2], low=-1.0, high=2.0, output=output)


def test_a_sigmoid_spans_the_range_of_the_input():
    generator = noisy_generator()
    torch.nn.init.constant_(generator.to_image.bias, 50.0)
    assert generator(torch.randn(5, 6)).min() == 2.0
    torch.nn.init.constant_(generator.to_image.bias, -50.0)
    assert generator(torch.randn(5, 6)).max() == -1.0


def test_a_reset_generator_remembers_nothing():
    generator = noisy_generator("soft")
    before = {
        name: value.clone() for name, value in generator.named_parameters() if "weight" in name and value.dim() > 1
    }
    generator(generator.latents()[0])
    generator.reset()
    assert all(not torch.equal(value, before[name]) for name, value in generator.named_parameters() if name in before)
    assert torch.equal(generator.first_norm.running_mean, torch.zeros(8))
    assert torch.equal(generator.first_norm.weight, torch.ones(8))
