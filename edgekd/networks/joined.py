"""Small students side by side, joined by the teacher's own last layer: images `[N, C, H, W]` to logits.

Each student answers a chunk of the teacher's dense representation, the input of its last layer (Teacher-Class Network:
Malik et al., 2020, arXiv 2004.03281). Their answers side by side are the representation; the last layer makes logits of
it. A student that was added later answers for a chunk that has one already: its answer is added to that one's.

Where the representation is a map `[N, F, h, w]`, chunks are of its channels and the last layer is a convolution. No
student reads another's answer, and none is known here but by the length of its chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.errors import BadSetting

Grid = tuple[int, int]


@dataclass(frozen=True)
class Parts:
    """What the students answer.

    Attributes:
        chunks: for each student the numbers (columns or channels) of the representation that it answers.
        added: for each student that was added later the chunk to whose answer its own is added.
        rectified: the representation is never negative (it lies behind a ReLU), so that answers below 0 count as 0.
        grid: h, w of a representation that is a map.
        kernel: height and width of the last layer's kernel, where that is a convolution.
    """

    chunks: tuple[tuple[int, ...], ...]
    added: tuple[int, ...] = ()
    rectified: bool = False
    grid: Grid | None = None
    kernel: Grid = (1, 1)

    @property
    def order(self) -> list[int]:
        """The numbers of the representation in the order in which the chunks have them."""
        return [number for chunk in self.chunks for number in chunk]

    @property
    def lengths(self) -> list[int]:
        """Of the answer of every student, those that were added included."""
        return [len(self.chunks[place]) for place in (*range(len(self.chunks)), *self.added)]


def contiguous(width: int, count: int) -> tuple[tuple[int, ...], ...]:
    """The numbers 0 to `width` - 1 in `count` runs, as published; where they do not divide, the first are longer by 1.

    Raises:
        BadSetting: more students than numbers.
    """
    if not 1 <= count <= width:
        what = f"{count} students for a representation of {width} numbers"
        raise BadSetting(what, where="--students", allowed=f"1 to {width}")
    ends = [0, *accumulate(width // count + (place < width % count) for place in range(count))]
    return tuple(tuple(range(low, high)) for low, high in pairwise(ends))


def balanced(variances: Sequence[float], count: int) -> tuple[tuple[int, ...], ...]:
    """Chunks of the lengths of `contiguous` whose summed variances are as equal as dealing them out makes them.

    The number that varies most goes first, always to the chunk that has least and is not full yet.

    Raises:
        BadSetting: as `contiguous`.
    """
    room = [len(chunk) for chunk in contiguous(len(variances), count)]
    dealt: list[list[int]] = [[] for _ in room]
    sums = [0.0] * count
    for number in sorted(range(len(variances)), key=lambda one: (-variances[one], one)):
        place = min((p for p in range(count) if len(dealt[p]) < room[p]), key=lambda p: (sums[p], p))
        dealt[place].append(number)
        sums[place] += variances[number]
    return tuple(tuple(sorted(chunk)) for chunk in dealt)


class Head(nn.Module):
    """The answers of all students, side by side, to logits.

    Args:
        parts: see `Parts`.
        classes: K.
        grid: h, w of the logits, where pixels are answered.
    """

    def __init__(self, parts: Parts, classes: int, grid: Grid | None) -> None:
        super().__init__()
        self.parts, self.grid, width = parts, grid, len(parts.order)
        kernel, middle = parts.kernel, (parts.kernel[0] // 2, parts.kernel[1] // 2)
        self.last: nn.Linear | nn.Conv2d = (
            nn.Linear(width, classes) if parts.grid is None else nn.Conv2d(width, classes, kernel, padding=middle)
        )

    def forward(self, answers: Tensor) -> Tensor:
        """Logits `[N, K]` or `[N, K, h, w]` out of `[N, sum of lengths]` or `[N, sum of lengths, h, w]`."""
        representation = self.joined(answers)
        logits: Tensor = self.last(functional.relu(representation) if self.parts.rectified else representation)
        if self.grid is None or logits.shape[-2:] == self.grid:
            return logits
        return functional.interpolate(logits, size=self.grid, mode="bilinear", align_corners=False)

    def joined(self, answers: Tensor) -> Tensor:
        """The representation `[N, F]` or `[N, F, h, w]`, in the chunks' order and as the students answer it."""
        if not self.parts.added:
            return answers
        count = len(self.parts.chunks)
        each = list(torch.split(answers, self.parts.lengths, dim=1))
        for place, more in zip(self.parts.added, each[count:], strict=True):
            each[place] = each[place] + more
        return torch.cat(each[:count], dim=1)

    def begin_with(self, weight: Tensor, bias: Tensor) -> None:
        """Take up the teacher's last layer: `[K, F]` or `[K, F, kh, kw]`, and `[K]`, in the teacher's own order."""
        with torch.no_grad():
            self.last.weight.copy_(weight[:, self.parts.order])
            if self.last.bias is not None:
                self.last.bias.copy_(bias)


class Joined(nn.Module):
    """The students and the layer that joins them.

    Args:
        make: a student of so many answers.
        parts: see `Parts`.
        classes, grid: of the logits.

    Attributes:
        students: those of the chunks, then those that were added.
        learning: numbers of the students that still learn; the others stay as they are, batch normalization included.
    """

    def __init__(self, make: Callable[[int], nn.Module], parts: Parts, classes: int, grid: Grid | None) -> None:
        super().__init__()
        self.parts = parts
        self.students = nn.ModuleList(make(length) for length in parts.lengths)
        self.head = Head(parts, classes, grid)
        self.learning = tuple(range(len(self.students)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, K]` or `[N, K, h, w]`."""
        logits: Tensor = self.head(self.answers(images))
        return logits

    def answers(self, images: Tensor) -> Tensor:
        """What all students answer, side by side."""
        return torch.cat([student(images) for student in self.students], dim=1)

    def both(self, images: Tensor, *, apart: bool) -> tuple[Tensor, Tensor]:
        """The representation, and the logits.

        Args:
            images: `[N, C, H, W]`.
            apart: let no gradient pass from the logits to the students: each then learns its own chunk alone.
        """
        answers = self.answers(images)
        logits: Tensor = self.head(answers.detach() if apart else answers)
        return self.head.joined(answers), logits

    def learn_only(self, learning: Sequence[int]) -> None:
        """Leave all students but these as they are. The last layer always learns."""
        self.learning = tuple(learning)
        for number, student in enumerate(self.students):
            student.requires_grad_(number in learning)
        self.train(self.training)

    def train(self, mode: bool = True) -> Joined:
        """As any network; students that do not learn stay in evaluation mode."""
        super().train(mode)
        for number, student in enumerate(self.students):
            if number not in self.learning:
                student.eval()
        return self
