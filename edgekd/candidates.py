"""Which students a sweep tries, in which order, and what time each gets. It trains none of them.

The largest comes first: while it learns, the generator and the bank come to be, and so it gets two shares of the time.
Each of the others learns from that bank for one share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

import torch

from edgekd.config import Record
from edgekd.errors import BadSetting
from edgekd.networks import build_student, choose_student, parameters, require_student
from edgekd.teachers.spec import TeacherSpec

FIRST, LEAST_MINUTES = 2, 0.1
"""Shares of the time for the first student, and what a share must be for anything to be learned in it."""


class Candidate(Record):
    """One student of a sweep: the run's folder, what it is called, its width, and its parameters where known before."""

    run: str
    student: str
    width: float | None
    parameters: int | None = None


def candidates(
    students: Sequence[str], widths: Sequence[float | None], teacher: TeacherSpec | None, count: int | None
) -> list[Candidate]:
    """Every student at every width, the largest first.

    Args:
        students, widths: as the user names them; a width of None is the student's own.
        teacher: what is known of it before it is opened; of a server or a function that is nothing, and then the order
            is the user's, the greatest width first.
        count: the teacher's parameters, if known.

    Raises:
        UnknownName: no student of such a name.
        BadSetting: named twice, or no student for such a teacher.
    """
    found = []
    for student, width in product(students, widths):
        require_student(student)
        named = re.sub(r"[^A-Za-z0-9._-]", "-", student) + (f"-{width:g}" if width is not None else "")
        found.append(
            Candidate(run=named, student=student, width=width, parameters=_size(student, width, teacher, count))
        )
    names = [one.run for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadSetting(
            f"{', '.join(twice)} is named twice", where="edgekd sweep", allowed="each student and width once"
        )
    return sorted(found, key=lambda one: (-(one.parameters or 0), -(one.width or 0)))


def _size(student: str, width: float | None, teacher: TeacherSpec | None, count: int | None) -> int | None:
    """Parameters of a student that is not built; None where the teacher tells too little."""
    if teacher is None:
        return None
    shape = (teacher.channels, teacher.height, teacher.width)
    name, chosen = choose_student(student, width, shape, teacher.classes, count, teacher.grid)
    with torch.device("meta"):
        return parameters(build_student(name, chosen, shape, teacher.classes, teacher.grid))


def shares(minutes: float, count: int) -> list[float]:
    """Minutes for each of so many students, the first one's first.

    Raises:
        BadSetting: too few for so many.
    """
    share = minutes / (count - 1 + FIRST)
    if share < LEAST_MINUTES:
        least = LEAST_MINUTES * (count - 1 + FIRST)
        what = f"{minutes:g} leaves {60 * share:.1f} s for each of {count} students, and twice that for the first"
        raise BadSetting(what, where="--minutes", allowed=f"{least:.3g} and more", hint="or name fewer students")
    return [FIRST * share, *[share] * (count - 1)]
