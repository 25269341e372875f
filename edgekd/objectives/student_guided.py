"""The student shows the way: of a teacher that only answers, and bills, each question is chosen before it is asked.

After IDEAL (Zhang et al., ICLR 2023), DisGUIDE (Rosenthal et al., AAAI 2023) and QEDG (Pei et al., AAAI 2025): the
generator sees the student alone, or several of them, and looks for images that they call something, all classes alike,
and on which they do not agree. The teacher is asked about those afterwards, once each, and nothing of it is
differentiated. What is asked next the training decides, by the recipe: `asked`, `bred` and `doubted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.config import OF_CHUNKS, OF_HEADERS, OF_REFINEMENT, Recipe
from edgekd.errors import BadSetting
from edgekd.synthesis import losses, questions
from edgekd.synthesis.sought import sought
from edgekd.teachers import Answer, Signal
from edgekd.teachers.lesson import Lesson, mean_logits

Terms = dict[str, Tensor]
OF_TEACHERS = ("activation", "statistics", "adversary", "momentum", "warm_up")
"""Weights of what only a teacher with a gradient answers, or that need one."""


class StudentGuided:
    """One student that imitates its teachers' mean; one generator that looks for what the student can say of images.

    Attributes:
        needs: signals without which the recipe makes no sense.
        watches_student: always False: the generator's terms read students where other methods have teachers.
        kept: sizes of the mean logits of one image.
    """

    watches_student = False

    def __init__(self, recipe: Recipe, lesson: Lesson) -> None:
        # Of the asked, `bred` is the children's share.
        recipe.refuse("children", *OF_REFINEMENT, *OF_TEACHERS, *OF_HEADERS, *OF_CHUNKS)
        if not (recipe.asked and recipe.prior) or recipe.share_batch or recipe.shift or recipe.mirror:
            allowed = "asked and prior above 0, share_batch=false, shift=0, mirror=false"
            raise BadSetting("it asks about each image once", where="recipe of student-guided", allowed=allowed)
        if recipe.rivalry and not recipe.rivals:
            raise BadSetting("rivalry without rivals", where="recipe: rivalry", allowed="0, or rivals above 0")
        self.recipe, self.task, self.kept = recipe, lesson.task, lesson.answer
        self.needs = frozenset({Signal.LABELS})

    def target(self, answers: Sequence[Answer]) -> Tensor:
        """Mean logits, `[N, K]` or `[N, K, h, w]`."""
        return mean_logits(answers)

    def logits(self, target: Tensor) -> Tensor:
        """The target itself."""
        return target

    def generator_terms(self, answers: Sequence[Answer], student: Tensor | None, labels: Tensor | None) -> Terms:  # noqa: ARG002 - the students are the answers
        """Weighted terms for the generator.

        Args:
            answers: of the student and its rivals, with gradients to the generated images.
            student: nothing.
            labels: `[N]`, the classes that were wanted, or None where the student's own choice stands in for them.
        """
        recipe, rows = self.recipe, [questions.rows(answer.logits, self.task) for answer in answers]
        terms = sought(answers, recipe, self.task, labels)
        if recipe.certainty:
            terms["certainty"] = recipe.certainty * torch.stack([losses.certainty(one) for one in rows]).mean()
        if recipe.likeness:
            terms["likeness"] = recipe.likeness * torch.stack([losses.likeness(one) for one in rows]).mean()
        if recipe.rivalry:
            terms["rivalry"] = recipe.rivalry * losses.contention(rows)
        return terms

    def student_terms(self, student: Tensor, target: Tensor) -> Terms:
        """Weighted terms for a student: `[N, K]` logits of its own and of its teachers' mean.

        What it calls otherwise than the teacher weighs `mistakes` times as much (QEDG, there 1.5 to 3).
        """
        own, theirs = questions.rows(student, self.task), questions.rows(target, self.task)
        return {"soft_labels": _weighed(own, theirs, self.recipe.temperature, self.recipe.mistakes)}

    def parameters(self) -> Iterable[nn.Parameter]:
        """Nothing is learned beside the student."""
        return ()

    def end_round(self) -> None:
        """Nothing outlives a round."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing a checkpoint needs."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up nothing."""


def _weighed(student: Tensor, teacher: Tensor, temperature: float, mistakes: float) -> Tensor:
    """`losses.soft_labels` of `[N, K]` logits with a weight for each row, whose mean is 1."""
    target = functional.log_softmax(teacher / temperature, dim=1)
    given = functional.log_softmax(student / temperature, dim=1)
    each = functional.kl_div(given, target, reduction="none", log_target=True).sum(dim=1) * temperature**2
    weights = 1 + (mistakes - 1) * (student.argmax(dim=1) != teacher.argmax(dim=1)).float()
    return (weights / weights.mean() * each).mean()
