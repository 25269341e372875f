"""What a teacher is: something that answers images, and says which signals its answers carry.

Access is a property of the teacher's backward pass, never of the method: an objective says what it `needs`, a teacher
says which `signals` it offers, and `require` turns a mismatch into one clear error before training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from edgekd.errors import BadModel

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.teachers.spec import Interface


class Signal(StrEnum):
    """What an answer may carry."""

    LABELS = "labels"
    SCORES = "scores"
    GRADIENT = "gradient"
    FEATURES = "features"
    STATISTICS = "statistics"
    STATISTICS_PRIOR = "statistics_prior"


@dataclass(frozen=True)
class Moments:
    """What a batch showed in one layer: mean and biased variance, each `[channels]`."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Statistics(Moments):
    """One batch-normalization layer: beside a batch's moments those of the training data, each `[channels]`."""

    running_mean: Tensor
    running_variance: Tensor


@dataclass(frozen=True)
class Answer:
    """A teacher's answer to a batch of N images.

    Attributes:
        logits: `[N, K]` or, of every pixel of a grid, `[N, K, h, w]`; differentiable with respect to the images when
            the teacher offers `GRADIENT`.
        features: `[N, F]`, the input of the last dense layer, or None; `[N, F, h, w]` where the representation of a
            teacher of pixels was asked for (`edgekd.teachers.last_layer`).
        statistics: one entry per batch-normalization layer, in graph order; empty when there is none.
        folded: one entry per layer that looks like one whose batch normalization was folded away, in graph order; empty
            where `statistics` is not.
    """

    logits: Tensor
    features: Tensor | None = None
    statistics: tuple[Statistics, ...] = ()
    folded: tuple[Moments, ...] = ()


class Teacher(Protocol):
    """Answers images `[N, C, H, W]` in the value range of its spec.

    Attributes:
        order: which of its columns is class 0, 1, … of its answers; None: as they come. It may be set.
    """

    order: Sequence[int] | None

    @property
    def spec(self) -> Interface: ...

    @property
    def signals(self) -> frozenset[Signal]: ...

    def __call__(self, images: Tensor) -> Answer: ...


def require(teacher: Teacher, needs: Iterable[Signal], who: str, why: str = "") -> None:
    """Check, before any training, that a teacher offers every signal an objective needs.

    Args:
        teacher, needs: what is offered and what is asked for.
        who: needs it.
        why: what kept the teacher from offering more.

    Raises:
        BadModel: names what is missing.
    """
    missing = sorted(set(needs) - teacher.signals)
    if missing:
        offered = ", ".join(sorted(teacher.signals))
        what = f"{who} needs {', '.join(missing)}, this teacher offers only {offered}"
        estimable = Signal.GRADIENT in missing and Signal.SCORES in teacher.signals
        cure = "--gradient estimate makes one from more questions" if estimable else ""
        hint = "; ".join(filter(None, (why, cure)))
        raise BadModel(what, where=teacher.spec.name, hint=hint, page="tutorial.md#only-an-endpoint")
