"""What a teacher that bills is asked about next: of images that were generated or bred, those that a student doubts.

It chooses among images and asks nobody. How many questions a round has is the loop's business, in `distill`.
"""

from __future__ import annotations

from torch import Tensor

from edgekd.synthesis import questions
from edgekd.tasks import Task


def doubtful(logits: Tensor, task: Task, doubted: float) -> Tensor:
    """Which images a student is so little sure of that an answer would tell it something: bool `[N]`.

    Args:
        logits: the student's, `[N, K]` or `[N, K, h, w]`.
        task: how they are read.
        doubted: from this confidence on nothing is asked (QEDG, Pei et al., AAAI 2025: 0.7). Confidence is the largest
            probability, of several labels or pixels their mean. At 1 every image is doubtful.
    """
    sure = questions.rows(logits, task).softmax(dim=1).amax(dim=1)
    confidence = sure.view(len(logits), -1).mean(dim=1)
    return (confidence < doubted) | (doubted >= 1)
