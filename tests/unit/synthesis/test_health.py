"""A collapse is told from health: too few classes, or one image over and over."""

import pytest
import torch

from edgekd.synthesis.health import examined


def images(count: int = 64) -> torch.Tensor:
    return torch.randint(256, (count, 1, 6, 6), dtype=torch.uint8)


def of_classes(labels: torch.Tensor, classes: int = 4) -> torch.Tensor:
    return 5 * torch.nn.functional.one_hot(labels, classes).float()


def test_what_is_measured():
    torch.manual_seed(0)
    codes = torch.zeros(64, 1, 2, 2, dtype=torch.uint8)
    codes[::2] = 51  # neighbours differ by a fifth of the range
    labels = torch.arange(64) % 4
    student = of_classes(torch.where(torch.arange(64) < 16, (labels + 1) % 4, labels))
    health = examined(codes, of_classes(labels), student, "classes")
    assert (health.class_entropy, health.diversity, health.disagreement) == (
        pytest.approx(1.0),
        pytest.approx(0.2),
        0.25,
    )
    assert health.collapse == ""


def test_few_classes_are_a_collapse():
    labels = torch.zeros(64, dtype=torch.long)
    labels[:3] = 1
    health = examined(images(), of_classes(labels), of_classes(labels), "classes")
    assert "few classes (entropy 0.1" in health.collapse


def test_one_image_over_and_over_is_a_collapse():
    labels = torch.arange(64) % 4
    same = images(1).expand(64, 1, 6, 6)
    assert "look alike (differ by 0.0% of the range)" in examined(same, *2 * [of_classes(labels)], "classes").collapse


def test_labels_that_are_never_on_are_a_collapse():
    never = -torch.ones(64, 3)
    assert examined(images(), never, never, "multilabel").class_entropy == 0.0
    half = torch.where(torch.rand(64, 3) < 0.5, 1.0, -1.0)
    assert examined(images(), half, half, "multilabel").collapse == ""
