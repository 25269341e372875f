"""DAFL (Chen et al., ICCV 2019), and the terms that make it stable: statistics, an adversary, soft labels at T > 1.

Each weight is set in the recipe; the published method is the one whose added weights are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.config import OF_CHUNKS, OF_HEADERS, OF_QUESTIONS, Recipe
from edgekd.errors import BadSetting
from edgekd.synthesis import losses, questions
from edgekd.synthesis.sought import remembered, sought
from edgekd.teachers import Answer, Signal
from edgekd.teachers.lesson import Lesson, mean_logits

Terms = dict[str, Tensor]


class Dafl:
    """One student that imitates its teachers' mean; one generator that looks for what the teachers recognise.

    Attributes:
        needs: signals without which the recipe makes no sense.
        watches_student: whether the generator's terms read the student's logits.
        kept: sizes of the mean logits of one image.
    """

    def __init__(self, recipe: Recipe, lesson: Lesson) -> None:
        self.recipe, self.task, self.kept = recipe, lesson.task, lesson.answer
        others = (recipe.one_hot, recipe.activation, recipe.entropy, recipe.adversary)
        if not any((*others, recipe.statistics)):
            raise BadSetting("every weight of the generator's loss is zero", where=f"recipe: {', '.join(_WEIGHTS)}")
        recipe.refuse("momentum", *OF_HEADERS, *OF_CHUNKS, *OF_QUESTIONS)
        needs = {Signal.FEATURES: recipe.activation > 0, Signal.STATISTICS: not any(others)}
        self.needs = frozenset({Signal.GRADIENT} | {signal for signal, needed in needs.items() if needed})
        self.watches_student = recipe.adversary > 0

    def target(self, answers: Sequence[Answer]) -> Tensor:
        """Mean logits, `[N, K]` or `[N, K, h, w]`."""
        return mean_logits(answers)

    def logits(self, target: Tensor) -> Tensor:
        """The target itself."""
        return target

    def generator_terms(self, answers: Sequence[Answer], student: Tensor | None, labels: Tensor | None = None) -> Terms:
        """Weighted terms for the generator: each the mean over teachers.

        Args:
            answers: one per teacher, with gradients to the generated images.
            student: the student's logits `[N, K]` for the same images, or None when nothing reads them.
            labels: `[N]`, the classes that were wanted, or None where the teacher's own choice stands in for them.
        """
        weighted: dict[str, tuple[float, Callable[[Answer], Tensor]]] = {
            "statistics": (self.recipe.statistics, remembered)
        }
        if student is not None:
            own = self._rows(student)
            weighted["adversary"] = self.recipe.adversary, lambda a: losses.disagreement(own, self._rows(a.logits))
        if not all(answer.statistics or answer.folded for answer in answers):
            del weighted["statistics"]
        return sought(answers, self.recipe, self.task, labels) | {
            name: weight * torch.stack([term(answer) for answer in answers]).mean()
            for name, (weight, term) in weighted.items()
            if weight
        }

    def student_terms(self, student: Tensor, target: Tensor) -> Terms:
        """Weighted terms for the student: `[N, K]` logits of its own and of its teachers' mean."""
        rows = self._rows(student), self._rows(target)
        return {"soft_labels": losses.soft_labels(*rows, self.recipe.temperature)}

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

    def _rows(self, logits: Tensor) -> Tensor:
        return questions.rows(logits, self.task)


_WEIGHTS = ("one_hot", "activation", "entropy", "statistics", "adversary")
