"""CDFKD-MFS and CDFKD: losses against values worked out by hand from the authors' formulas, and what is refused."""

import math

import pytest
import torch

from edgekd.errors import BadModel, BadSetting
from edgekd.objectives import METHODS
from edgekd.objectives.cdfkd_mfs import Cdfkd
from edgekd.synthesis import losses
from edgekd.teachers import Answer, Moments, Signal, Statistics
from edgekd.teachers.lesson import Lesson

PUBLISHED = METHODS["cdfkd-mfs"].recipe.model_copy(
    update={"one_hot": 0.0, "entropy": 0.0, "statistics": 0.1, "raw_statistics": True, "projection": False}
)
CDFKD = METHODS["cdfkd"].recipe
TWO = Lesson("classes", (2,), ("a.onnx", "b.onnx"), (2, 2), 2)

# Two images, two teachers of two classes, features of two numbers.
LOGITS = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 0.0]]])  # teacher, image, class
FEATURES = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[2.0, 0.0], [1.0, 1.0]]])
ANSWERS = [Answer(logits, features) for logits, features in zip(LOGITS, FEATURES, strict=True)]
STUDENT = torch.zeros(2, 2, 4)  # image, header, logits and features: all zero
STUDENT[0, 0] = torch.tensor([2.0, 0.0, 1.0, 0.0])


def test_what_is_kept_tells_all_logits_and_their_mean():
    objective = Cdfkd(PUBLISHED, TWO)
    target = objective.target(ANSWERS)
    assert objective.kept == (8,)
    assert target.tolist() == [[1, 0, 3, 0, 1, 1, 2, 0], [0, 2, 0, 0, 0, 0, 1, 1]]
    assert objective.logits(target).tolist() == [[2, 0], [0, 1]]
    without = Cdfkd(PUBLISHED.model_copy(update={"features": 0.0}), TWO)
    assert without.kept == (4,)
    assert without.target(ANSWERS).tolist() == [[1, 0, 3, 0], [0, 2, 0, 0]]


def test_the_student_s_terms_are_those_of_the_authors():
    """w_s = 1, w_f = 0.2, w_e = 5. Differences of the logits by header: 1 0 0 2, and 3 0 0 0, eight numbers in all."""
    objective = Cdfkd(PUBLISHED, TWO)
    terms = objective.student_terms(STUDENT, objective.target(ANSWERS))
    assert terms.keys() == {"heads", "features", "ensemble"}
    assert terms["heads"].item() == pytest.approx((1 + 0 + 0 + 2) / 4 / 2 + (3 + 0 + 0 + 0) / 4 / 2)
    # First header: |1-1| + |0-1| = 1 and 0, mean 1/2. Second: 2 and 2, mean 2. Mean of both: 1.25.
    assert terms["features"].item() == pytest.approx(0.2 * 1.25)
    # Means of the headers: (1, 0), (0, 0); of the teachers: (2, 0), (0, 1).
    assert terms["ensemble"].item() == pytest.approx(5 * (1 + 0 + 0 + 1) / 4)


@pytest.mark.parametrize("distance", ["l1", "kl"])
def test_the_generator_s_adversary_is_of_logits_whatever_the_student_minimises(distance):
    objective = Cdfkd(PUBLISHED.model_copy(update={"distance": distance}), TWO)
    terms = objective.generator_terms(ANSWERS, STUDENT)
    assert terms.keys() == {"adversary"}  # these teachers hold no statistics
    assert terms["adversary"].item() == pytest.approx(-0.75)


def divergence(teacher: list[float], student: list[float]) -> float:
    p, q = ([math.exp(z) / sum(map(math.exp, row)) for z in row] for row in (teacher, student))
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_the_precursor_is_symmetric_and_of_divergences():
    objective = Cdfkd(CDFKD, TWO)
    terms = objective.student_terms(STUDENT, objective.target(ANSWERS))
    assert terms.keys() == {"heads", "ensemble"}
    own = [[[2, 0], [0, 0]], [[0, 0], [0, 0]]]
    heads = [divergence(LOGITS[k][n].tolist(), own[k][n]) for k in range(2) for n in range(2)]
    assert terms["heads"].item() == pytest.approx(sum(heads) / 4, rel=1e-5)
    ensemble = (divergence([2, 0], [1, 0]) + divergence([0, 1], [0, 0])) / 2
    assert terms["ensemble"].item() == pytest.approx(ensemble, rel=1e-5)
    adversary = objective.generator_terms(ANSWERS, STUDENT)["adversary"]
    assert adversary.item() == pytest.approx(-sum(heads) / 4 - ensemble, rel=1e-5)


def layer(mean: float, variance: float) -> Statistics:
    """Off by `mean` and by `variance` from the running ones, which are 0 and 1, in both of two channels."""
    both = torch.ones(2)
    return Statistics(mean * both, 1 + variance * both, 0 * both, both)


