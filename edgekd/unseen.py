"""Agreement on the real images that nobody has, from that on generated ones and the teacher's accuracy.

Whether a student follows its teacher on an image depends above all on how sure the teacher is of it. Three steps:

1. On held-out images the odds of agreement grow with how sure the teacher is, `g = -log(1 - c)` for its largest
   probability c: `log(p / (1 - p)) = intercept + slope · g`, a logistic regression (`Curve.fitted`).
2. How sure the teacher is of real images cannot be seen, but a teacher is sure about as often as it is right: the mean
   of c is near its accuracy a (equal for a calibrated one: Guo et al., ICML 2017). With nothing else known g is taken
   to be exponential, which of all distributions on the half line says least beyond its mean; then `1 - c` is
   Beta((1 - a) / a, 1). The mean of the curve over it is what to expect (`Curve.expected`).
3. A real image is harder to follow on than a generated one of which the teacher is as sure. By how much is one number
   in logits, fitted on teachers, students and data sets for which all is known (`benchmarks/fidelity/`); and so is the
   reach of the interval (`Calibration`).
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
    """The step from what to expect to agreement on real images, as `benchmarks/fidelity/fit.py` fitted it.

    Attributes:
        bias: added to the logit of what to expect.
        reach: of the interval, on both sides, in logits: a quantile of what was missed on data sets that were left out.
        triples, datasets: what it was fitted on.
    """

    schema_version: Literal["edgekd.fidelity-calibration/2"] = Field(alias="schema")
    bias: float
    reach: float = Field(ge=0)
    triples: int
    datasets: tuple[str, ...]

    def estimate(self, expected: float) -> tuple[float, float, float]:
        """Agreement on the unseen real images, and the ends of its interval, of what `Curve.expected` says."""
        middle = float(logit(expected)) + self.bias
        low, mid, high = map(float, _logistic(middle + np.array([-self.reach, 0.0, self.reach])))
        return mid, low, high


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
