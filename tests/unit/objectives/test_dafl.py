"""DAFL's objective: the right terms, weighted, averaged over teachers, and only where the teacher offers them."""

import pytest
import torch

from edgekd.objectives import METHODS
from edgekd.objectives.dafl import Dafl
from edgekd.synthesis import losses
from edgekd.teachers import Answer, Signal, Statistics
from edgekd.teachers.lesson import Lesson

CLASSES = Lesson(answer=(4,))
PUBLISHED = METHODS["dafl"].recipe
DEFAULT = METHODS["edgekd"].recipe


def answer(seed: int, *, statistics: bool = True) -> Answer:
    torch.manual_seed(seed)
    one = torch.ones(3)
    layers = (Statistics(torch.randn(3), torch.rand(3), 0 * one, one),) if statistics else ()
    return Answer(torch.randn(6, 4), torch.randn(6, 8), layers)


def test_the_published_method_has_the_published_weights():
    """MNIST: one-hot 1, information entropy 5, activation 0.1 (README of the authors' code), KD at T = 1."""
    given = answer(0)
    terms = Dafl(PUBLISHED, CLASSES).generator_terms([given], None)
    assert set(terms) == {"one_hot", "activation", "entropy"}
    torch.testing.assert_close(terms["one_hot"], losses.one_hot(given.logits))
    torch.testing.assert_close(terms["entropy"], 5 * losses.entropy(given.logits))
    torch.testing.assert_close(terms["activation"], 0.1 * losses.activation(given.features))
    student = torch.randn(6, 4)
    expected = losses.soft_labels(student, given.logits, 1.0)
    torch.testing.assert_close(Dafl(PUBLISHED, CLASSES).student_terms(student, given.logits)["soft_labels"], expected)


def test_terms_are_the_mean_over_teachers():
    several = [answer(1), answer(2), answer(3)]
    objective, student = Dafl(DEFAULT, CLASSES), torch.randn(6, 4)
    together = objective.generator_terms(several, student)
    for name, value in together.items():
        single = torch.stack([objective.generator_terms([a], student)[name] for a in several]).mean()
        torch.testing.assert_close(value, single)


def test_statistics_are_matched_only_where_the_teacher_has_them():
    objective = Dafl(DEFAULT, CLASSES)
    assert "statistics" in objective.generator_terms([answer(1)], None)
    assert "statistics" not in objective.generator_terms([answer(1), answer(2, statistics=False)], None)


def test_needs_follow_the_weights():
    assert Dafl(PUBLISHED, CLASSES).needs == {Signal.GRADIENT, Signal.FEATURES}
    assert Dafl(PUBLISHED.model_copy(update={"activation": 0.0}), CLASSES).needs == {Signal.GRADIENT}
    assert not Dafl(PUBLISHED, CLASSES).watches_student
    assert Dafl(PUBLISHED.model_copy(update={"adversary": 1.0}), CLASSES).watches_student


@pytest.mark.parametrize("method", METHODS)
def test_every_method_s_recipe_is_valid(method):
    recipe = METHODS[method].recipe
    assert type(recipe).model_validate(recipe.model_dump()) == recipe
