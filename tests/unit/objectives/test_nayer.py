"""NAYER's objective against its authors' formulas (datafree/synthesis/nayer.py, hooks.py), written out."""

import pytest
import torch
from torch.nn import functional

from edgekd.errors import BadSetting
from edgekd.objectives import METHODS
from edgekd.objectives.nayer import Nayer
from edgekd.teachers import Answer, Signal, Statistics
from edgekd.teachers.lesson import Lesson

RECIPE = METHODS["nayer-style"].recipe


def answer(seed: int, *, statistics: bool = True) -> Answer:
    torch.manual_seed(seed)
    layers = tuple(Statistics(torch.randn(3), torch.rand(3), torch.randn(3), torch.rand(3)) for _ in range(2))
    return Answer(torch.randn(8, 4), None, layers if statistics else ())


def test_the_published_terms_and_weights():
    given, student, labels = answer(0), torch.randn(8, 4), torch.arange(8) % 4
    objective = Nayer(RECIPE, Lesson())
    terms = objective.generator_terms([given], student, labels)
    logits = given.logits
    batch_norm = sum(
        (s.running_variance - s.variance).norm() + (s.running_mean - s.mean).norm() for s in given.statistics
    )
    same = (student.max(1)[1] == logits.max(1)[1]).float()
    divergence = functional.kl_div(student.log_softmax(1), logits.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(terms["one_hot"], 0.5 * functional.cross_entropy(logits, labels))
    torch.testing.assert_close(terms["statistics"], 10 * batch_norm)
    torch.testing.assert_close(terms["adversary"], -1.33 * (divergence * same).mean())
    assert 0 < same.sum() < 8
    kl = functional.kl_div((student / 20).log_softmax(1), (logits / 20).softmax(1), reduction="batchmean") * 400
    torch.testing.assert_close(objective.student_terms(student, logits)["soft_labels"], kl)


def test_statistics_of_earlier_rounds_count_with_the_momentum():
    first, second, third = answer(0), answer(1), answer(2)
    labels, objective = torch.zeros(8, dtype=torch.long), Nayer(RECIPE, Lesson())
    for batch in (first, second):
        objective.generator_terms([batch], None, labels)
        objective.end_round()
    found = objective.generator_terms([third], None, labels)["statistics"]
    expected = torch.tensor(0.0)
    for a, b, c in zip(first.statistics, second.statistics, third.statistics, strict=True):
        for name in ("mean", "variance"):
            before = 0.9 * getattr(a, name) + 0.1 * getattr(b, name)
            mixed = 0.9 * before + 0.1 * getattr(c, name)
            expected += (getattr(c, f"running_{name}") - mixed).norm()
    torch.testing.assert_close(found, 10 * expected)
    resumed = Nayer(RECIPE, Lesson())
    resumed.load_state_dict(objective.state_dict())
    assert torch.equal(resumed.generator_terms([third], None, labels)["statistics"], found)


def test_folded_statistics_are_left_out_for_the_method_knows_no_prior():
    terms = Nayer(RECIPE, Lesson()).generator_terms(
        [answer(0, statistics=False)], None, torch.zeros(8, dtype=torch.long)
    )
    assert set(terms) == {"one_hot"}
    assert Nayer(RECIPE, Lesson()).needs == {Signal.GRADIENT}


@pytest.mark.parametrize("change", [{"noisy": False}, {"entropy": 1.0}, {"activation": 0.1}])
def test_what_it_does_not_know_is_refused(change):
    with pytest.raises(BadSetting, match="allowed: noisy=true"):
        Nayer(RECIPE.model_copy(update=change), Lesson())
