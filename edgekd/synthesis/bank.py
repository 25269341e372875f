"""The replay bank: generated images as bytes, each with what is kept of the teachers' answers, asked once.

Token ids are kept as they are. It keeps the newest images and forgets the oldest. It does not weigh or select. Several
processes may share one: each then holds a part of it, all of them add and look up the same at the same time, and its
checkpoint is that of one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgekd.codes import Bound, CodeType
from edgekd.distributed import ALONE, Ranks
from edgekd.teachers.codes import from_codes, to_codes

Sizes = tuple[int, ...]


class Bank:
    """A ring of `capacity` images `[C, H, W]` and their targets.

    Args:
        capacity: images kept.
        shape: channels, height, width.
        kept: sizes of the target of one image, which its objective makes of the answers: `(K,)` for logits, say.
        low, high: range of image values.
        ranks: the processes that share it: image i lies with process i modulo their number.
        kind: type of the codes that images are kept as.
        stay: of the first images so many are never forgotten.
    """

    def __init__(
        self,
        capacity: int,
        shape: Sizes,
        kept: Sizes,
        low: Bound,
        high: Bound,
        ranks: Ranks = ALONE,
        kind: CodeType = "uint8",
        stay: int = 0,
    ) -> None:
        self.capacity, self.low, self.high, self.ranks, self.kind = capacity, low, high, ranks, kind
        rows = -(-capacity // ranks.size)
        self.codes = torch.zeros((rows, *shape), dtype=getattr(torch, kind))
        self.targets = torch.zeros((rows, *kept))
        self.stay, self.written = stay, 0

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    def add(self, images: Tensor, targets: Tensor) -> None:
        """Store N images and their targets, over the oldest where the ring is full."""
        places = self._places(torch.arange(self.written, self.written + len(images)))
        mine = self.ranks.mine(places)
        rows = places[mine] // self.ranks.size
        self.codes[rows] = to_codes(images[mine], self.low, self.high, self.kind)
        self.targets[rows] = targets[mine].detach().float()
        self.written += len(images)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` stored images, with replacement, as float32 `[N, C, H, W]`, and their targets."""
        index = torch.randint(len(self), (count,))
        return from_codes(self.codes_at(index), self.low, self.high), self.ranks.rows(self.targets, index)

    def codes_at(self, index: Tensor) -> Tensor:
        """The codes at places `[N]`, in the order in which they were written while the ring is not full."""
        return self.ranks.rows(self.codes, index)

    def of_targets(self, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """What is computed row by row from all stored targets, by place; each process computes its part."""
        own = compute(self.targets[: -(-len(self) // self.ranks.size)])
        return self.ranks.rows(own, torch.arange(len(self)))

    def in_order(self) -> tuple[Tensor, Tensor]:
        """All stored codes and targets, oldest first."""
        return self.newest(len(self))

    def newest(self, count: int) -> tuple[Tensor, Tensor]:
        """The last `count` stored codes and targets, oldest first; all where there are fewer.

        Once the ring has turned, those that stay are not among them.
        """
        there = len(self) - (self.stay if self.written > self.capacity else 0)
        order = self._places(torch.arange(self.written - min(count, there), self.written))
        return self.codes_at(order), self.ranks.rows(self.targets, order)

    def _places(self, numbers: Tensor) -> Tensor:
        """Where the images lie that were the so-and-so-many-th to be added, counted from 0."""
        ring = max(1, self.capacity - self.stay)
        return torch.where(numbers < self.stay, numbers, self.stay + (numbers - self.stay) % ring)

    def state_dict(self) -> dict[str, object]:
        """What a checkpoint needs: only the filled part. Of several processes the first has all of it."""
        codes, targets = (self.ranks.whole(part, len(self)) for part in (self.codes, self.targets))
        return {"codes": codes, "targets": targets, "written": self.written}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take up a stored state of a bank of the same capacity and shape."""
        codes, targets, written = state["codes"], state["targets"], state["written"]
        assert isinstance(codes, Tensor)
        assert isinstance(targets, Tensor)
        assert isinstance(written, int)
        codes, targets = (part[self.ranks.rank :: self.ranks.size] for part in (codes, targets))
        self.codes[: len(codes)], self.targets[: len(targets)], self.written = codes, targets, written
