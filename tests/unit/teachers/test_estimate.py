"""The estimated gradient: right on average, better with more directions, and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.teachers import Signal
from edgekd.teachers.asked import AskedTeacher
from edgekd.teachers.codes import rounded
from edgekd.teachers.estimate import Directions, estimated
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.session import SessionSource
from edgekd.teachers.spec import read_spec

EXAMPLE = Path(__file__).parents[3] / "examples" / "teacher.onnx"


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def gradient_of(ask, images: Tensor, count: int, coarse: int = 1) -> tuple[Tensor, Tensor]:
    """Estimated and exact gradient of a sum of weighted logits."""
    torch.manual_seed(0)
    weights = torch.randn(len(images), ask(images).shape[1])
    found = []
    for answer in (lambda x: estimated(ask, x, Directions(count, coarse, 0.0, 1.0)), ask):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((weights * answer(leaf)).sum(), leaf)
        found.append(gradient)
    return found[0], found[1]


def linear(shape: tuple[int, ...], classes: int = 3):
    torch.manual_seed(1)
    weights = torch.randn(int(np.prod(shape)), classes)
    return lambda images: images.flatten(1) @ weights


@pytest.mark.parametrize("ends", [False, True], ids=["inside the range", "at its ends"])
def test_of_a_linear_teacher_it_is_the_analytic_gradient_on_average(ends: bool) -> None:
    shape = (1, 4, 4)
    images = torch.randint(2, (6, *shape)).float() if ends else 0.2 + 0.6 * torch.rand(6, *shape)
    found, exact = gradient_of(linear(shape), rounded(images, 0, 1), 20_000)
    assert cosine(found, exact) > 0.995
    assert float(found.norm() / exact.norm()) == pytest.approx(1.0, abs=0.05)


def test_coarse_directions_estimate_the_mean_over_each_square() -> None:
    shape = (2, 5, 5)
    found, exact = gradient_of(linear(shape), torch.full((4, *shape), 0.5), 20_000, coarse=2)
    pooled = torch.nn.functional.avg_pool2d(exact[..., :4, :4], 2)
    assert cosine(found[..., :4:2, :4:2], pooled) > 0.99
    torch.testing.assert_close(found[..., :4:2, :4:2], found[..., 1:4:2, 1:4:2])
    assert float(found[..., :4:2, :4:2].norm() / pooled.norm()) == pytest.approx(1.0, abs=0.1)


def test_more_directions_come_nearer_to_the_exact_gradient_of_a_trained_network() -> None:
    exact = GraphTeacher(read_spec(EXAMPLE)).eval()
    torch.manual_seed(3)
    images = rounded(torch.rand(4, 1, 28, 28), 0, 1)
    near = [cosine(*gradient_of(lambda x: exact(x).logits, images, count)) for count in (1, 8, 64, 512)]
    assert near == sorted(near)
    assert near[0] > 0
    assert near[-1] > 0.5


def test_every_question_is_counted_and_repeated_ones_are_free(tmp_path: Path) -> None:
    spec = read_spec(EXAMPLE)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    teacher = AskedTeacher(SessionSource(spec), ledger, Directions(3, 1, spec.low, spec.high))
    assert teacher.signals == {Signal.LABELS, Signal.SCORES, Signal.GRADIENT}
    images = torch.rand(5, 1, 28, 28)
    for _ in range(2):
        torch.manual_seed(0)
        leaf = images.clone().requires_grad_()
        answer = teacher(leaf).logits
        assert answer.requires_grad
        torch.autograd.grad(answer.sum(), leaf)
        assert ledger.asked == 5 * (1 + 3)
    with torch.no_grad():
        assert not teacher(images.requires_grad_()).logits.requires_grad
    assert ledger.asked == 5 * (1 + 3)
    ledger.close()


def test_without_directions_there_is_no_gradient(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    teacher = AskedTeacher(SessionSource(read_spec(EXAMPLE)), ledger)
    assert teacher.signals == {Signal.LABELS, Signal.SCORES}
    images = torch.rand(2, 1, 28, 28, requires_grad=True)
    assert not teacher(images).logits.requires_grad
    expected = GraphTeacher(read_spec(EXAMPLE)).eval()(rounded(images.detach(), 0, 1)).logits
    torch.testing.assert_close(teacher(images).logits, expected.detach(), rtol=1e-4, atol=1e-4)
    ledger.close()
