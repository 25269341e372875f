"""Whether a generator has collapsed: its newest images fall into few classes, or look all alike.

It measures and names; what to do about it is for the training to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.synthesis import questions
from edgekd.tasks import Task

LEAST_BALANCE, LEAST_DIVERSITY = 0.5, 0.01


@dataclass(frozen=True)
class Health:
    """Of the newest generated images.

    Attributes:
        class_entropy: of the histogram of what the teacher chooses, as a share of the most there can be.
        diversity: mean absolute difference of two images, as a share of the range of their values.
        disagreement: share of answers in which the student chooses something else than the teacher.
    """

    class_entropy: float
    diversity: float
    disagreement: float

    @property
    def collapse(self) -> str:
        """What is wrong, or ""."""
        if self.class_entropy < LEAST_BALANCE:
            return f"they fall into few classes (entropy {self.class_entropy:.2f} of 1)"
        if self.diversity < LEAST_DIVERSITY:
            return f"they look alike (differ by {self.diversity:.1%} of the range)"
        return ""


def examined(codes: Tensor, teacher: Tensor, student: Tensor, task: Task) -> Health:
    """Health of uint8 images `[N, C, H, W]` by logits of teacher and student, `[N, K]` or `[N, K, h, w]` each."""
    neighbours = codes.float() - codes.roll(1, 0).float()
    theirs, own = (questions.rows(logits, task).argmax(1) for logits in (teacher, student))
    disagreement = float((theirs != own).float().mean())
    return Health(questions.balance(teacher, task), float(neighbours.abs().mean()) / 255, disagreement)
