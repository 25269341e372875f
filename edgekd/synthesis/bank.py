"""The replay bank: generated images as bytes, each with the teacher's answer, asked once.

It keeps the newest images and forgets the oldest. It does not weigh or select.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.teachers.codes import from_codes, to_codes

Sizes = tuple[int, ...]


class Bank:
    """A ring of `capacity` images `[C, H, W]` and their teacher logits.

    Args:
        capacity: images kept.
        shape: channels, height, width.
        answer: sizes of the logits of one image: `(K,)`, or `(K, h, w)`.
        low, high: range of image values.
    """

    def __init__(self, capacity: int, shape: Sizes, answer: Sizes, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.codes = torch.zeros((capacity, *shape), dtype=torch.uint8)
        self.logits = torch.zeros((capacity, *answer))
        self.written = 0

    def __len__(self) -> int:
        return min(self.written, len(self.codes))

    def add(self, images: Tensor, logits: Tensor) -> None:
        """Store N images and their answers, over the oldest where the ring is full."""
        places = (self.written + torch.arange(len(images))) % len(self.codes)
        self.codes[places] = to_codes(images, self.low, self.high)
        self.logits[places] = logits.detach().float()
        self.written += len(images)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` stored images, with replacement, as float32 `[N, C, H, W]`, and their answers."""
        index = torch.randint(len(self), (count,))
        return from_codes(self.codes[index], self.low, self.high), self.logits[index]

    def in_order(self) -> tuple[Tensor, Tensor]:
        """All stored codes and logits, oldest first."""
        start = self.written % len(self.codes) if self.written > len(self.codes) else 0
        order = (start + torch.arange(len(self))) % max(1, len(self.codes))
        return self.codes[order], self.logits[order]

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint needs: only the filled part."""
        return {"codes": self.codes[: len(self)], "logits": self.logits[: len(self)], "written": self.written}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take up a stored state of a bank of the same capacity and shape."""
        codes, logits, written = state["codes"], state["logits"], state["written"]
        assert isinstance(codes, Tensor)
        assert isinstance(logits, Tensor)
        assert isinstance(written, int)
        self.codes[: len(codes)], self.logits[: len(logits)], self.written = codes, logits, written
