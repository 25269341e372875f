"""Teacher-Class Network (Malik et al., 2020, arXiv 2004.03281): small students, each of which learns a chunk of the
teacher's dense representation.

Feed-forward, a student minimises its mean squared error. In the adversarial form each has a discriminator with an
auxiliary regression (AC-GAN, Odena et al., 2017), as the authors' notebooks have it. No student's loss reads another's
answer. The layer that joins them begins as the teacher's own and learns the teacher's logits, where the authors
fine-tune it with labels; no gradient of that reaches a student, which `Joined.both` sees to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.config import OF_HEADERS, OF_QUESTIONS, Recipe
from edgekd.errors import BadSetting
from edgekd.synthesis import losses, questions
from edgekd.synthesis.sought import remembered, sought
from edgekd.teachers import Answer, Signal
from edgekd.teachers.lesson import Lesson

Terms = dict[str, Tensor]
HIDDEN = (64, 128, 256, 512, 1024)
"""Widths of a discriminator's dense layers (the authors' notebooks)."""
ROWS = 4096
"""Pixels of a map that a discriminator looks at in one batch, at most."""


class Discriminator(nn.Module):
    """Rows `[M, L]` of a chunk to a logit for "the teacher's own" and to a regression of the chunk, `[M, 1 + L]`.

    It normalizes by the batch and remembers nothing of it, since it is never used afterwards.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((length, *HIDDEN), HIDDEN, strict=False):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, track_running_stats=False)]
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1 + length))

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.layers(rows)
        return found


