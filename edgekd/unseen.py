"""Agreement on the real images that nobody has, from that on generated ones and the teacher's accuracy.

Whether a student follows its teacher on an image depends above all on how sure the teacher is of it. Three steps:

1. On held-out images the odds of agreement grow with how sure the teacher is, `g = -log(1 - c)` for its largest
   probability c: `log(p / (1 - p)) = intercept + slope · g`, a logistic regression (`Curve.fitted`).
2. How sure the teacher is of real images cannot be seen, but a teacher is sure about as often as it is right: the mean
   of c is near its accuracy a (equal for a calibrated one: Guo et al., ICML 2017). With nothing else known g is taken
   to be exponential, which of all distributions on the half line says least beyond its mean; then `1 - c` is
   Beta((1 - a) / a, 1). The mean of the curve over it is what to expect (`Curve.expected`).
3. A real image is harder to follow on than a generated one of which the teacher is as sure. So the estimate lies
   between what to expect and the share on held-out images, in logits. How far between is fitted on teachers, students
   and data sets for which all is known (`Calibration`, `benchmarks/fidelity/`).
4. The less a student has learned of what it was shown, the less is sure: the interval is as wide as its distillation
   loss is large, and above `LEARNED` there is no estimate.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgekd.config import Record, validated
from edgekd.run_folder import read_json

EDGE = 0.001
"""Shares are kept so far from 0 and 1 before their logit is taken."""
SUREST = 1e-4
"""A teacher is taken to be unsure by at least so much: beyond it nothing differs any more."""
LEAST = 200
"""Held-out images that a curve takes."""
FOLLOWED = 0.6
"""Of them that a student has to follow its teacher on. One that has not learned yet is on real images as on none."""
LEARNED, LEAST_LOSS = 0.2, 0.05
"""Distillation loss at the end of a run, at most: divergence from the teacher on what the student learns from, times T
squared. Students that came less far failed on real images now and then (letters, LeNet-5 on sounds), and on generated
ones they agreed no less often than others did. None came below the other number: intervals get no narrower there."""
_RIDGE, _PARTS, _ROUNDS = 0.01, 2000, 50

Floats = NDArray[np.floating]


class NoEstimate(Exception):
    """Why nothing can be said of real images; the message is for people."""


class Curve(Record):
    """Odds of agreement against how sure the teacher is: `intercept + slope · g`, in logits."""

    intercept: float
    slope: float

    @classmethod
    def fitted(cls, logits: Floats, alike: NDArray[np.bool_]) -> Curve:
        """By logistic regression, with a ridge that keeps it finite where all are alike.

        Args:
            logits: of the teacher, `[N, K]`.
            alike: whether the student chose as it did, `[N]`.

        Raises:
            NoEstimate: too few images, or too few that are alike, or a teacher that is equally sure of all of them.
        """
        if len(alike) < LEAST:
            raise NoEstimate(f"{len(alike)} held-out images are too few, it takes {LEAST}: distil for longer")
        if alike.mean() < FOLLOWED:
            told = f"the student agrees on {alike.mean():.0%} of held-out images, it takes {FOLLOWED:.0%}"
            raise NoEstimate(f"{told}: distil for longer")
        sure = sureness(confidence(logits))
        if sure.std() < SUREST:
            raise NoEstimate("the teacher does not tell how sure it is")
        inputs = np.stack([np.ones_like(sure), sure], axis=1)
        found = np.zeros(2)
        for _ in range(_ROUNDS):  # Newton's method
            likely = _logistic(inputs @ found)
            curved = (inputs * (likely * (1 - likely))[:, None]).T @ inputs + _RIDGE * np.eye(2)
            step = np.linalg.solve(curved, inputs.T @ (alike - likely) - _RIDGE * found)
            found += step
            if np.abs(step).max() < 1e-9:
                break
        return cls(intercept=float(found[0]), slope=float(found[1]))

    def expected(self, accuracy: float) -> float:
        """Agreement on images of which a teacher of that accuracy is as sure as it is often right."""
        middles = (np.arange(_PARTS) + 0.5) / _PARTS
        unsure = middles ** (accuracy / (1 - accuracy))
        return float(_logistic(self.intercept + self.slope * sureness(1 - unsure)).mean())


class Calibration(Record):
    """From what to expect, and the share on held-out images, to agreement on real ones: as
    `benchmarks/fidelity/fit.py` fitted it.

    Attributes:
        weight: of the logit of the share on held-out images; the rest is that of what to expect.
        promised: share of other data sets, if they are like these, whose students are in the interval: of K data sets
            K / (K + 1), at most 0.9.
        reach: of the interval, on both sides, as `turned`, by distillation loss: a quantile of what was missed on data
            sets that were left out.
        triples, datasets: what it was fitted on.
    """

    schema_version: Literal["edgekd.fidelity-calibration/3"] = Field(alias="schema")
    weight: float
    promised: float = Field(gt=0, lt=1)
    reach: float = Field(ge=0)
    triples: int
    datasets: tuple[str, ...]

    def estimate(self, expected: float, held_out: float, loss: float) -> tuple[float, float, float]:
        """Agreement on the unseen real images, and the ends of its interval.

        Args:
            expected: what `Curve.expected` says.
            held_out: share of held-out images on which the student agrees.
            loss: at the end of its distillation, not above `LEARNED`.
        """
        middle = float(between(expected, held_out, self.weight))
        return middle, *interval(middle, self.reach, loss)


def interval(estimate: float, reach: float, loss: float) -> tuple[float, float]:
    """About an estimate, as far as `Calibration.reach` says for a student of such a loss."""
    wide = reach * max(loss, LEAST_LOSS)
    low, high = np.sin(np.clip(turned(estimate) + np.array([-wide, wide]), 0, np.pi / 2)) ** 2
    return float(low), float(high)


def missed(estimate: float, true: float, loss: float) -> float:
    """How far an estimate is from the truth, in what `Calibration.reach` is told in."""
    return abs(float(turned(estimate) - turned(true))) / max(loss, LEAST_LOSS)


def between(expected: Floats | float, held_out: Floats | float, weight: Floats | float) -> Floats:
    """Shares between two others, in logits."""
    return _logistic((1 - weight) * logit(expected) + weight * logit(held_out))


def turned(share: Floats | float) -> NDArray[np.float64]:
    """The arcsine of a share's square root: shares near 0 and 1 err less than others, as angles they err alike."""
    return np.asarray(np.arcsin(np.sqrt(share)))


def confidence(logits: Floats) -> NDArray[np.float64]:
    """The largest probability that a teacher of logits `[N, K]` gives, `[N]`."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    largest: NDArray[np.float64] = 1 / powers.sum(axis=1)
    return largest


def sureness(confident: Floats) -> NDArray[np.float64]:
    """-log(1 - c), of probabilities not nearer than `SUREST` to 1."""
    return -np.log(np.clip(1 - confident, SUREST, 1))


def logit(share: float | Floats) -> NDArray[np.float64]:
    """log(p / (1 - p)), of shares not nearer than `EDGE` to 0 and 1."""
    kept = np.clip(share, EDGE, 1 - EDGE)
    return np.asarray(np.log(kept / (1 - kept)))


def _logistic(logits: Floats) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))))


def shipped_calibration() -> Calibration | None:
    """The calibration that came with edgekd, if one was good enough to be shipped."""
    path = Path(str(resources.files("edgekd") / "fidelity.json"))
    return read_calibration(path) if path.is_file() else None


def read_calibration(path: Path) -> Calibration:
    """A fitted calibration.

    Raises:
        BadSetting, BadRun: unreadable, or not one.
    """
    return validated(Calibration, read_json(path), path)
