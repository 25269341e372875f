"""What several teachers teach together: the mean of their answers, and the sizes of what may be learned from them.

An objective is made for a lesson: it knows from it how much of each answer there is to keep, and holds no teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.tasks import Task
from edgekd.teachers import Answer, Signal, Teacher
from edgekd.teachers.codes import from_codes
from edgekd.teachers.graph import GraphTeacher


@dataclass(frozen=True)
class Lesson:
    """Sizes of what is taught.

    Attributes:
        task: how answers are read.
        answer: sizes of the logits of one image, `(K,)` or `(K, h, w)`.
        teachers: their names, for messages.
        features: of each teacher the width of its features, None where it offers none.
        header: width of the features of each of the student's headers, None where it has one answer for all teachers.
        chunks: of each of the students side by side the numbers of the representation that it answers.
        grid: h, w of the representation, where that is a map.
    """

    task: Task = "classes"
    answer: tuple[int, ...] = ()
    teachers: tuple[str, ...] = ()
    features: tuple[int | None, ...] = ()
    header: int | None = None
    chunks: tuple[tuple[int, ...], ...] = ()
    grid: tuple[int, int] | None = None


def lesson_of(
    teachers: Sequence[Teacher],
    header: int | None,
    chunks: tuple[tuple[int, ...], ...] = (),
    grid: tuple[int, int] | None = None,
) -> Lesson:
    """The lesson of some teachers to a student; those that offer features are shown one image for their width.

    Args:
        teachers: of one input and the same classes.
        header, chunks, grid: as in `Lesson`.
    """
    spec, names = teachers[0].spec, tuple(teacher.spec.name for teacher in teachers)
    return Lesson(spec.task, spec.answer_shape, names, tuple(map(_width, teachers)), header, chunks, grid)


def _width(teacher: Teacher) -> int | None:
    if Signal.FEATURES not in teacher.signals or not isinstance(teacher, GraphTeacher):
        return None
    spec = teacher.spec
    with torch.no_grad():
        nothing = torch.zeros((1, spec.channels, spec.height, spec.width), dtype=torch.uint8)
        features = teacher(from_codes(nothing, spec.low, spec.high)).features
    return None if features is None else features.shape[1]


def mean_logits(answers: Sequence[Answer]) -> Tensor:
    """What several teachers answer together: `[N, K]`, or `[N, K, h, w]`."""
    return torch.stack([answer.logits for answer in answers]).mean(dim=0)
