"""Losses of labels against values worked out by hand, and against those of two classes."""

import math

import pytest
import torch
from torch.nn import functional

from edgekd.objectives import METHODS
from edgekd.objectives.dafl import Dafl
from edgekd.synthesis import losses, questions
from edgekd.teachers import Answer
from edgekd.teachers.lesson import Lesson

RECIPE = METHODS["edgekd"].recipe.model_copy(update={"one_hot": 1.0, "entropy": 1.0, "adversary": 1.0})
LABELS = ("binary", "multilabel")


def terms(task: str, teacher: torch.Tensor, student: torch.Tensor) -> dict[str, torch.Tensor]:
    objective = Dafl(RECIPE, Lesson(task))  # type: ignore[arg-type]
    return objective.generator_terms([Answer(teacher)], student) | objective.student_terms(student, teacher)


def test_one_label_costs_what_two_classes_cost():
    torch.manual_seed(0)
    teacher, student = 3 * torch.randn(16, 1), 3 * torch.randn(16, 1)
    found = terms("binary", teacher, student)
    pairs = [torch.cat([torch.zeros(16, 1), logit], dim=1) for logit in (teacher, student)]
    expected = terms("classes", *pairs)
    assert found.keys() == expected.keys() == {"one_hot", "entropy", "adversary", "soft_labels"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_several_labels_cost_the_mean_of_each():
    torch.manual_seed(0)
    teacher, student = 3 * torch.randn(16, 5), 3 * torch.randn(16, 5)
    each = [terms("binary", teacher[:, k : k + 1], student[:, k : k + 1]) for k in range(5)]
    for name, value in terms("multilabel", teacher, student).items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in each]).mean())


@pytest.mark.parametrize("task", LABELS)
def test_one_hot_is_binary_cross_entropy_to_the_rounded_answer(task):
    logits = torch.tensor([[2.0], [-3.0], [0.5]]).repeat(1, 1 if task == "binary" else 4)
    expected = functional.binary_cross_entropy_with_logits(logits, (logits > 0).float())
    torch.testing.assert_close(losses.one_hot(questions.rows(logits, task)), expected)


def test_entropy_is_best_where_every_label_is_on_for_half_of_the_images():
    on, off = 50.0, -50.0
    balanced, always = torch.tensor([[on, off], [off, on]]), torch.tensor([[on, off], [on, off]])
    assert questions.entropy(balanced, "multilabel").item() == pytest.approx(-math.log10(2), abs=1e-6)
    assert questions.entropy(always, "multilabel").item() == pytest.approx(0.0, abs=1e-6)
    mixed = torch.tensor([[on, off], [off, off]])
    assert questions.entropy(mixed, "multilabel").item() == pytest.approx(-math.log10(2) / 2, abs=1e-6)
    quarter = torch.full((3, 1), math.log(1 / 3))
    expected = 0.25 * math.log10(0.25) + 0.75 * math.log10(0.75)
    assert questions.entropy(quarter, "binary").item() == pytest.approx(expected, rel=1e-5)


def test_soft_labels_are_bernoulli_divergences_with_t_squared():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3.0), 0.0]])
    row = losses.soft_labels(questions.rows(student, "multilabel"), questions.rows(teacher, "multilabel"), 2.0)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2
    assert row.item() == pytest.approx(expected, rel=1e-6)


def test_gradient_of_soft_labels_is_t_times_the_difference_of_softened_probabilities():
    student, teacher = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    losses.soft_labels(*(questions.rows(x, "multilabel") for x in (student, teacher)), 3.0).backward()
    assert student.grad is not None
    expected = 3 * ((student / 3).sigmoid() - (teacher / 3).sigmoid()) / 15
    torch.testing.assert_close(student.grad, expected.detach())


def test_disagreement_of_labels_does_see_an_offset():
    teacher = torch.tensor([[1.0, 3.0]])
    found = losses.disagreement(*(questions.rows(x, "multilabel") for x in (teacher + 7, teacher)))
    assert found.item() == pytest.approx(-3.5)


def test_of_classes_everything_is_as_it_was():
    torch.manual_seed(0)
    logits = torch.randn(16, 10)
    assert questions.rows(logits, "classes").equal(logits)
    assert questions.entropy(logits, "classes").equal(losses.entropy(logits))
    assert questions.scores(logits, "classes").equal(logits.log_softmax(dim=1))
    assert questions.chosen(logits, "classes").float().argmax(dim=1).equal(logits.argmax(dim=1))
    assert questions.balance(logits, "classes") == losses.class_entropy(logits.argmax(dim=1), 10)


def test_pixels_cost_what_so_many_images_of_classes_cost():
    torch.manual_seed(0)
    teacher, student = 3 * torch.randn(4, 5, 3, 2), 3 * torch.randn(4, 5, 3, 2)
    places = [(y, x) for y in range(3) for x in range(2)]
    apart = [torch.stack([one[:, y, x] for one in logits for y, x in places]) for logits in (teacher, student)]
    assert questions.rows(teacher, "segmentation").equal(apart[0])
    expected = terms("classes", *apart)
    for name, value in terms("segmentation", teacher, student).items():
        torch.testing.assert_close(value, expected[name])
    assert questions.balance(teacher, "segmentation") == losses.class_entropy(teacher.argmax(dim=1).flatten(), 5)


def test_a_mask_costs_what_two_classes_of_every_pixel_cost():
    torch.manual_seed(0)
    teacher, student = 3 * torch.randn(4, 1, 3, 2), 3 * torch.randn(4, 1, 3, 2)
    pairs = [torch.cat([torch.zeros_like(logit), logit], dim=1) for logit in (teacher, student)]
    expected = terms("segmentation", *pairs)
    for name, value in terms("mask", teacher, student).items():
        torch.testing.assert_close(value, expected[name])
    for told in (questions.rows, questions.scores, questions.chosen):
        assert told(teacher, "mask").equal(told(pairs[0], "segmentation"))
    assert questions.balance(teacher, "mask") == questions.balance(pairs[0], "segmentation")


def test_pixels_are_balanced_wherever_the_classes_are():
    halves = torch.full((3, 2, 2, 2), -50.0)
    halves[:, 0, 0], halves[:, 1, 1] = 50.0, 50.0  # the upper pixels always of class 0, the lower always of class 1
    assert questions.entropy(halves, "segmentation").item() == pytest.approx(-math.log10(2), abs=1e-6)
    assert questions.balance(halves, "segmentation") == pytest.approx(1.0)


def test_an_image_is_scored_by_the_mean_over_its_pixels():
    logits = 3 * torch.randn(4, 5, 3, 2)
    probability = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)
    torch.testing.assert_close(questions.scores(logits, "segmentation"), probability.mean(dim=(2, 3)).log())
    seen = [[bool((image.argmax(dim=0) == k).any()) for k in range(5)] for image in logits]
    assert questions.chosen(logits, "segmentation").tolist() == seen


def test_options_of_labels_come_off_and_on():
    logits = torch.tensor([[math.log(3.0), -2.0], [-1.0, 0.0]])
    scores = questions.scores(logits, "multilabel")
    assert scores.exp()[0, :2].tolist() == pytest.approx([0.25, 0.75])
    assert questions.chosen(logits, "multilabel").tolist() == [[False, True, True, False], [True, False, True, False]]
    assert questions.balance(logits, "multilabel") == pytest.approx(0.5)
