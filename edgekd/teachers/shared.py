"""Teachers of several processes: each runs a graph for its part of a batch, and the first asks what is only asked.

Asked is about whole batches, so that one ledger counts, and knows again, what it would for a single process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from edgekd.distributed import Ranks
from edgekd.errors import OutOfQueries
from edgekd.teachers import Answer, Moments, Teacher
from edgekd.teachers.asked import AskedTeacher
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.source import Codes, Floats, Source

M = TypeVar("M", bound=Moments)


def answer(teacher: Teacher, images: Tensor, count: int, ranks: Ranks) -> Answer:
    """What a teacher answers to a whole batch.

    Args:
        teacher: asked, or run here.
        images: this process's part of the batch, `[n, C, H, W]`.
        count: images in the whole batch.
        ranks: the processes.
    """
    if ranks.size == 1:
        return teacher(images)
    if isinstance(teacher, AskedTeacher):
        return teacher(ranks.gather(images, count))
    some = images if len(images) else images.new_zeros(1, *images.shape[1:])  # not every graph takes an empty batch
    own, weight = teacher(some), len(images) / count
    features = None if own.features is None else ranks.gather(own.features[: len(images)].float(), count)
    statistics, folded = _of_whole(own.statistics, weight, ranks), _of_whole(own.folded, weight, ranks)
    return Answer(ranks.gather(own.logits[: len(images)], count), features, statistics, folded)


def affordable(teachers: Sequence[Teacher], images: Tensor, ranks: Ranks) -> int:
    """How many of N images, from the first on, the limit on questions lets all of some teachers be asked about.

    Args:
        teachers: those that are asked share one ledger; the others cost nothing.
        images: of the whole batch, `[N, C, H, W]`; what was asked before is free.
        ranks: the processes.
    """
    asked = [teacher for teacher in teachers if isinstance(teacher, AskedTeacher)]
    count = len(images)
    if ranks.first and asked and (left := asked[0].ledger.left) is not None:
        cost = np.sum([teacher.new(images) for teacher in asked], axis=0).cumsum()
        count = int((cost <= left).sum())
    return ranks.told(count)


def _of_whole(layers: Sequence[M], weight: float, ranks: Ranks) -> tuple[M, ...]:
    """Layers whose moments are of this process's part, with those of the whole batch; all are exchanged at once."""
    if not layers:
        return ()
    widths = [len(layer.mean) for layer in layers]
    own = (torch.cat([layer.mean for layer in layers]), torch.cat([layer.variance for layer in layers]))
    means, variances = (torch.split(found, widths) for found in ranks.moments(*own, weight))
    found = zip(layers, means, variances, strict=True)
    return tuple(replace(layer, mean=mean, variance=variance) for layer, mean, variance in found)


class SharedLedger(Ledger):
    """The one ledger of all processes: the first asks, counts and writes, the others are told.

    Args:
        path, limit: as of any ledger.
        ranks: the processes.
    """

    def __init__(self, path: Path, limit: int | None, ranks: Ranks) -> None:
        super().__init__(path, limit)
        self.ranks = ranks

    @property
    def asked(self) -> int:
        """As of any ledger; known to the first process only."""
        return super().asked if self.ranks.first else 0

    def spend(self, source: Source, samples: int) -> None:
        """As of any ledger, by the first process."""
        if self.ranks.first:
            super().spend(source, samples)

    def answers(self, source: Source, codes: Codes) -> Floats:
        """As of any ledger; all processes want the same."""
        found: Floats | tuple[int, int] = 0, 0
        if self.ranks.first:
            try:
                found = super().answers(source, codes)
            except OutOfQueries as error:
                found = error.asked, error.limit
        found = self.ranks.told(found)
        if isinstance(found, tuple):
            raise OutOfQueries(*found)
        return found
