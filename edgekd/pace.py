"""How far a run is, by its clock or its steps, and how many questions to its teachers that is worth."""

from __future__ import annotations

import math
import time

from edgekd.config import DistillSettings
from edgekd.teachers.asked import AskedTeacher
from edgekd.training import Training

PRIOR_SHARE = 0.1
PRIOR_QUERIES = 0.5
"""What procedural images may take at most before training, of the time and of the queries."""
OWN_SHARE = 0.5
"""What images of one's own that are learned from alone may take of the time; those not reached are left out."""
SPENT, HURRY = 0.7, 4
"""The share of a run by which its queries are to be used up, and how many times the usual number a round may ask."""


class Clock:
    """Training time, wall or CPU, which a resumed run takes up where it was; the first process's counts."""

    def __init__(self, training: Training, settings: DistillSettings) -> None:
        self.training, self.settings = training, settings
        self.now = time.monotonic if settings.clock == "wall" else time.process_time
        self.started = self.now() - training.seconds

    def seconds(self) -> float:
        return self.now() - self.started

    def fraction(self) -> float:
        if self.settings.steps is not None:
            return self.training.step / self.settings.steps
        assert self.settings.minutes is not None
        return self.training.ranks.told(self.seconds() / (60 * self.settings.minutes))

    def expired(self) -> bool:
        """Whether the time of a run by the clock is up; one by steps ends between rounds."""
        return self.fraction() >= 1


def before_training(training: Training, limit: int | None) -> float:
    """Images that may be asked about before training."""
    return math.inf if limit is None else max(1, math.floor(_each(training, limit) * PRIOR_QUERIES))


def _each(training: Training, limit: int) -> float:
    """Of a limit the part of each teacher that is asked: one image costs as many queries as there are such teachers."""
    return limit / max(1, sum(isinstance(teacher, AskedTeacher) for teacher in training.teachers))


def due(training: Training, fraction: float, limit: int | None) -> int:
    """Images to ask about in a round, where they are chosen: the recipe's number, or what a limit leaves room for.

    A limit is spent evenly, from what procedural images leave of it until `SPENT` of the run is done, and never a few
    images at a time. The first round asks about some of the generator's whatever there is: one has to be held out.
    """
    usual = training.recipe.asked if training.recipe.generator_steps else 0
    if limit is None or not usual or not training.step:
        return usual
    if training.spent or fraction >= SPENT:
        return 0 if training.spent else HURRY * usual
    planned = _each(training, limit) * (PRIOR_QUERIES + (1 - PRIOR_QUERIES) * fraction / SPENT)
    behind = math.ceil(planned) - training.asked
    return min(HURRY * usual, behind) if behind >= usual else 0
