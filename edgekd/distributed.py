"""One distillation by several processes, as `torchrun -m edgekd distill` starts them. For a single one it does nothing.

Every process does the same with the whole batch: it draws the same random numbers, and so the same latent vectors,
procedural images and places in a bank, and it computes the same losses from the same answers. Only what is dear is
shared out: the passes through generator, teachers and student, and the memory of the banks. What the shares yield is
summed up again with its gradient, moments of whole batches (`networks/synchronized.py`, `teachers/shared.py`) among it.
So the losses are those of one process with the same batch, but for rounding.

The first process tells the others what the clock says, asks teachers that are only asked, and writes all files. This
module knows torch's CPU backend and nothing of distillation. It does not restart what failed: torchrun ends the others,
and the run is resumed, with as many processes as one likes.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from edgekd.errors import BadSetting, EdgekdError

T = TypeVar("T")


def processes() -> Ranks:
    """The processes that torchrun started, joined to one group; without torchrun this one alone."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        return Ranks()
    if not distributed.is_initialized():  # nobody is given up for being slow: torchrun ends us when another has failed
        with _reported():
            distributed.init_process_group("gloo", timeout=timedelta(days=1))
        atexit.register(_leave)
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    """End gloo's threads while Python still runs: one that outlives it aborts the process, with SIGABRT."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@dataclass(frozen=True)
class Ranks:
    """This process among those that distil together. All of them call the same methods in the same order.

    Every method but `share` may raise `EdgekdError`: another process has ended.

    Attributes:
        rank: its number.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is this one that writes."""
        return self.rank == 0

    def check_even(self, **batches: int) -> None:
        """Raise `BadSetting` unless batches, by name, can be shared out evenly."""
        uneven = [f"{name} {count}" for name, count in batches.items() if count % self.size]
        if uneven:
            what = f"{', '.join(uneven)} cannot be shared out evenly to {self.size} processes"
            raise BadSetting(what, where="recipe", allowed=f"multiples of {self.size}")

    def meet(self) -> None:
        """Wait until every process is here."""
        self.sum(torch.zeros(1))

    def told(self, value: T) -> T:
        """What the first process found, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        with _reported():
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, in each of them, with gradients."""
        if self.size == 1:
            return values
        summed: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]  # missing in torch's stubs
        return summed

    def share(self, whole: Tensor) -> Tensor:
        """This process's part of a batch `[N, ...]`; parts differ by one image at most."""
        return whole.tensor_split(self.size)[self.rank]

    def gather(self, part: Tensor, count: int) -> Tensor:
        """The whole batch `[count, ...]` out of everybody's part, with gradients."""
        if self.size == 1:
            return part
        places = self.share(torch.arange(count))
        return self.sum(part.new_zeros(count, *part.shape[1:]).index_copy(0, places, part))

    def moments(self, mean: Tensor, variance: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Mean and variance `[C]` of the whole batch out of those of a part that is `weight` of it, with gradients."""
        whole = self.sum(weight * mean)
        return whole, self.sum(weight * (variance + (mean - whole).square()))

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean: as every process has the loss of the whole batch, that is its gradient.

        DistributedDataParallel does the same, but not for `torch.autograd.grad`.
        """
        learning = [p for p in parameters if p.grad is not None] if self.size > 1 else []
        if learning:
            mean = self.sum(torch.cat([p.grad.flatten() for p in learning if p.grad is not None])) / self.size
            for parameter, part in zip(learning, torch.split(mean, [p.numel() for p in learning]), strict=True):
                parameter.grad = part.view_as(parameter)

    def mine(self, places: Tensor) -> Tensor | slice:
        """Which of these rows lie in this process; all, without looking, where it is alone."""
        return slice(None) if self.size == 1 else places % self.size == self.rank

    def rows(self, own: Tensor, index: Tensor) -> Tensor:
        """Rows `index` of a tensor whose row i lies in process i % size, at i // size; in all of them."""
        if self.size == 1:
            return own[index]
        mine = self.mine(index)
        found = own.new_zeros(len(index), *own.shape[1:])
        found[mine] = own[index[mine] // self.size]
        return self.sum(found)

    def whole(self, own: Tensor, count: int) -> Tensor:
        """The first `count` rows of such a tensor, in the first process; the others keep theirs."""
        rows = -(-count // self.size)
        if self.size == 1 or not rows:
            return own if rows == len(own) else own[:rows].clone()  # torch.save writes all the memory behind a slice
        parts = [own.new_empty(rows, *own.shape[1:]) for _ in range(self.size)] if self.first else None
        with _reported():
            distributed.gather(own[:rows], parts)
        return torch.stack(parts, dim=1).flatten(0, 1)[:count] if parts else own[:rows]


ALONE = Ranks()


class _Sum(torch.autograd.Function):
    """Backward it sums as well, for every process has a loss, and each depends on every process's values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 - torch hands it over
        summed = values.clone(memory_format=torch.contiguous_format)
        with _reported():
            distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        summed: Tensor = _Sum.apply(gradient)  # type: ignore[no-untyped-call]
        return summed


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo says in many words that a connection is gone
        hint = "EDGEKD_DEBUG=1 lets every process tell what went wrong"
        raise EdgekdError("another process of this run has ended", hint=hint) from error
