"""Teacher-Class Network: losses against values worked out by hand, what learns from which, and what is refused."""

import math

import pytest
import torch

from edgekd.errors import BadSetting
from edgekd.objectives import METHODS
from edgekd.objectives.teacher_class import Discriminator, TeacherClass
from edgekd.synthesis import losses
from edgekd.teachers import Answer, Signal
from edgekd.teachers.lesson import Lesson

FORWARD, GAN = METHODS["teacher-class"].recipe, METHODS["teacher-class-gan"].recipe
LESSON = Lesson("classes", (2,), ("a.onnx",), (3,), None, ((2, 0), (1,)))
# Two images, a representation of three numbers, logits of two classes.
ANSWER = Answer(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 4.0]]))


def test_what_is_kept_has_the_order_of_the_chunks_and_tells_the_logits():
    objective = TeacherClass(FORWARD, LESSON)
    target = objective.target([ANSWER])
    assert objective.kept == (5,)
    assert target.tolist() == [[3, 1, 2, 1, 0], [4, 0, 0, 0, 2]]
    assert objective.logits(target).tolist() == ANSWER.logits.tolist()


def test_feed_forward_students_minimise_the_squared_error_of_their_chunk():
    objective = TeacherClass(FORWARD, LESSON)
    student = torch.tensor([[2.0, 1.0, 0.0, 1.0, 0.0], [4.0, 3.0, 1.0, 0.0, 2.0]])
    terms = objective.student_terms(student, objective.target([ANSWER]))
    assert terms.keys() == {"regression", "joined"}
    # First chunk: 1, 0, 0 and 9 over four numbers; second: 4 and 1 over two.
    assert terms["regression"].item() == pytest.approx(10 / 4 + 5 / 2)
    assert terms["joined"].item() == pytest.approx(0.0, abs=1e-6)  # the same logits


def test_the_joined_logits_learn_the_teacher_s():
    objective = TeacherClass(FORWARD.model_copy(update={"joined": 3.0, "temperature": 1.0}), LESSON)
    student = torch.zeros(2, 5)
    expected = 0.0
    for first, second in ANSWER.logits.tolist():
        one = math.exp(first) / (math.exp(first) + math.exp(second))
        expected += one * math.log(one / 0.5) + (1 - one) * math.log((1 - one) / 0.5)
    found = objective.student_terms(student, objective.target([ANSWER]))["joined"]
    assert found.item() == pytest.approx(3 * expected / 2, rel=1e-5)


def test_of_a_map_every_pixel_counts():
    lesson = Lesson("segmentation", (2, 1, 2), ("a.onnx",), (3,), None, ((0, 2), (1,)), (1, 2))
    objective = TeacherClass(FORWARD, lesson)
    features = torch.arange(6.0).view(1, 3, 1, 2)
    target = objective.target([Answer(torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]), features)])
    assert objective.kept == (10,)
    assert objective.logits(target).tolist() == [[[[1, 2]], [[3, 4]]]]
    student = target.clone()
    student[0, :6] += torch.tensor([1.0, 0, 0, 0, 2.0, 0])  # channel 0 at pixel 0; channel 1 at pixel 0
    terms = objective.student_terms(student, target)
    assert terms["regression"].item() == pytest.approx(1 / 4 + 4 / 2)


def test_the_adversarial_losses_are_those_of_the_notebooks():
    """With a discriminator that answers p and r as told: 0.25 for the logit's sigmoid, 1 for every number."""
    objective = TeacherClass(GAN, LESSON)
    for discriminator in objective.discriminators:
        torch.nn.init.zeros_(discriminator.layers[-1].weight)
        with torch.no_grad():
            discriminator.layers[-1].bias.copy_(
                torch.tensor([math.log(1 / 3), *[1.0] * (len(discriminator.layers[-1].bias) - 1)])
            )
    terms = objective.student_terms(torch.zeros(2, 5), objective.target([ANSWER]))
    assert terms.keys() == {"fooling", "discriminating", "joined"}
    regression = (4 + 0 + 9 + 1) / 4 + (1 + 1) / 2  # of 1 to 3 1 4 0, and of 1 to 2 0
    assert terms["fooling"].item() == pytest.approx(2 * -math.log(0.25) + regression, rel=1e-5)
    told = -math.log(0.25) - math.log(0.75)
    assert terms["discriminating"].item() == pytest.approx(2 * told + 2 * regression, rel=1e-5)


