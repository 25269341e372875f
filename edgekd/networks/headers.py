"""A student with a header for every teacher, over any trunk: images `[N, C, H, W]` to logits `[N, K]`.

One trunk is shared. Headers of kind "shared" read every stage of it (multi-level feature sharing, CDFKD-MFS: Hao et
al., IEEE TMM 2022, as in the authors' nets/mhresnet8x.py): separable convolutions carry what a header has found so far
from stage to stage. Headers of kind "plain" read the last stage alone. What the student answers is the mean of its
headers, or a mean whose weights a small scorer finds for each image (CDFKD: Hao et al., ICME 2021, attention-train.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from edgekd.errors import BadSetting

Kind = Literal["shared", "plain"]
HALVED = 4
"""The last encoder halves maps whose sides are at least so many pixels."""


@dataclass(frozen=True)
class Headers:
    """Which headers a student has, and how many."""

    kind: Kind
    count: int


class Trunk(Protocol):
    """What headers are put on. A network of one's own needs `stages` alone: it then holds nothing behind them."""

    def stages(self, images: Tensor) -> Sequence[Tensor]:
        """Feature maps `[N, C_i, h_i, w_i]`, largest first; each is made of the one before."""

    def tail(self) -> nn.Module:
        """Fresh layers from the last stage to the features `[N, F]` that a classifier reads."""

    def drop_tail(self) -> None:
        """Forget what lies behind the stages."""


