"""What is expected of real images: a curve finds the line that images were made by, and its mean is a known one."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.unseen import Calibration, Curve, NoEstimate, confidence, logit, missed, sureness, turned


def answered(count: int, intercept: float, slope: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A teacher's logits, and where a student agrees that follows such a curve."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 5))
    odds = intercept + slope * sureness(confidence(logits))
    return logits, random.random(count) < 1 / (1 + np.exp(-odds))


def test_confidence_is_the_largest_probability() -> None:
    assert confidence(np.log([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]]) + 3) == pytest.approx([0.7, 0.5])
    assert confidence(np.array([[1e4, 0.0], [0.0, -1e4]], np.float32)) == pytest.approx([1, 1])


def test_a_curve_finds_what_images_were_made_by() -> None:
    curve = Curve.fitted(*answered(40_000, -0.2, 1.5))
    assert (curve.intercept, curve.slope) == (pytest.approx(-0.2, abs=0.08), pytest.approx(1.5, abs=0.08))


def test_at_the_fit_the_gradient_of_the_likelihood_vanishes() -> None:
    logits, alike = answered(500, -0.5, 2.0)
    curve = Curve.fitted(logits, alike)
    sure = sureness(confidence(logits))
    left = alike - 1 / (1 + np.exp(-(curve.intercept + curve.slope * sure)))
    assert left.sum() == pytest.approx(0.01 * curve.intercept, abs=1e-6)
    assert (left * sure).sum() == pytest.approx(0.01 * curve.slope, abs=1e-6)


@pytest.mark.parametrize("accuracy", [0.6, 0.9, 0.99])
def test_what_to_expect_is_the_mean_over_an_exponential(accuracy: float) -> None:
    assert Curve(intercept=1.0, slope=0.0).expected(accuracy) == pytest.approx(1 / (1 + np.exp(-1)))
    # A student that agrees where the teacher is surer than c, and nowhere else: the share of such images.
    step = Curve(intercept=-2000 * float(sureness(np.array(0.8))), slope=2000.0)
    assert step.expected(accuracy) == pytest.approx(0.2 ** ((1 - accuracy) / accuracy), abs=2e-3)


def test_a_teacher_is_taken_to_be_sure_as_often_as_it_is_right() -> None:
    # Where agreement is c itself, its mean is the accuracy: the logit of c is log(e^g - 1), near g for a sure teacher.
    assert Curve(intercept=0.0, slope=1.0).expected(0.95) == pytest.approx(0.95, abs=0.02)


FITTED = {"schema": "edgekd.fidelity-calibration/3", "weight": 0.25, "promised": 0.9, "reach": 0.25}
CALIBRATION = Calibration.model_validate(FITTED | {"triples": 9, "datasets": ["a", "b"]})


def test_an_estimate_lies_between_two_shares_in_logits() -> None:
    middle, low, high = CALIBRATION.estimate(0.95, 0.8, loss=0.2)
    assert float(logit(middle)) == pytest.approx(0.75 * np.log(19) + 0.25 * np.log(4))
    assert [float(turned(one) - turned(middle)) for one in (low, high)] == pytest.approx([-0.05, 0.05])


def test_an_interval_is_as_wide_as_the_loss_is_large() -> None:
    def ends(loss: float) -> list[float]:
        return [float(turned(one) - turned(middle)) for one in CALIBRATION.estimate(0.95, 0.8, loss)[1:]]

    middle = CALIBRATION.estimate(0.95, 0.8, 0.2)[0]
    assert ends(0.4) == pytest.approx([-0.1, 0.1])
    assert ends(0.01) == ends(0.05) == pytest.approx([-0.0125, 0.0125])
    assert missed(middle, CALIBRATION.estimate(0.95, 0.8, 0.4)[1], 0.4) == pytest.approx(CALIBRATION.reach)


def test_an_interval_ends_at_all() -> None:
    middle, low, high = CALIBRATION.estimate(1.0, 1.0, 0.2)
    assert (middle, high) == (pytest.approx(0.999, abs=1e-4), 1.0)
    assert low == pytest.approx(np.sin(np.arcsin(np.sqrt(0.999)) - 0.05) ** 2)


def test_where_all_are_alike_the_curve_is_finite() -> None:
    logits, alike = answered(200, 0.0, 1.0)
    curve = Curve.fitted(logits, np.ones_like(alike))
    assert 0.98 < curve.expected(0.9) < 1


def test_what_no_curve_can_be_fitted_to() -> None:
    logits, alike = answered(200, 0.5, 1.0)
    with pytest.raises(NoEstimate, match="199 held-out images are too few, it takes 200: distil for longer"):
        Curve.fitted(logits[:199], alike[:199])
    with pytest.raises(NoEstimate, match="agrees on 0% of held-out images, it takes 60%: distil for longer"):
        Curve.fitted(logits, np.zeros_like(alike))
    with pytest.raises(NoEstimate, match="does not tell how sure"):
        Curve.fitted(100 * np.eye(5)[logits.argmax(1)], alike)
