"""What a distillation tells while it runs: a watcher about once a second, metrics.jsonl, pictures of what is generated.

It decides nothing; the first of several processes keeps it for all of them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from edgekd import parts
from edgekd.config import DistillSettings
from edgekd.errors import EdgekdError
from edgekd.networks import parts_of
from edgekd.run_folder import RunFolder, learned_alone
from edgekd.synthesis import questions
from edgekd.synthesis.grid import write_grid
from edgekd.synthesis.health import Health
from edgekd.teachers import Signal
from edgekd.teachers.codes import from_codes
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.open import Opened
from edgekd.training import NEWEST, Training

LOG_SECONDS, GRIDS = 1.0, 10


@dataclass(frozen=True)
class Progress:
    """What a watcher is told now and then.

    Attributes:
        step: rounds done.
        fraction: share of the run that is done, 0 to 1.
        seconds, seconds_left: training time so far, and an estimate of the rest.
        images_per_second: images the student learned from, over the last interval.
        losses: mean of every term since the last report.
        message: a sentence for people, or None.
    """

    step: int
    fraction: float
    seconds: float
    seconds_left: float
    images_per_second: float
    losses: dict[str, float]
    message: str | None = None


Watch = Callable[[Progress], None]


def say(watch: Watch, message: str) -> None:
    """Tell a watcher a sentence."""
    watch(Progress(0, 0.0, 0.0, 0.0, 0.0, {}, message))


def tell_of_teachers(opened: Sequence[Opened], settings: DistillSettings, record: dict[str, Any], watch: Watch) -> None:
    """Tell what each teacher is, what its students learn of it, and from what."""
    for line in (line for one in opened for line in one.notes):
        say(watch, line)
    if record["student"].get("parts"):
        say(watch, parts.told(parts_of(record["student"]["parts"])))
    if count := record["student"].get("inherited"):
        say(watch, f"the student begins with the teacher's {count} layers, made as narrow as its own")
    if learned_alone(record):
        count = record["samples"]["count"]
        real = f"{count:,} real samples instead of generated images; labels are not read"
        say(watch, real if count else "no samples: random sequences of ids are asked about, and bred by the answers")
        return
    signals = [one.teacher.signals for one in opened]
    if not settings.recipe.statistics or all(Signal.STATISTICS in offered for offered in signals):
        return
    if all(offered & {Signal.STATISTICS, Signal.STATISTICS_PRIOR} for offered in signals):
        say(watch, "batch normalization looks folded away, a scale-free prior stands in for its statistics")
    elif any(offered & {Signal.STATISTICS, Signal.STATISTICS_PRIOR} for offered in signals):
        say(watch, "not every teacher holds batch-norm statistics: they are matched where they are, or left out")
    else:
        say(watch, "the teacher holds no batch-norm statistics, so that term is left out: expect a weaker student")


class Journal:
    """Sums loss terms up; about once a second writes a line to metrics.jsonl and tells the watcher.

    Args:
        training: of which it tells.
        run: where to write.
        watch: the watcher.
        ledger: of the run: where anything is counted, every line tells how many queries there were.
    """

    def __init__(self, training: Training, run: RunFolder, watch: Watch, ledger: Ledger) -> None:
        self.training, self.run, self.watch, self.ledger = training, run, watch, ledger
        self.sums: dict[str, float] = {}
        self.health: dict[str, float] = {}
        self.rounds, self.images, self.told, self.pictured = 0, training.images_seen, time.monotonic(), 0

    def note(self, terms: Mapping[str, Tensor], fraction: float) -> None:
        """Take the terms of one round, at a fraction of the run.

        Raises:
            EdgekdError: they are not finite.
        """
        values = torch.stack(list(terms.values())).tolist()  # the one time in a round that a GPU is waited for
        for name, value in zip(terms, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.rounds += 1
        if not math.isfinite(sum(values)):
            told = dict(zip(terms, values, strict=True))
            raise EdgekdError(f"the losses are no longer finite at step {self.training.step}: {told}")
        now = time.monotonic()
        if not self.training.ranks.first or (now - self.told < LOG_SECONDS and fraction < 1):
            return
        self._tell(fraction, now - self.told)
        self.sums, self.rounds, self.images, self.told = {}, 0, self.training.images_seen, now
        if int(fraction * GRIDS) > self.pictured:
            self.pictured = int(fraction * GRIDS)
            codes, targets = self.training.held_out.in_order()
            chosen = questions.chosen(self.training.objective.logits(targets), self.training.task)
            write_grid(self.run.samples / f"step_{self.training.step:06d}.png", codes, chosen)

    def tell_health(self, health: Health | None) -> None:
        """Keep what was examined for the next line; a collapse is told at once."""
        if health is None:
            return
        self.health = {name: round(value, 4) for name, value in asdict(health).items()}
        if health.collapse:
            often = self.training.collapses
            cured = often <= self.training.recipe.revivals
            then = "the generator begins anew" if cured else "expect a weaker student"
            say(self.watch, f"the generated images collapsed, {health.collapse}: {then} (time {often} in this run)")

    def _tell(self, fraction: float, interval: float) -> None:
        training = self.training
        means = {name: total / self.rounds for name, total in self.sums.items()}
        rate = (training.images_seen - self.images) / max(interval, 1e-9)
        left = training.seconds * (1 - fraction) / max(fraction, 1e-9) if fraction < 1 else 0.0
        progress = Progress(training.step, min(fraction, 1.0), training.seconds, left, rate, means)
        codes, targets = training.held_out.newest(NEWEST)
        logits = training.objective.logits(targets)
        balance = questions.balance(logits, training.task) if len(logits) else 0.0
        line = {"step": training.step, "seconds": round(training.seconds, 2), "class_entropy": round(balance, 4)}
        line |= {name: round(value, 6) for name, value in means.items()} | self.health
        line |= {"queries": asked} if (asked := self.ledger.asked) else {}
        if training.recipe.asked and len(codes):
            own = training.students.says(from_codes(codes, training.low, training.high))
            rows = [questions.rows(each, training.task).argmax(1) for each in (own, logits)]
            line |= {"agreement": round(float((rows[0] == rows[1]).float().mean()), 4)}
        self.health = {}
        with self.run.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.watch(progress)
