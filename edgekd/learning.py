"""The students of a run: what they answer, what they learn in a step, and which of them is kept.

There is one, or there are several that learn the same, each from its own random weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.codes import Bound
from edgekd.config import Recipe
from edgekd.distributed import Ranks
from edgekd.networks.optimizers import student_optimizer
from edgekd.networks.standardized import Standardized
from edgekd.objectives import Objective
from edgekd.synthesis import questions
from edgekd.synthesis.bank import Bank
from edgekd.tasks import Task
from edgekd.teachers.codes import from_codes

PART = 256
"""Images answered at a time where nothing is learned."""
EACH = 4096
"""Images of each bank by which students are compared: those of one run differ by a percent or two."""
Terms = dict[str, Tensor]
"""Loss terms by name. They stay tensors until they are told: a GPU need not be waited for."""


class Students:
    """Networks that learn side by side, and their optimizer.

    Args:
        first: images to logits.
        rivals: more students, which learn what the first one learns.
        objective: what of the teachers' answers they imitate.
        recipe: rates and weights.
        task: how answers are read.
        ranks: the processes that train together; batches below are always the whole ones.
        autocast: in which precision they answer.
    """

    def __init__(
        self,
        first: Standardized,
        rivals: Sequence[Standardized],
        objective: Objective,
        recipe: Recipe,
        task: Task,
        ranks: Ranks,
        autocast: torch.autocast,
    ) -> None:
        self.first, self.rivals = first.train(), nn.ModuleList(rivals).train()
        self.objective, self.recipe, self.task, self.ranks, self.autocast = objective, recipe, task, ranks, autocast
        everything = [*first.parameters(), *self.rivals.parameters(), *objective.parameters()]
        self.learning = [parameter for parameter in everything if parameter.requires_grad]
        self.optimizer = student_optimizer(self.learning, recipe)

    @property
    def all(self) -> list[Standardized]:
        """The first one, then its rivals."""
        return [self.first, *self.rivals]

    def learn(self, images: Tensor, targets: Tensor) -> Terms:
        """One update on images `[N, C, H, W]` and what is kept of the answers; the loss terms."""
        shown = ready(self.ranks.share(images))
        terms: Terms = {}
        with self.autocast:
            answers = torch.cat([student.answers(shown) for student in self.all], dim=1)
        for number, own in enumerate(self.ranks.gather(answers.float(), len(images)).unbind(dim=1)):
            found = self.objective.student_terms(own, targets)
            terms |= {f"{name}_{number}" if number else name: term for name, term in found.items()}
        self.optimizer.zero_grad()
        torch.autograd.backward([total(terms)])
        self.ranks.average(self.learning)
        self.optimizer.step()
        return detached(terms)

    def follow(self, student: Standardized, images: Tensor, count: int) -> Tensor:
        """A student's answer to a whole batch, with gradients to this process's share of it, which `images` are."""
        student.train(not self.recipe.frozen_student)
        own = self.ranks.gather(student.answer(images).float(), count)
        student.train()
        return own

    def says(self, images: Tensor, student: nn.Module | None = None) -> Tensor:
        """Logits of the first one, or another, as it would answer in use, for images `[N, C, H, W]`."""
        asked = self.first if student is None else student
        with torch.no_grad(), self.autocast:
            own: Tensor = asked.eval()(ready(images)).float()
        asked.train()
        return own

    def best(self, banks: Sequence[tuple[float, Bank]], low: Bound, high: Bound) -> Standardized:
        """Which answers most of what they learned as the teachers do.

        Small students depend much on how they begin. They are compared on the newest images of every bank, and not on
        the held-out ones: those are to judge the one that is kept.

        Args:
            banks: what they learned from, each with its share of the batches.
            low, high: of the images' values.
        """
        if len(self.all) == 1:
            return self.first
        kept = [(share, *bank.newest(EACH)) for share, bank in banks if len(bank)]

        def agreement(student: nn.Module, codes: Tensor, targets: Tensor) -> float:
            own = torch.cat([self.says(from_codes(part, low, high), student) for part in torch.split(codes, PART)])
            wanted = questions.chosen(self.objective.logits(targets), self.task)
            return float((questions.chosen(own, self.task) == wanted).float().mean())

        return max(self.all, key=lambda student: sum(share * agreement(student, *pairs) for share, *pairs in kept))


def ready(images: Tensor) -> Tensor:
    """In the memory format in which networks are fast."""
    return images.contiguous(memory_format=torch.channels_last)


def total(terms: Terms) -> Tensor:
    """The loss."""
    return torch.stack(list(terms.values())).sum()


def detached(terms: Terms) -> Terms:
    """For telling them."""
    return {name: term.detach() for name, term in terms.items()}