def test_statistics_are_the_authors_and_of_those_teachers_that_have_some():
    """The first layer counts five times; ||(3, 3)|| is 3 root 2. The second teacher is left out, not counted as 0."""
    some = Answer(LOGITS[0], FEATURES[0], (layer(3.0, 0.0), layer(0.0, 2.0)))
    objective = Cdfkd(PUBLISHED, TWO)
    terms = objective.generator_terms([some, ANSWERS[1]], None)
    assert terms.keys() == {"statistics"}
    assert terms["statistics"].item() == pytest.approx(0.1 * (5 * 3 + 2) * math.sqrt(2), rel=1e-5)
    default = Cdfkd(METHODS["cdfkd-mfs"].recipe, TWO).generator_terms([some, some], None)
    torch.testing.assert_close(default["statistics"], losses.statistics(some.statistics))
    prior = Answer(LOGITS[1], FEATURES[1], folded=(Moments(torch.randn(3), torch.rand(3)),))
    mixed = objective.generator_terms([some, prior], None)["statistics"]
    expected = 0.1 * (17 * math.sqrt(2) + losses.statistics_prior(prior.folded)) / 2
    torch.testing.assert_close(mixed, expected)


def test_terms_without_weight_are_not_there():
    recipe = PUBLISHED.model_copy(update={"features": 0.0, "ensemble": 0.0, "adversary": 0.0, "one_hot": 1.0})
    objective = Cdfkd(recipe, TWO)
    assert not objective.watches_student
    assert objective.student_terms(STUDENT, objective.target(ANSWERS)).keys() == {"heads"}
    assert objective.generator_terms(ANSWERS, None).keys() == {"one_hot"}


def test_needs_follow_the_weights():
    assert Cdfkd(PUBLISHED, TWO).needs == {Signal.GRADIENT, Signal.FEATURES}
    assert Cdfkd(CDFKD, TWO).needs == {Signal.GRADIENT}


def test_features_of_other_widths_are_compared_through_a_projection_that_learns():
    lesson = Lesson("classes", (2,), ("a.onnx", "b.onnx"), (2, 3), 2)
    wide = [ANSWERS[0], Answer(LOGITS[1], torch.ones(2, 3))]
    objective = Cdfkd(PUBLISHED.model_copy(update={"projection": True}), lesson)
    (weight, bias) = objective.parameters()
    assert (weight.shape, bias.shape) == ((3, 2), (3,))
    with torch.no_grad():
        weight.zero_()
        bias.fill_(0.5)
    terms = objective.student_terms(STUDENT, objective.target(wide))
    assert terms["features"].item() == pytest.approx(0.2 * (0.5 + 3 * 0.5) / 2)
    terms["features"].backward()
    assert bias.grad is not None
    resumed = Cdfkd(PUBLISHED.model_copy(update={"projection": True}), lesson)
    resumed.load_state_dict(objective.state_dict())
    torch.testing.assert_close(resumed.student_terms(STUDENT, objective.target(wide)), terms)


@pytest.mark.parametrize(
    ("lesson", "change", "said"),
    [
        (Lesson("classes", (2,), ("a.onnx",), (2,), 2), {}, "one teacher alone; allowed: two and more"),
        (Lesson("classes", (2,), ("a.onnx", "b.onnx"), (2, 3), 2), {}, "b.onnx has features of 3 numbers, .* of 2"),
        (TWO, {"heads": 0.0, "ensemble": 0.0}, "the student learns no logits"),
        (TWO, {"adversary": 0.0, "statistics": 0.0}, "every weight of the generator's loss is zero"),
        (TWO, {"momentum": 0.5}, "recipe: momentum: this method has none; allowed: 0"),
    ],
)
def test_what_does_not_fit_is_refused(lesson, change, said):
    with pytest.raises(BadSetting, match=said):
        Cdfkd(PUBLISHED.model_copy(update=change), lesson)


def test_a_teacher_without_features_is_named_with_the_cure():
    asked = Lesson("classes", (2,), ("a.onnx", "http://b"), (2, None), 2)
    with pytest.raises(BadModel, match=r"http://b: .* it offers none; do without: --set features=0"):
        Cdfkd(PUBLISHED, asked)
    assert Cdfkd(PUBLISHED.model_copy(update={"features": 0.0}), asked).kept == (4,)


@pytest.mark.parametrize("method", ["edgekd", "nayer-style"])
def test_weights_of_headers_are_refused_where_there_are_none(method):
    chosen = METHODS[method]
    with pytest.raises(BadSetting, match="recipe: heads, ensemble: this method has none"):
        chosen.objective(chosen.recipe.model_copy(update={"heads": 1.0, "ensemble": 5.0}), Lesson())


def test_labels_are_compared_as_they_are():
    """One column: its logit is what is off, and the Kullback-Leibler divergence is that of on and off."""
    lesson = Lesson("binary", (1,), ("a.onnx", "b.onnx"), (None, None), 1)
    answers = [Answer(torch.tensor([[2.0]])), Answer(torch.tensor([[0.0]]))]
    for recipe, expected in (
        (PUBLISHED.model_copy(update={"features": 0.0, "ensemble": 0.0}), 1.0),
        (CDFKD.model_copy(update={"ensemble": 0.0}), divergence([0, 2], [0, 0]) / 2),
    ):
        objective = Cdfkd(recipe, lesson)
        terms = objective.student_terms(torch.zeros(1, 2, 2), objective.target(answers))
        assert terms["heads"].item() == pytest.approx(expected, rel=1e-5)
