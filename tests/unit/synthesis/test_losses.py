"""Loss terms against values worked out by hand."""

import math

import pytest
import torch

from edgekd.synthesis import losses
from edgekd.teachers import Moments, Statistics


def test_one_hot_is_cross_entropy_to_the_arg_max():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(4)]])
    assert losses.one_hot(logits).item() == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2)


def test_activation_is_minus_the_mean_over_images_and_features():
    assert losses.activation(torch.tensor([[1.0, -3.0], [0.0, 4.0]])).item() == pytest.approx(-2.0)


def test_entropy_is_in_base_ten_over_the_mean_output():
    balanced = 50 * torch.eye(10)
    assert losses.entropy(balanced).item() == pytest.approx(-1.0, abs=1e-6)
    assert losses.entropy(balanced[:1].expand(8, 10)).item() == pytest.approx(0.0, abs=1e-6)


def test_statistics_measure_each_channel_in_its_own_running_deviation():
    mean, running_mean = torch.tensor([6.0, 0.0]), torch.tensor([0.0, 0.4])
    running_variance, variance = torch.tensor([4.0, 0.01]), torch.tensor([4.0 * math.e**6, 0.01 * math.e**8])
    layer = Statistics(mean, variance, running_mean, running_variance)
    assert losses.statistics([layer, layer]).item() == pytest.approx(2 * (5.0 + 5.0), rel=1e-3)
    met = Statistics(running_mean, running_variance, running_mean, running_variance)
    assert losses.statistics([met]).item() == pytest.approx(0.0, abs=1e-6)


def test_statistics_are_what_batch_normalization_makes_of_a_batch():
    norm = torch.nn.BatchNorm2d(3, affine=False).eval()
    norm.running_mean, norm.running_var = torch.tensor([5.0, -1.0, 0.0]), torch.tensor([9.0, 0.25, 1e-8])
    batch = torch.randn(8, 3, 4, 4) * torch.tensor([2.0, 1.0, 1e-4]).view(3, 1, 1)
    variance, mean = torch.var_mean(batch, (0, 2, 3), correction=0)
    layer = Statistics(mean, variance, norm.running_mean, norm.running_var)
    made = norm(batch).mean((0, 2, 3)).norm()
    expected = made + ((variance + 1e-5) / (norm.running_var + 1e-5)).sqrt().log().norm()
    assert losses.statistics([layer]).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_channel_that_never_varies_keeps_the_gradient_finite():
    dead = torch.zeros(2, requires_grad=True)
    layer = Statistics(dead + 0.1, dead * 1, torch.zeros(2), torch.zeros(2))
    losses.statistics([layer]).backward()
    assert dead.grad.isfinite().all()


def test_statistics_prior_wants_equal_means_and_equal_deviations_at_any_scale():
    at_ease = Moments(torch.full((4,), -2.0), torch.full((4,), 9.0))
    assert losses.statistics_prior([at_ease, at_ease]).item() == pytest.approx(0.0, abs=1e-6)
    mean, deviation = torch.tensor([3.0, 5.0]), torch.tensor([1.0, math.e**2])
    root_mean_square = math.sqrt((9 + 1 + 25 + math.e**4) / 2)
    expected = 3 * (math.sqrt(2) / root_mean_square + math.sqrt(2))
    for scale in (1.0, 1000.0):
        layer = Moments(scale * mean, (scale * deviation) ** 2)
        assert losses.statistics_prior([layer]).item() == pytest.approx(expected, rel=1e-5)


def test_disagreement_ignores_a_common_offset_and_rewards_difference():
    teacher = torch.tensor([[1.0, 3.0]])
    assert losses.disagreement(teacher + 7, teacher).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.disagreement(torch.tensor([[3.0, 1.0]]), teacher).item() == pytest.approx(-2.0)


def test_soft_labels_are_hinton_s_with_t_squared():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3.0), 0.0]])
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert losses.soft_labels(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_of_soft_labels_is_t_times_the_difference_of_softened_outputs():
    student = torch.randn(5, 7, requires_grad=True)
    teacher = torch.randn(5, 7)
    losses.soft_labels(student, teacher, 3.0).backward()
    expected = 3 * ((student / 3).softmax(1) - (teacher / 3).softmax(1)) / 5
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.detach())


@pytest.mark.parametrize(("labels", "expected"), [([0, 0, 0, 0], 0.0), ([0, 1, 2, 3], 1.0), ([0, 0, 1, 1], 0.5)])
def test_class_entropy_is_a_share_of_the_most_there_can_be(labels, expected):
    assert losses.class_entropy(torch.tensor(labels), 4) == pytest.approx(expected)