class TeacherClass:
    """Students that learn a chunk each, and the layer that joins them.

    Attributes:
        needs: signals without which the recipe makes no sense.
        watches_student: whether the generator's terms read the joined logits.
        kept: of one image the representation in the chunks' order and behind it the logits, both flat.
        discriminators: one for every chunk, if the recipe has them.

    Raises:
        BadSetting: weights that leave the students or the generator nothing to learn.
    """

    def __init__(self, recipe: Recipe, lesson: Lesson) -> None:
        _check(recipe)
        self.recipe, self.task, self.answer = recipe, lesson.task, lesson.answer
        self.lengths = [len(chunk) for chunk in lesson.chunks]
        self.order = [number for chunk in lesson.chunks for number in chunk]
        self.pixels = math.prod(lesson.grid or ())
        self.numbers = len(self.order) * self.pixels
        self.kept: tuple[int, ...] = (self.numbers + math.prod(self.answer),)
        self.needs = frozenset({Signal.GRADIENT, Signal.FEATURES})
        self.watches_student = recipe.adversary > 0
        rivals = self.lengths if recipe.discriminators else []
        self.discriminators = nn.ModuleList(Discriminator(length) for length in rivals)

    def target(self, answers: Sequence[Answer]) -> Tensor:
        """The teacher's representation, put in the chunks' order, and its logits: `[N, R + A]`."""
        (answer,) = answers
        assert answer.features is not None, "needs was checked before training"
        return torch.cat([answer.features[:, self.order].float().flatten(1), answer.logits.flatten(1)], dim=1)

    def logits(self, target: Tensor) -> Tensor:
        """The teacher's logits, `[N, K]` or `[N, K, h, w]`."""
        return target[:, self.numbers :].reshape(-1, *self.answer)

    def generator_terms(self, answers: Sequence[Answer], student: Tensor | None, labels: Tensor | None = None) -> Terms:
        """Weighted terms for the generator.

        Args:
            answers: of the one teacher, with gradients to the generated images.
            student: representation and joined logits `[N, R + A]` for the same images, or None when nothing reads them.
            labels: `[N]`, the classes that were wanted, or None where the teacher's own choice stands in for them.
        """
        terms = sought(answers, self.recipe, self.task, labels)
        (answer,) = answers
        if self.recipe.statistics and (answer.statistics or answer.folded):
            terms["statistics"] = self.recipe.statistics * remembered(answer)
        if student is not None:
            rows = self._rows(self.logits(student)), self._rows(answer.logits)
            terms["adversary"] = self.recipe.adversary * losses.disagreement(*rows)
        return terms

    def student_terms(self, student: Tensor, target: Tensor) -> Terms:
        """Weighted terms for students, discriminators and the layer that joins them; `[N, R + A]` each.

        Terms of the students are sums over chunks: what each learns is then what it would learn alone.
        """
        own, theirs, recipe = self._chunks(student), self._chunks(target), self.recipe
        terms: Terms = {}
        if recipe.regression:
            errors = [functional.mse_loss(mine, its) for mine, its in zip(own, theirs, strict=True)]
            terms["regression"] = recipe.regression * torch.stack(errors).sum()
        if recipe.discriminators:
            pairs = list(zip(self.discriminators, own, theirs, strict=True))
            terms["fooling"] = recipe.discriminators * torch.stack([_fooling(*each) for each in pairs]).sum()
            terms["discriminating"] = recipe.discriminators * torch.stack([_telling(*each) for each in pairs]).sum()
        if recipe.joined:
            rows = self._rows(self.logits(student)), self._rows(self.logits(target))
            terms["joined"] = recipe.joined * losses.soft_labels(*rows, recipe.temperature)
        return terms

    def parameters(self) -> Iterable[nn.Parameter]:
        """The discriminators'."""
        return self.discriminators.parameters()

    def end_round(self) -> None:
        """Nothing outlives a round."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the discriminators."""
        return dict(self.discriminators.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what an earlier `state_dict` gave."""
        self.discriminators.load_state_dict(state)

    def _chunks(self, found: Tensor) -> tuple[Tensor, ...]:
        """The chunks of representations, `[N * pixels, length]` each."""
        maps = found[:, : self.numbers].reshape(-1, len(self.order), self.pixels)
        return torch.split(maps.transpose(1, 2).flatten(0, 1), self.lengths, dim=1)

    def _rows(self, logits: Tensor) -> Tensor:
        return questions.rows(logits, self.task)


def _fooling(discriminator: nn.Module, own: Tensor, theirs: Tensor) -> Tensor:
    """A student's loss: to be taken for the teacher, and to let the chunk be told; the discriminator learns nothing."""
    own, theirs = _some(own), _some(theirs)
    fixed = {name: value.detach() for name, value in discriminator.named_parameters()}
    return _loss(torch.func.functional_call(discriminator, fixed, (own,)), theirs, real=True)


def _telling(discriminator: nn.Module, own: Tensor, theirs: Tensor) -> Tensor:
    """A discriminator's loss: to tell the teacher's answers from the student's, and the chunk from both."""
    own, theirs = _some(own).detach(), _some(theirs)
    return _loss(discriminator(theirs), theirs, real=True) + _loss(discriminator(own), theirs, real=False)


def _loss(found: Tensor, theirs: Tensor, *, real: bool) -> Tensor:
    wanted = torch.full_like(found[:, 0], float(real))
    told = functional.binary_cross_entropy_with_logits(found[:, 0], wanted)
    return told + functional.mse_loss(found[:, 1:], theirs)


def _some(rows: Tensor) -> Tensor:
    """Every so many rows, where there are more than a discriminator can look at."""
    return rows[:: -(-len(rows) // ROWS)]


def _check(recipe: Recipe) -> None:
    recipe.refuse("momentum", "rivals", *OF_HEADERS, *OF_QUESTIONS)
    if not (recipe.regression or recipe.discriminators):
        where = "recipe: regression, discriminators"
        raise BadSetting("the students learn no representation", where=where, allowed="one of them above 0")
    names = ("one_hot", "activation", "entropy", "statistics", "adversary")
    if not any(getattr(recipe, name) for name in names):
        raise BadSetting("every weight of the generator's loss is zero", where=f"recipe: {', '.join(names)}")
