"""The objective of NAYER (Tran et al., CVPR 2024) and, but for its labels, of Fast-Datafree (Fang et al., AAAI 2022).

As the authors' code has it (datafree/synthesis/nayer.py): the generator is told which class to show, matches the
running statistics in raw units with a momentum over rounds, and is rewarded for disagreement only where student and
teacher still choose the same class. Where batch normalization is folded away it matches nothing: there is no prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from edgekd.config import OF_CHUNKS, OF_HEADERS, OF_QUESTIONS, OF_REFINEMENT, Recipe
from edgekd.errors import BadSetting
from edgekd.synthesis import losses
from edgekd.teachers import Answer, Moments, Signal
from edgekd.teachers.lesson import Lesson, mean_logits

Terms = dict[str, Tensor]


class Nayer:
    """One student that imitates its teachers' mean; one generator of images of wanted classes.

    Attributes:
        needs: signals without which the recipe makes no sense.
        watches_student: whether the generator's terms read the student's logits.
        kept: sizes of the mean logits of one image.
    """

    def __init__(self, recipe: Recipe, lesson: Lesson) -> None:  # of classes: noisy generators refuse other tasks
        if not recipe.noisy or recipe.activation or recipe.entropy:
            allowed = "noisy=true, activation=0, entropy=0"
            raise BadSetting("its generator is told the classes", where="recipe of nayer-style", allowed=allowed)
        recipe.refuse(*OF_REFINEMENT, *OF_HEADERS, *OF_CHUNKS, *OF_QUESTIONS)
        self.recipe, self.watches_student, self.kept = recipe, recipe.adversary > 0, lesson.answer
        self.needs = frozenset({Signal.GRADIENT})
        self._last: list[Moments] = []
        self._before: list[Moments] = []

    def target(self, answers: Sequence[Answer]) -> Tensor:
        """Mean logits, `[N, K]`."""
        return mean_logits(answers)

    def logits(self, target: Tensor) -> Tensor:
        """The target itself."""
        return target

    def generator_terms(self, answers: Sequence[Answer], student: Tensor | None, labels: Tensor | None) -> Terms:
        """Weighted terms for the generator, each the mean over teachers.

        Args:
            answers: one per teacher, with gradients to the generated images.
            student: the student's logits `[N, K]` for the same images, or None while nothing reads them.
            labels: `[N]`, the classes that were wanted.
        """
        assert labels is not None, "noisy was checked at the start"
        terms = {"one_hot": self.recipe.one_hot * _mean([losses.one_hot(a.logits, labels) for a in answers])}
        if self.recipe.statistics and all(answer.statistics for answer in answers):
            terms["statistics"] = self.recipe.statistics * self._statistics(answers)
        if student is not None:
            rewards = [losses.agreed_disagreement(student, a.logits) for a in answers]
            terms["adversary"] = self.recipe.adversary * _mean(rewards)
        return terms

    def student_terms(self, student: Tensor, target: Tensor) -> Terms:
        """Weighted terms for the student: `[N, K]` logits of its own and of its teachers' mean."""
        return {"soft_labels": losses.soft_labels(student, target, self.recipe.temperature)}

    def parameters(self) -> Iterable[nn.Parameter]:
        """Nothing is learned beside the student."""
        return ()

    def end_round(self) -> None:
        """Let the statistics of the round's last batch count in those of the rounds to come."""
        self._before = self._beside_earlier(self._last)

    def state_dict(self) -> dict[str, list[list[Tensor]]]:
        """What a checkpoint needs: the mean statistics of earlier rounds, layer by layer of all teachers."""
        return {"before": [[layer.mean, layer.variance] for layer in self._before]}

    def load_state_dict(self, state: dict[str, list[list[Tensor]]]) -> None:
        """Take up what an earlier `state_dict` gave."""
        self._before = [Moments(mean, variance) for mean, variance in state["before"]]

    def _statistics(self, answers: Sequence[Answer]) -> Tensor:
        layers = [layer for answer in answers for layer in answer.statistics]
        self._last = [Moments(layer.mean.detach(), layer.variance.detach()) for layer in layers]
        return losses.raw_statistics(layers, self._beside_earlier(layers)) / len(answers)

    def _beside_earlier(self, layers: Sequence[Moments]) -> list[Moments]:
        """A batch's statistics mixed with those of earlier rounds, where there were any."""
        share = self.recipe.momentum
        if not self._before or not share:
            return list(layers)
        return [
            Moments(share * then.mean + (1 - share) * now.mean, share * then.variance + (1 - share) * now.variance)
            for now, then in zip(layers, self._before, strict=True)
        ]


def _mean(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).mean()
