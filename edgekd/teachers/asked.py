"""A source as a teacher: the one place where what is only asked meets torch.

The answers come through the ledger, so that each is counted, kept and paid for once. Images are rounded to 8 bits
before they are asked about, which all images in edgekd are anyway: the question is then its bytes, the same whether it
comes fresh from a generator or back from a bank. Token ids are rounded to whole ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.codes import stored_as
from edgekd.teachers import Answer, Signal
from edgekd.teachers.codes import to_codes
from edgekd.teachers.estimate import Directions, estimated
from edgekd.teachers.ledger import Flags, Ledger
from edgekd.teachers.source import Codes, LabelsOnly, Source


class AskedTeacher:
    """The `scores` and `labels` access levels.

    Args:
        source: what is asked.
        ledger: of the run.
        directions: how a gradient is estimated; without it there is none.
    """

    def __init__(self, source: Source, ledger: Ledger, directions: Directions | None = None) -> None:
        self.source, self.ledger, self.directions = source, ledger, directions
        self.order: Sequence[int] | None = None
        self.spec = source.spec
        self.signals = frozenset({Signal.LABELS})
        self.signals |= set() if isinstance(source, LabelsOnly) else {Signal.SCORES}
        self.signals |= {Signal.GRADIENT} if directions else set()

    def __call__(self, images: Tensor) -> Answer:
        """Answer images `[N, C, H, W]` in the value range of the spec."""
        if self.directions and images.requires_grad and torch.is_grad_enabled():
            return Answer(estimated(self._ask, images.float(), self.directions))
        return Answer(self._ask(images))

    def new(self, images: Tensor) -> Flags:
        """Which of N images would be counted if they were asked about: bool `[N]`, of equal ones the first."""
        return self.ledger.new(self.source, self._codes(images))

    def _codes(self, images: Tensor) -> Codes:
        codes = to_codes(images.detach().float(), self.spec.low, self.spec.high, stored_as(self.spec.layout))
        return codes.cpu().contiguous().numpy()

    def _ask(self, images: Tensor) -> Tensor:
        answers = self.ledger.answers(self.source, self._codes(images))
        logits = torch.from_numpy(answers).to(images.device)
        return logits if self.order is None else logits[:, list(self.order)]
