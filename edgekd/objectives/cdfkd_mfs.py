"""CDFKD-MFS (Hao et al., IEEE TMM 2022) and its precursor CDFKD (ICME 2021): a header of the student for every teacher.

The student minimises how far each header is from its teacher, in logits and in features, and how far the headers' mean
is from the teachers'. In CDFKD-MFS the generator seeks images on which headers and teachers differ, by logits alone:
that is the asymmetry. In CDFKD it maximises all that the student minimises. As the authors' code has it (CDFKD_MFS.py,
CDFKD.py); DAFL's terms, which their first recipes use instead of an adversary, may be added.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.config import OF_CHUNKS, OF_QUESTIONS, Recipe
from edgekd.errors import BadModel, BadSetting
from edgekd.synthesis import losses, questions
from edgekd.synthesis.sought import WEIGHTS, sought
from edgekd.teachers import Answer, Signal
from edgekd.teachers.lesson import Lesson

Terms = dict[str, Tensor]
FIRST_LAYER = 5
"""How often the first layer's statistics count where they are matched in the teacher's own units (CDFKD_MFS.py)."""


class Cdfkd:
    """A student with H headers that imitate H teachers.

    Attributes:
        needs: signals without which the recipe makes no sense.
        watches_student: whether the generator's terms read the student's answer.
        kept: H times K logits and, where the recipe compares features, all teachers' features behind them.
        projections: for each teacher a linear map from the header's feature to its own, where their widths differ.

    Raises:
        BadSetting: one teacher alone, weights that leave nothing to learn, features whose widths differ.
        BadModel: a teacher without features, which are to be compared.
    """

    def __init__(self, recipe: Recipe, lesson: Lesson) -> None:
        _check(recipe, lesson)
        self.recipe, self.task = recipe, lesson.task
        self.headers, self.classes = len(lesson.teachers), lesson.answer[0]
        self.needs = frozenset(
            {Signal.GRADIENT} | ({Signal.FEATURES} if recipe.features or recipe.activation else set())
        )
        self.watches_student = recipe.adversary > 0
        self.widths = [_widths(lesson, place) for place in range(self.headers)] if recipe.features else []
        self.kept: tuple[int, ...] = (self.headers * self.classes + sum(theirs for _, theirs in self.widths),)
        self.projections = nn.ModuleList(
            nn.Identity() if own == theirs else _projection(recipe, lesson, place, own, theirs)
            for place, (own, theirs) in enumerate(self.widths)
        )

    def target(self, answers: Sequence[Answer]) -> Tensor:
        """The teachers' logits one after the other, then their features: `[N, H K + sum of F]`."""
        parts = [answer.logits for answer in answers]
        parts += [answer.features.float() for answer in answers if self.widths and answer.features is not None]
        return torch.cat(parts, dim=1)

    def logits(self, target: Tensor) -> Tensor:
        """Mean logits `[N, K]`."""
        return self._theirs(target).mean(dim=1)

    def generator_terms(self, answers: Sequence[Answer], student: Tensor | None, labels: Tensor | None = None) -> Terms:
        """Weighted terms for the generator.

        Args:
            answers: one per teacher, with gradients to the generated images.
            student: logits and features of the headers `[N, H, K + F]` for the same images, or None.
            labels: `[N]`, the classes that were wanted, or None where the teacher's own choice stands in for them.
        """
        terms = sought(answers, self.recipe, self.task, labels)
        known = [answer for answer in answers if answer.statistics or answer.folded]
        if known and self.recipe.statistics:
            terms["statistics"] = self.recipe.statistics * torch.stack([self._statistics(a) for a in known]).mean()
        if student is not None:
            terms["adversary"] = -self.recipe.adversary * self._adversary(student, answers)
        return terms

    def student_terms(self, student: Tensor, target: Tensor) -> Terms:
        """Weighted terms for the student.

        Args:
            student: logits and features of the headers, `[N, H, K + F]`.
            target: of the same images.
        """
        own, theirs, recipe = student[..., : self.classes], self._theirs(target), self.recipe
        terms: Terms = {}
        if recipe.heads:
            terms["heads"] = recipe.heads * self._distance(own, theirs)
        if recipe.features:
            terms["features"] = recipe.features * self._features(student[..., self.classes :], target)
        if recipe.ensemble:
            means = own.mean(dim=1, keepdim=True), theirs.mean(dim=1, keepdim=True)
            terms["ensemble"] = recipe.ensemble * self._distance(*means)
        return terms

    def parameters(self) -> Iterable[nn.Parameter]:
        """The projections'."""
        return self.projections.parameters()

    def end_round(self) -> None:
        """Nothing outlives a round."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the projections."""
        return dict(self.projections.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what an earlier `state_dict` gave."""
        self.projections.load_state_dict(state)

    def _theirs(self, target: Tensor) -> Tensor:
        """The teachers' logits `[N, H, K]`."""
        return target[:, : self.headers * self.classes].reshape(-1, self.headers, self.classes)

    def _distance(self, own: Tensor, theirs: Tensor) -> Tensor:
        """Of logits `[N, H, K]`, mean over headers: L1, mean over classes, or the Kullback-Leibler divergence."""
        if self.recipe.distance == "l1":
            return (own - theirs).abs().mean()
        rows = [questions.rows(logits.flatten(0, 1), self.task) for logits in (own, theirs)]
        return losses.soft_labels(rows[0], rows[1], self.recipe.temperature)

    def _features(self, own: Tensor, target: Tensor) -> Tensor:
        """Sum of absolute differences, mean over images and headers; own features `[N, H, F]`."""
        theirs = torch.split(target[:, self.headers * self.classes :], [width for _, width in self.widths], dim=1)
        pairs = zip(self.projections, own.unbind(dim=1), theirs, strict=True)
        return torch.stack([(project(mine) - its).abs().sum(dim=1).mean() for project, mine, its in pairs]).mean()

    def _adversary(self, student: Tensor, answers: Sequence[Answer]) -> Tensor:
        """What the generator is to raise: the L1 distance of logits alone, or all that the student lowers."""
        target = self.target(answers)
        if self.recipe.symmetric:
            return torch.stack(list(self.student_terms(student, target).values())).sum()
        return (student[..., : self.classes] - self._theirs(target)).abs().mean()

    def _statistics(self, answer: Answer) -> Tensor:
        """Against the running statistics where the teacher has them, else against what folding them away has left."""
        layers = answer.statistics
        if not layers:
            return losses.statistics_prior(answer.folded)
        if not self.recipe.raw_statistics:
            return losses.statistics(layers)
        first = losses.raw_statistics(layers[:1], layers[:1])
        return losses.raw_statistics(layers, layers) + (FIRST_LAYER - 1) * first


def _check(recipe: Recipe, lesson: Lesson) -> None:
    if len(lesson.teachers) < 2:
        hint = "for a single teacher say --method edgekd"
        raise BadSetting("one teacher alone", where="a header for every teacher", allowed="two and more", hint=hint)
    recipe.refuse("momentum", *OF_CHUNKS, *OF_QUESTIONS)
    if recipe.features and recipe.rivals:
        what = "maps of features are learned for one student alone"
        raise BadSetting(what, where="recipe: rivals, features", allowed="features=0 where there are rivals")
    if not (recipe.heads or recipe.ensemble):
        raise BadSetting("the student learns no logits", where="recipe: heads, ensemble", allowed="one of them above 0")
    if not any(getattr(recipe, name) for name in (*WEIGHTS, "statistics", "adversary")):
        names = ", ".join((*WEIGHTS, "statistics", "adversary"))
        raise BadSetting("every weight of the generator's loss is zero", where=f"recipe: {names}")


def _widths(lesson: Lesson, place: int) -> tuple[int, int]:
    """Of the features of the student's headers, and of one teacher's."""
    theirs = lesson.features[place]
    if theirs is None or lesson.header is None:
        what = "its features are to be compared, and it offers none"
        raise BadModel(what, where=lesson.teachers[place], hint="do without: --set features=0")
    return lesson.header, theirs


def _projection(recipe: Recipe, lesson: Lesson, place: int, own: int, theirs: int) -> nn.Module:
    if not recipe.projection:
        what = f"{lesson.teachers[place]} has features of {theirs} numbers, the student's headers of {own}"
        raise BadSetting(what, where="recipe: features", allowed="equal widths, projection=true or features=0")
    return nn.Linear(own, theirs)
