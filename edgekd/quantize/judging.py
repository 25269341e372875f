"""How close answers stay to those of the float model, on samples that nothing was calibrated on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekd.inference import agreement, by_class, scores_name
from edgekd.quantize.observation import runs
from edgekd.quantize.samples import Source, Stored, batches
from edgekd.tasks import Task, fitting

Floats = NDArray[np.float32]
_ANSWER_BYTES = 2**25
"""Answers are kept; those of every pixel are many: then fewer samples are looked at."""


@dataclass(frozen=True)
class Fidelity:
    """What is left of the float model's answers.

    Attributes:
        agreement: share of questions answered alike (images of the same class, as a rule); None where the output
            chooses nothing.
        sqnr_db: power of the answers over that of their error, in decibels.
    """

    agreement: float | None
    sqnr_db: float

    @property
    def drop(self) -> float:
        """What was lost, from 0: answers that changed, or without choices the relative error."""
        return 1 - self.agreement if self.agreement is not None else 10 ** (-self.sqnr_db / 20)

    def better_than(self, other: Fidelity) -> bool:
        """Closer: fewer answers changed, or as many with less error."""
        return (-self.drop, self.sqnr_db) > (-other.drop, other.sqnr_db)


class Judge:
    """The float model's answers on samples, to hold other models' answers against.

    Args:
        model: the float model.
        source: samples, of which as many are used as answers fit into memory.
        task: how its answers are read.
        layout: of its axes.
    """

    def __init__(self, model: ModelProto, source: Source, task: Task = "classes", layout: str = "NCHW") -> None:
        self._output, self._task, self._layout = scores_name(model), task, layout
        self._samples = self._affordable(model, source)
        self.expected = self._answers(model, self._samples)
        grid = self.expected.ndim == 4
        self._chooses = self.expected.ndim in (2, 4) and task in fitting(self.expected.shape[1], grid)

    def __len__(self) -> int:
        return len(self.expected)

    def __call__(self, model: ModelProto) -> Fidelity:
        """How close a model's answers to the same samples are."""
        found = self._answers(model, self._samples)
        expected = self.expected[: len(found)]
        alike = agreement(found, expected, self._task) if self._chooses else None
        noise = float(np.square(found.astype(np.float64) - expected).sum())
        signal = float(np.square(expected.astype(np.float64)).sum())
        return Fidelity(alike, 10 * math.log10(max(signal, 1e-30) / max(noise, 1e-30)))

    def some(self, count: int) -> Judge:
        """The same judge with fewer samples: quicker, and less sure."""
        fewer = object.__new__(Judge)
        fewer.__dict__ |= self.__dict__
        fewer._samples, fewer.expected = Stored(self._samples.images[:count]), self.expected[:count]
        return fewer

    def source(self) -> Source:
        """The samples it judges by."""
        return self._samples

    def _affordable(self, model: ModelProto, source: Source) -> Stored:
        first = next(batches(source, 1))
        one = max(1, self._answers(model, Stored(first)).nbytes, first.nbytes)
        count = max(1, min(len(source), _ANSWER_BYTES // one))
        return Stored(next(batches(source, count)))

    def _answers(self, model: ModelProto, source: Source) -> Floats:
        parts = [np.asarray(values[self._output], np.float32) for values in runs(model, source, [self._output])]
        return by_class(np.concatenate(parts), self._layout)
