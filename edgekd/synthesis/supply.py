"""Where images come from that no generator makes: the user's own first, then procedural ones, then their children.

Rows of a table are images of one pixel, and come of families of their own; so do sequences of token ids.

What was asked about is in a bank; it supplies what may be asked next, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from edgekd.codes import extent
from edgekd.synthesis import evolution, priors, rows, sequences
from edgekd.synthesis.bank import Bank
from edgekd.teachers.codes import from_codes, rounded, within

DRAWN = 4
"""One in so many procedural images is drawn, the others are bred."""


def drawn(count: int, shape: Sequence[int], ids: int | None = None, shares: Tensor | None = None) -> Tensor:
    """`count` procedural images `[count, C, H, W]` in [0, 1]; of one pixel they are rows of C features, or of ids.

    `shares` are those of the families of `priors`; nothing else has such.
    """
    channels, height, width = shape
    if ids is not None:
        return sequences.draw(count, channels, ids)
    return rows.draw(count, channels) if height * width == 1 else priors.draw(count, (channels, height, width), shares)


class Supply:
    """Images for a bank.

    Args:
        bank: of those asked about, the parents of those to come.
        scores: targets to the log-probability of each option, `[N, O]`.
        own: codes `[N, C, H, W]` of the user's own images, or None.
        shares: of the families of procedural images, see `mixture`; None: equal ones.

    Attributes:
        own: how many images of the user's own there are.
        used: how many of the user's own were asked about.
    """

    def __init__(
        self, bank: Bank, scores: Callable[[Tensor], Tensor], own: Tensor | None, shares: Tensor | None = None
    ) -> None:
        self.bank, self._scores, self._shares, self.used = bank, scores, shares, 0
        self._ids = int(extent(0.0, bank.high)[1]) + 1 if bank.kind == "int32" else None
        self._children = rows.children if bank.codes.shape[2:].numel() == 1 else evolution.children
        if self._ids is not None:
            self._children = partial(sequences.children, ids=self._ids)
        self._own = torch.empty(0, *bank.codes.shape[1:], dtype=bank.codes.dtype) if own is None else own
        self.own = len(self._own)

    def first(self, count: int) -> Tensor:
        """The next `count` images `[N, C, H, W]`, or as many as the user has left; a quarter is drawn."""
        if self.used < self.own:
            part = self._own[self.used : self.used + count].to(self.bank.codes.device)
            return _ready(from_codes(part, self.bank.low, self.bank.high))
        if len(self.bank) * DRAWN >= self.bank.capacity:
            return self.bred(count)
        return self._in_range(drawn(count, self.bank.codes.shape[1:], self._ids, self._shares))

    def note(self, count: int) -> None:
        """So many of what `first` gave were asked about."""
        self.used = min(self.own, self.used + count)

    def bred(self, count: int) -> Tensor:
        """`count` children of those asked about."""
        return self._in_range(self._children(self.bank.codes_at, self.bank.of_targets(self._scores), count))

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint needs; the bank has its own."""
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up what an earlier `state_dict` gave."""
        self.used = state["used"]

    def _in_range(self, images: Tensor) -> Tensor:
        low, high = self.bank.low, self.bank.high
        return _ready(rounded(within(images, low, high), low, high, self.bank.kind))


def _ready(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