def test_student_and_discriminator_learn_from_their_own_loss_alone():
    torch.manual_seed(0)
    objective = TeacherClass(GAN.model_copy(update={"joined": 0.0}), LESSON)
    answers = Answer(torch.randn(8, 2), torch.randn(8, 3))
    student, target = torch.randn(8, 5, requires_grad=True), objective.target([answers])
    terms = objective.student_terms(student, target)
    learning = list(objective.parameters())
    assert torch.autograd.grad(terms["discriminating"], student, retain_graph=True, allow_unused=True) == (None,)
    of_student = torch.autograd.grad(terms["fooling"], learning, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in of_student)
    (moved,) = torch.autograd.grad(terms["fooling"], student)
    assert moved[:, :3].abs().min() > 0
    assert moved[:, 3:].abs().max() == 0


@pytest.mark.parametrize("recipe", [FORWARD, GAN])
def test_what_a_student_learns_does_not_depend_on_the_others(recipe):
    torch.manual_seed(0)
    objective = TeacherClass(recipe, LESSON)
    target = objective.target([Answer(torch.randn(8, 2), torch.randn(8, 3))])
    found = []
    for other in (0.0, 5.0):
        student = torch.full((8, 5), other)
        student[:, :2] = torch.arange(16.0).view(8, 2) / 8
        student.requires_grad_()
        terms = objective.student_terms(student, target)
        kept = [term for name, term in terms.items() if name != "joined"]
        (gradient,) = torch.autograd.grad(torch.stack(kept).sum(), student)
        found.append(gradient[:, :2])
    assert torch.equal(*found)


def test_the_generator_seeks_what_the_joined_logits_miss():
    objective = TeacherClass(FORWARD.model_copy(update={"entropy": 0.0, "one_hot": 0.0, "adversary": 2.0}), LESSON)
    student = torch.zeros(2, 5)
    terms = objective.generator_terms([ANSWER], student)
    assert terms.keys() == {"adversary"}
    expected = 2 * losses.disagreement(torch.zeros(2, 2), ANSWER.logits)
    assert terms["adversary"].item() == pytest.approx(expected.item())
    assert objective.needs == {Signal.GRADIENT, Signal.FEATURES}
    assert objective.watches_student


def test_a_discriminator_looks_at_a_share_of_many_pixels(monkeypatch):
    monkeypatch.setattr("edgekd.objectives.teacher_class.ROWS", 4)
    seen = []
    forward = Discriminator.forward
    monkeypatch.setattr(Discriminator, "forward", lambda self, rows: seen.append(len(rows)) or forward(self, rows))
    objective = TeacherClass(GAN, LESSON)
    target = objective.target([Answer(torch.randn(11, 2), torch.randn(11, 3))])
    objective.student_terms(torch.randn(11, 5), target)
    assert set(seen) == {4}


def test_a_checkpoint_holds_the_discriminators():
    torch.manual_seed(0)
    one, other = TeacherClass(GAN, LESSON), TeacherClass(GAN, LESSON)
    other.load_state_dict(one.state_dict())
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert TeacherClass(FORWARD, LESSON).state_dict() == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"regression": 0.0}, "the students learn no representation; allowed: one of them above 0"),
        ({"heads": 1.0}, "this method has none"),
        ({"momentum": 0.5}, "this method has none"),
        (dict.fromkeys(("one_hot", "entropy", "statistics", "adversary"), 0.0), "every weight of the generator's loss"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(BadSetting, match=said):
        TeacherClass(FORWARD.model_copy(update=changes), LESSON)


def test_the_discriminator_is_that_of_the_notebooks():
    found = Discriminator(3)
    widths = [layer.out_features for layer in found.layers if isinstance(layer, torch.nn.Linear)]
    assert widths == [64, 128, 256, 512, 1024, 4]
    rows = torch.randn(5, 3)
    assert found(rows).shape == (5, 4)
