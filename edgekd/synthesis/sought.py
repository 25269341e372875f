"""What several methods ask of generated images alike: DAFL's three terms, weighted, each the mean over teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgekd.config import Recipe
from edgekd.synthesis import losses, questions
from edgekd.tasks import Task
from edgekd.teachers import Answer

WEIGHTS = ("one_hot", "activation", "entropy")


def sought(answers: Sequence[Answer], recipe: Recipe, task: Task, labels: Tensor | None) -> dict[str, Tensor]:
    """Terms by name (DAFL, eq. 2 to 4), without those of weight 0.

    Args:
        answers: one per teacher, with gradients to the generated images.
        recipe: the weights.
        task: how answers are read.
        labels: `[N]`, the classes that were wanted, or None where the teacher's own choice stands in for them.
    """
    weighted: dict[str, tuple[float, Callable[[Answer], Tensor]]] = {
        "one_hot": (recipe.one_hot, lambda a: losses.one_hot(questions.rows(a.logits, task), labels)),
        "activation": (recipe.activation, lambda a: losses.activation(_features(a))),
        "entropy": (recipe.entropy, lambda a: questions.entropy(a.logits, task)),
    }
    return {
        name: weight * torch.stack([term(answer) for answer in answers]).mean()
        for name, (weight, term) in weighted.items()
        if weight
    }


def remembered(answer: Answer) -> Tensor:
    """Against the running statistics where a teacher has them, else against what folding them away has left."""
    return losses.statistics(answer.statistics) if answer.statistics else losses.statistics_prior(answer.folded)


def _features(answer: Answer) -> Tensor:
    assert answer.features is not None, "needs was checked before training"
    return answer.features