class SharedHeader(nn.Module):
    """One header's chain of encoders, one for every stage of the trunk.

    Encoder i reads stage i beside what encoder i - 1 made, and writes a map as large and as deep as stage i + 1, by two
    separable convolutions, each batch-normalized, with ReLU. The last map is averaged: that is the feature.

    Args:
        maps: sizes `(C, h, w)` of the stages.
    """

    def __init__(self, maps: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        (channels, *last), halve = maps[-1], min(maps[-1][1:]) >= HALVED
        goals = [*maps[1:], (channels, *(-(-side // 2) if halve else side for side in last))]
        self.encoders = nn.ModuleList(
            _encoder(stage[0] * (2 if index else 1), goal[0], stage[1:], goal[1:])
            for index, (stage, goal) in enumerate(zip(maps, goals, strict=True))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Features `[N, C]`."""
        with _in_full_on_a_cpu():
            carried = self.encoders[0](stages[0].float())
            for stage, encoder in zip(stages[1:], self.encoders[1:], strict=True):
                carried = encoder(torch.cat([stage.float(), carried], dim=1))
            features: Tensor = self.pool(carried).flatten(1)
        return features


def _in_full_on_a_cpu() -> AbstractContextManager[object]:
    """float32 within: on a CPU depthwise convolutions in bfloat16 take three times as long."""
    return torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else nullcontext()


def _encoder(inputs: int, outputs: int, before: Sequence[int], after: Sequence[int]) -> nn.Sequential:
    """Maps of `inputs` channels and one size to `outputs` channels and another."""
    kernel, stride, padding = zip(*map(_resizing, before, after), strict=True)
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, padding, groups=inputs, bias=False),
        *(nn.Conv2d(inputs, inputs, 1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()),
        nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False),
        *(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
    )


def _resizing(before: int, after: int) -> tuple[int, int, int]:
    """Kernel, stride and padding that make `after` pixels of `before`: 3x3 where it fits, as trunks have it."""
    stride = -(-before // after)
    seen = stride * (after - 1) + 2  # so many pixels, without gaps up to a stride of 3
    if stride <= 3 and seen >= before and -(-before // stride) == after:
        return 3, stride, 1
    stride = before // after
    return before - (after - 1) * stride, stride, 0


class PlainHeader(nn.Module):
    """Layers of its own behind the last stage.

    Args:
        tail: a map `[N, C, h, w]` to features `[N, F]`.
    """

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Features `[N, F]`."""
        features: Tensor = self.tail(stages[-1])
        return features


class MultiHeader(nn.Module):
    """A trunk and its headers, each with a classifier of its own.

    Args:
        trunk: see `Trunk`; it is taken over and changed.
        shape: C, H, W of an image.
        classes: K.
        headers: which and how many.

    Attributes:
        features: width F of a header's features.
        scorer: one layer K -> 1 for all headers, whose softmax weighs them; without it they count alike.

    Raises:
        BadSetting: the trunk has no stages, or its maps grow.
    """

    def __init__(self, trunk: nn.Module, shape: tuple[int, int, int], classes: int, headers: Headers) -> None:
        super().__init__()
        maps = _maps(trunk, shape)
        make: Callable[[], nn.Module] = {
            "shared": lambda: SharedHeader(maps),
            "plain": lambda: PlainHeader(_tail(trunk)),
        }[headers.kind]
        self.headers = nn.ModuleList(make() for _ in range(headers.count))
        getattr(trunk, "drop_tail", lambda: None)()
        self.trunk = trunk
        self.features = _width(self.headers[0], maps)
        self.classifiers = nn.ModuleList(nn.Linear(self.features, classes) for _ in range(headers.count))
        self.scorer: nn.Linear | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, K]`: the headers' mean, weighed if there is a scorer."""
        return self.joined(self.each(images)[0])

    def each(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Every header's logits `[N, H, K]` and features `[N, H, F]`."""
        stages = self.trunk.stages(images)  # type: ignore[operator]  # nn.Module does not know it
        features = [header(stages) for header in self.headers]
        logits = [classifier(one) for classifier, one in zip(self.classifiers, features, strict=True)]
        return torch.stack(logits, dim=1), torch.stack(features, dim=1)

    def joined(self, logits: Tensor) -> Tensor:
        """Logits `[N, K]` out of those of the headers, `[N, H, K]`."""
        if self.scorer is None:
            return logits.mean(dim=1)
        scores: Tensor = self.scorer(logits)
        return (scores.softmax(dim=1) * logits).sum(dim=1)

    def score_by(self, weights: Sequence[float]) -> None:
        """Weigh headers by the softmax of the products of these K numbers with each header's logits."""
        self.scorer = nn.Linear(len(weights), 1, bias=False)
        with torch.no_grad():
            self.scorer.weight.copy_(torch.tensor([list(weights)]))

    def keep(self, kept: Sequence[int]) -> None:
        """Go on with these headers alone, by number from 0."""
        self.headers = nn.ModuleList(self.headers[one] for one in kept)
        self.classifiers = nn.ModuleList(self.classifiers[one] for one in kept)


def _maps(trunk: nn.Module, shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Sizes `(C, h, w)` of a trunk's stages."""
    if not callable(getattr(trunk, "stages", None)):
        allowed = "a network with stages(images), which returns its feature maps"
        raise BadSetting("headers have nothing to read: it has no stages", where="student", allowed=allowed)
    with torch.no_grad():
        stages: Sequence[Tensor] = trunk.eval().stages(torch.zeros(1, *shape))  # type: ignore[operator]
    trunk.train()
    sizes = [(stage.shape[1], stage.shape[2], stage.shape[3]) for stage in stages]
    if any(later > earlier for one, two in pairwise(sizes) for earlier, later in zip(one[1:], two[1:], strict=True)):
        raise BadSetting(f"its stages grow: {sizes}", where="student", allowed="maps that keep their size or shrink")
    return sizes


def _tail(trunk: nn.Module) -> nn.Module:
    tail = getattr(trunk, "tail", lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    made: nn.Module = tail()
    return made


def _width(header: nn.Module, maps: Sequence[tuple[int, int, int]]) -> int:
    """Of the features that a header makes of maps of these sizes."""
    with torch.no_grad():
        width: int = header.eval()([torch.zeros(1, *one) for one in maps]).shape[1]
    header.train()
    return width
