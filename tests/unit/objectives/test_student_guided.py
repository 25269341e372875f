"""The student-guided objective: students stand where others have teachers, and what they have wrong weighs more."""

import pytest
import torch
from torch.nn import functional

from edgekd.errors import BadSetting
from edgekd.objectives import METHODS
from edgekd.objectives.student_guided import StudentGuided
from edgekd.synthesis import losses
from edgekd.teachers import Answer, Signal
from edgekd.teachers.lesson import Lesson

CLASSES = Lesson(answer=(4,))
RECIPE = METHODS["student-guided"].recipe


def objective(**changes: object) -> StudentGuided:
    return StudentGuided(RECIPE.model_copy(update=changes), CLASSES)


def logits(seed: int, rows: int = 6) -> torch.Tensor:
    return 3 * torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))


def test_it_needs_no_more_than_labels() -> None:
    assert objective().needs == {Signal.LABELS}
    assert not objective().watches_student


def test_the_generator_s_terms_are_of_the_students() -> None:
    one, two = Answer(logits(0)), Answer(logits(1))
    given = objective(rivals=1, rivalry=2.0, certainty=0.5, likeness=0.25)
    terms = given.generator_terms([one, two], None, None)
    assert set(terms) == {"one_hot", "entropy", "certainty", "likeness", "rivalry"}
    both = (one.logits, two.logits)
    torch.testing.assert_close(terms["entropy"], 5 * torch.stack([losses.entropy(x) for x in both]).mean())
    torch.testing.assert_close(terms["certainty"], 0.5 * torch.stack([losses.certainty(x) for x in both]).mean())
    torch.testing.assert_close(terms["rivalry"], 2 * losses.contention(both))


def test_rivals_that_agree_earn_nothing_and_those_that_differ_do() -> None:
    same, other = logits(0), logits(1)
    assert losses.contention([same, same]) == 0
    assert losses.contention([same, other]) < 0
    sure = torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])
    torch.testing.assert_close(losses.contention(sure), -torch.tensor(0.5).sqrt())


def test_certainty_is_the_deviation_over_classes() -> None:
    assert losses.certainty(torch.zeros(3, 4)) == 0
    torch.testing.assert_close(losses.certainty(torch.tensor([[99.0, 0.0, 0.0, 0.0]])), torch.tensor(0.5))


def test_only_images_of_one_class_can_be_alike() -> None:
    different = torch.eye(4) * 9
    assert losses.likeness(different) == 0
    torch.testing.assert_close(losses.likeness(torch.stack([different[0], different[0]])), torch.tensor(1.0))


def test_what_the_student_has_wrong_weighs_more() -> None:
    teacher, student = torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0]]), torch.tensor([[3.0, 0, 0, 0], [1.0, 0, 0, 0]])
    each = functional.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True).sum(1)
    plain = objective(temperature=1.0, mistakes=1.0).student_terms(student, teacher)["soft_labels"]
    torch.testing.assert_close(plain, losses.soft_labels(student, teacher, 1.0))
    weighed = objective(temperature=1.0, mistakes=3.0).student_terms(student, teacher)["soft_labels"]
    torch.testing.assert_close(weighed, (each[0] + 3 * each[1]) / 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adversary": 1.0, "statistics": 1.0}, "recipe: statistics, adversary: this method has none"),
        ({"heads": 1.0}, "recipe: heads"),
        ({"asked": 0}, "it asks about each image once; allowed: asked and prior above 0"),
        ({"prior": 0, "prior_share": 0.0}, "asked and prior above 0"),
        ({"shift": 2}, "shift=0"),
        ({"share_batch": True}, "share_batch=false"),
        ({"rivalry": 1.0}, "rivalry without rivals; allowed: 0, or rivals above 0"),
    ],
)
def test_what_it_does_not_know_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        objective(**changes)
