"""What changes while a student is distilled: networks, optimisers, banks, counters. All a checkpoint holds.

It knows how to take a round: generator steps, questions, student steps. When to take one is the loop's business, in
`distill`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgekd.codes import extent, stored_as
from edgekd.config import Recipe
from edgekd.distributed import ALONE, Ranks
from edgekd.learning import Students, Terms, detached, ready, total
from edgekd.machine import bfloat16_is_fast
from edgekd.networks.generators import Generator, RowGenerator
from edgekd.networks.optimizers import Optimizer
from edgekd.networks.standardized import Standardized
from edgekd.networks.synchronized import synchronize
from edgekd.objectives import Objective
from edgekd.synthesis import questions
from edgekd.synthesis.bank import Bank
from edgekd.synthesis.health import Health, examined
from edgekd.synthesis.inquiry import doubtful
from edgekd.synthesis.mixture import mixture
from edgekd.synthesis.motion import jittered, motions, moved
from edgekd.synthesis.neighbours import smoothed
from edgekd.synthesis.refinement import refined
from edgekd.synthesis.supply import Supply
from edgekd.teachers import Answer, Signal, Teacher
from edgekd.teachers.codes import from_codes, rounded
from edgekd.teachers.shared import affordable, answer

NEWEST = 256
"""Generated images set aside after which the newest so many are examined for a collapse."""
HELD_OUT = 1024
"""Generated images set aside from training, the newest ones."""
BANK_BYTES = 2**30
"""What a bank may hold: large images, and answers of their every pixel, make it shorter than the recipe says."""
COMPARED = 2048
"""Images asked about before among which a bare label looks for neighbours."""
OFTEN = 20
"""Times that a bare label is shown with its very image, on average, before that is moved: sooner is too soon to have
learned it by heart, and what a teacher says of one image does hold best for that one."""
ASIDE = 32
"""One image in so many is held out."""
PART = 256
"""Images asked about at a time."""
Expired = Callable[[], bool]


class Training:
    """One distillation in progress.

    Args:
        teachers: one or more.
        student: images to logits.
        generator: latent vectors to images.
        objective: the losses, and what of the teachers' answers the student imitates.
        recipe: sizes, rates and weights.
        ranks: the processes that train together; batches below are always the whole ones.
        rivals: more students, which learn what the first one learns; one of all of them is kept, see `chosen`.
        proxies: codes `[N, C, H, W]` of images of the user's own, asked about before procedural ones.
        alone: those images, or without any procedural ones, fill the bank instead, and nothing else is asked about or
            generated.

    Raises:
        BadSetting: a batch cannot be shared out evenly.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        student: Standardized,
        generator: Generator | RowGenerator,
        objective: Objective,
        recipe: Recipe,
        ranks: Ranks = ALONE,
        rivals: Sequence[Standardized] = (),
        proxies: Tensor | None = None,
        alone: bool = False,
    ) -> None:
        ranks.check_even(**_batches(recipe))
        self.ranks, spec = ranks, teachers[0].spec
        self.teachers, self.objective, self.recipe, self.task = teachers, objective, recipe, spec.task
        self.generator = generator.train()
        for network in (student, generator, *rivals):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
            synchronize(network, ranks)
        betas = (recipe.generator_beta, 0.999)
        self.generator_optimizer = torch.optim.Adam(generator.parameters(), recipe.generator_rate, betas=betas)
        self.device = next(student.parameters()).device
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16_is_fast(self.device))
        self.students = Students(student, rivals, objective, recipe, self.task, ranks, self.autocast)
        shape = (spec.channels, spec.height, spec.width)
        self.low, self.high = spec.low, spec.high
        most = max(recipe.student_batch, BANK_BYTES // (math.prod(shape) + 4 * math.prod(objective.kept)))
        self.alone, wanted = alone, (recipe.bank, recipe.prior)
        if alone:
            wanted = recipe.bank if proxies is None else len(proxies), 0
        sizes = min(wanted[0], most), min(wanted[1], most), min(HELD_OUT, most)
        kept, kind = (shape, objective.kept, spec.low, spec.high), stored_as(spec.layout)
        own = min(0 if proxies is None else len(proxies), sizes[1])
        self.bank = Bank(sizes[0], *kept, ranks, kind)
        self.prior = Bank(sizes[1], *kept, ranks, kind, stay=own)
        self.held_out = Bank(sizes[2], *kept, kind=kind)  # few: every process has all of them
        self.step, self.seconds, self.images_seen, self.warming_up = 0, 0.0, 0, False
        self.prior_share = recipe.prior_share
        self.examined, self.collapses, self.asked, self.spent = 0, 0, 0, False
        self.bare = all(teacher.signals == {Signal.LABELS} for teacher in teachers) and spec.task == "classes"
        shares = mixture(spec.mean, spec.std, spec.low, spec.high) if recipe.prior_mixed else None
        self.supply = Supply(self.bank if alone and proxies is None else self.prior, self._scores, proxies, shares)

    @property
    def missing(self) -> int:
        """Images that the teachers are still to be asked about before training."""
        if self.alone and self.supply.own:
            return min(self.supply.own, self.bank.capacity) - self.supply.used
        room = self.supply.bank.capacity - len(self.supply.bank)
        return room + max(1, room // (ASIDE - 1)) if self.alone and room else room  # some of them are set aside

    def ask_about_prior(self, most: float = math.inf) -> bool:
        """Ask the teachers about the next procedural images, or own ones; False when there are enough.

        Args:
            most: images to ask about, at most, where each is chosen; others ask for `PART` of them.
        """
        missing = self.missing
        if missing <= 0:
            return False
        images = self.supply.first(min(PART, missing))
        if self.recipe.asked:
            images = self._affordable(images[: int(min(len(images), most))])
        kept = self._keep_asked(images, self.keep if self.alone else self.prior.add)
        self.supply.note(kept)
        return kept > 0

    def _scores(self, targets: Tensor) -> Tensor:
        return questions.scores(self.objective.logits(targets), self.task)

    def _affordable(self, images: Tensor) -> Tensor:
        count = affordable(self.teachers, images, self.ranks)
        self.spent |= count < len(images)
        return images[:count]

    def round(self, fraction: float, due: int = 0, expired: Expired = lambda: False) -> Terms:
        """Updates of the generator, questions to the teachers, updates of the student.

        Args:
            fraction: of the run that is done.
            due: images to choose and ask about, where the recipe chooses them.
            expired: whether the run's time is up: a round may be long.

        Returns:
            The loss terms of the last updates.
        """
        self.begin_round(fraction)
        images, targets, terms = self.generator_round(expired)
        if due:
            self.ask_next(images, due)
        self.ask_about_children(self.recipe.children)
        for _ in range(0 if self.warming_up else self.recipe.student_steps):
            batch = (images, targets) if self.recipe.share_batch else self.diet()
            terms |= self.student_step(*batch)
            if expired():
                break
        self.step += 1
        return terms

    def begin_round(self, fraction: float) -> None:
        """What depends on the fraction of the run that is done, and what does not outlive a round."""
        recipe = self.recipe
        self.warming_up = not self.alone and fraction < recipe.warm_up
        learned = max(0.0, fraction - recipe.warm_up) / (1 - recipe.warm_up)
        self.prior_share = min(1.0, recipe.prior_share * (1 + recipe.prior_fall * (1 - 2 * min(fraction, 1.0))))
        _set_rate(self.generator_optimizer, recipe.generator_rate, fraction if recipe.anneal == "both" else 0.0)
        _set_rate(self.students.optimizer, recipe.student_rate, 0.0 if recipe.anneal == "none" else learned)
        reborn = bool(self.step and recipe.generator_life) and self.step % recipe.generator_life == 0
        if reborn:
            self._begin_generator_anew()
        elif self.generator.latents.renew():
            self.generator_optimizer.state.clear()

    def generator_round(self, expired: Expired) -> tuple[Tensor, Tensor, Terms]:
        """The generator's updates of one round; keeps every batch it made, or the one of least loss.

        Returns:
            The images and targets kept last, and the loss terms of the last update. Where the teachers are asked
            later, nothing is kept, and the targets are of the students' answers; without a generator there are none.
        """
        if self.alone or not self.recipe.generator_steps:
            return torch.empty(0), torch.empty(0), {}
        if self.recipe.refined_children and len(self.prior) and self.step % 2:
            images, targets, terms = self.refined_children()
            return *self.keep(images, targets), terms
        chosen, least = None, torch.tensor(math.inf)
        for _ in range(self.recipe.generator_steps):
            images, targets, terms = self.generator_step()
            if self.recipe.asked:
                kept = images, targets  # of what the students say; the teachers are asked later
            elif self.recipe.keep == "every":
                kept = self.keep(images, targets)
            elif chosen is None or total(terms) < least:
                chosen, least = (images, targets), total(terms)
            if expired():
                break
        self.objective.end_round()
        return *(kept if chosen is None else self.keep(*chosen)), terms

    def generator_step(self) -> tuple[Tensor, Tensor, Terms]:
        """One update of the generator.

        Returns:
            The images `[N, C, H, W]` it made before the update, refined if the recipe says so, what is kept of the
            answers, and the loss terms of what it made.
        """
        count, gather = self.recipe.generator_batch, self.ranks.gather
        with self.autocast:
            latents, labels = self.generator.latents()
            images = rounded(self.generator(self.ranks.share(latents)), self.low, self.high)
            images = self._moved(images, self.ranks.share(self._motions(count)))
        answers, terms = self._sought(images, count, labels)
        parameters = list(self.generator.parameters())
        # Only the generator's gradients are asked for: a plain backward would compute the student's, to no use.
        for parameter, gradient in zip(parameters, torch.autograd.grad(total(terms), parameters), strict=True):
            parameter.grad = gradient
        self.ranks.average(parameters)
        self.generator_optimizer.step()
        if self.recipe.refined:
            kept, targets, _ = self._refined(images.detach(), self.recipe.refined, labels)
            return kept, targets, detached(terms)
        return gather(images.detach(), count), self.objective.target(answers).detach(), detached(terms)

    def refined_children(self) -> tuple[Tensor, Tensor, Terms]:
        """As many children of procedural images as the generator makes, refined by what it is taught.

        Returns:
            As `generator_step`; the loss terms are those before the last step.
        """
        own = self.ranks.share(self.supply.bred(self.recipe.generator_batch))
        return self._refined(own, self.recipe.refined_children)

    def _refined(self, own: Tensor, steps: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Terms]:
        """A whole batch some steps down the generator's loss, out of this process's share; targets, terms before."""
        count = self.recipe.generator_batch
        terms: Terms = {}

        def loss(images: Tensor) -> Tensor:
            terms.update(self._sought(ready(images), count, labels)[1])
            return total(terms)

        images = self.ranks.gather(refined(own, loss, steps, self.low, self.high), count)
        with torch.no_grad(), self.autocast:
            return images, self._target(images), detached(terms)

    def _sought(self, images: Tensor, count: int, labels: Tensor | None) -> tuple[list[Answer], Terms]:
        """The answers to this process's share of a batch, and the terms by which the whole batch is judged."""
        with self.autocast:
            answers, student = self._guides(images, count), self._watched(images, count)
        return answers, self.objective.generator_terms(answers, student, labels)

    def ask_next(self, generated: Tensor, count: int) -> None:
        """Ask the teachers about so many images: a share that is bred, the rest generated, none that is not doubted.

        Args:
            generated: images `[N, C, H, W]` that the round's last generator step left; where too few of them are
                doubted there are the more bred ones.
            count: images; fewer where the student doubts fewer, or the queries end.
        """
        wanted = max(1, count - round(count * self.recipe.bred))
        fresh = self._keep_asked(self._affordable(self._doubted(generated)[:wanted]), self.keep)
        self.ask_about_children(count - fresh)

    def ask_about_children(self, count: int) -> None:
        """Breed so many procedural images of those asked before; ask the teachers about the ones that are doubted."""
        count = min(count, self.prior.capacity - self.prior.stay)
        if count > 0:
            self._keep_asked(self._affordable(self._doubted(self.supply.bred(count))), self.prior.add)

    def _keep_asked(self, images: Tensor, keep: Callable[[Tensor, Tensor], object]) -> int:
        """Ask the teachers about images and keep them with the answers; how many there are."""
        if len(images):
            with torch.no_grad(), self.autocast:
                targets = self._target(images)
            if self.bare and self.recipe.smoothing and len(self.prior):
                targets = smoothed(targets, images, *self.prior.draw(COMPARED), self.recipe.smoothing)
            keep(images, targets)
        self.asked += len(images)
        return len(images)

    def _doubted(self, images: Tensor) -> Tensor:
        """Those images of a batch that the student is not sure about."""
        if not len(images) or self.recipe.doubted >= 1:
            return images
        return ready(images[doubtful(self.students.says(images), self.task, self.recipe.doubted)])

    def _guides(self, images: Tensor, count: int) -> list[Answer]:
        """What the generator is led by: the teachers' answers, or the students' where the teachers are asked later."""
        if not self.recipe.asked:
            return self._answers(images, count)
        return [Answer(self.students.follow(one, images, count)) for one in self.students.all]

    def _answers(self, images: Tensor, count: int) -> list[Answer]:
        """What the teachers answer to a whole batch of `count` images, of which `images` are this process's share."""
        return [answer(teacher, images, count, self.ranks) for teacher in self.teachers]

    def _target(self, images: Tensor) -> Tensor:
        """What is kept of the teachers' answers to a whole batch."""
        return self.objective.target(self._answers(self.ranks.share(images), len(images)))

    def _watched(self, images: Tensor, count: int) -> Tensor | None:
        """The student's answer to the whole batch, where the generator's terms read it."""
        if self.warming_up or not self.objective.watches_student:
            return None
        return self.students.follow(self.students.first, images, count)

    def _motions(self, count: int) -> Tensor:
        return motions(count, self.recipe.shift, self.recipe.mirror)

    def _moved(self, images: Tensor, how: Tensor) -> Tensor:
        return ready(moved(images, how, self.recipe.shift, self.recipe.mirror, extent(self.low, self.high)[0]))

    def student_step(self, images: Tensor, targets: Tensor) -> Terms:
        """One update of the students on images `[N, C, H, W]` and what is kept of the answers; the loss terms."""
        terms = self.students.learn(images, targets)
        self.images_seen += len(images)
        return terms

    def chosen(self) -> Standardized:
        """The student to keep: of several the one that follows the teachers best in what they learned."""
        shares = (1 - self.recipe.prior_share, self.bank), (self.recipe.prior_share, self.prior)
        return self.students.best(shares, self.low, self.high)

    def examine(self) -> Health | None:
        """How the newest generated images are, if there are enough since the last time; cures a collapse.

        A generator that collapsed begins anew, as often as the recipe allows: what it made stays in the bank.
        """
        if self.alone or self.held_out.written - self.examined < NEWEST:
            return None
        self.examined = self.held_out.written
        codes, targets = self.held_out.newest(NEWEST)
        own = self.students.says(from_codes(codes, self.low, self.high))
        health = examined(codes, self.objective.logits(targets), own, self.task)
        self.collapses += bool(health.collapse)
        if health.collapse and self.collapses <= self.recipe.revivals:
            self._begin_generator_anew()
        return health

    def _begin_generator_anew(self) -> None:
        self.generator.reset()
        self.generator_optimizer.state.clear()

    def keep(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Set one image in 32 aside for good, put the others into the bank; returns the others."""
        aside = _aside(len(images))
        self.held_out.add(images[:aside], targets[:aside])
        if self.bank.capacity:
            self.bank.add(images[aside:], targets[aside:])
        return images[aside:], targets[aside:]

    def diet(self) -> tuple[Tensor, Tensor]:
        """A student batch out of the bank and the procedural images, with what is kept of the answers.

        Those are the stored ones, unless the recipe moves images, or wants them generated for this step alone. Images
        of bare labels are jittered.
        """
        if self.recipe.fresh:
            return self._generated()
        count = self.recipe.student_batch
        from_prior = round(count * self.prior_share) if self.prior.capacity else 0
        if not len(self.bank):  # nothing that was generated has been asked about yet
            return self._jittered(*self.prior.draw(count))
        images, targets = self.bank.draw(count - from_prior)
        if from_prior:
            more, their = self.prior.draw(from_prior)
            images, targets = torch.cat([images, more]), torch.cat([targets, their])
        if not (self.recipe.shift or self.recipe.mirror):
            return self._jittered(images, targets)
        images = self._moved(images, self._motions(len(images)))
        with torch.no_grad(), self.autocast:
            return images, self._target(images)

    def _jittered(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Images that are moved from where they were asked about if their labels are bare and were learned `OFTEN`."""
        often = self.images_seen >= OFTEN * (len(self.bank) + len(self.prior))
        if self.bare and self.recipe.jitter and often:
            images = ready(jittered(images, self.recipe.jitter, extent(self.low, self.high)[0]))
        return images, targets

    def _generated(self) -> tuple[Tensor, Tensor]:
        """New images, and what is kept of the answers to them."""
        with torch.no_grad(), self.autocast:
            latents, _ = self.generator.latents()
            images = rounded(self.generator(self.ranks.share(latents)), self.low, self.high)
            images = self.ranks.gather(images, len(latents))
            return images, self._target(images)


def _set_rate(optimizer: Optimizer, rate: float, fraction: float) -> None:
    """The learning rate at a fraction of its half cosine from `rate` to zero."""
    factor = (1 + math.cos(math.pi * min(fraction, 1.0))) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate * factor * group.get("share", 1.0)


def _aside(count: int) -> int:
    return max(1, count // ASIDE)


def _batches(recipe: Recipe) -> dict[str, int]:
    """What networks see at a time, by name."""
    left = recipe.generator_batch - _aside(recipe.generator_batch)
    shared = {"generator_batch without what is held out": left}
    students = shared if recipe.share_batch else {} if recipe.fresh else {"student_batch": recipe.student_batch}
    return {"generator_batch": recipe.generator_batch} | students
