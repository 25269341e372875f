"""A student behind its own standardization: it takes the very images, rows or token ids that its teacher takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.networks.committee import Committee
from edgekd.networks.headers import MultiHeader
from edgekd.networks.joined import Grid, Joined


class Standardized(nn.Module):
    """A student behind its own input standardization, so that it takes the very pixels the teacher takes.

    Args:
        network: what is shown standardized images `[N, C, H, W]`, or rows `[N, F]`, or token ids, int64 `[N, T]`.
        mean, std: per channel; of token ids neither is looked at.
        rows: whether images are rows of a table, `[N, F, 1, 1]`; as a file takes them they are `[N, F]`.
        ids: whether they are sequences of token ids, `[N, T, 1, 1]`; as a file takes them they are integers `[N, T]`.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        rows: bool = False,
        ids: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.rows, self.ids = network, rows, ids
        self.register_buffer("pixel_mean", torch.tensor(list(mean)).reshape(1, -1, 1, 1))
        self.register_buffer("pixel_scale", 1 / torch.tensor(list(std)).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images `[N, C, H, W]` in the teacher's input range, as the network answers them."""
        logits: Tensor = self.network(self.standardized(images))
        return logits

    @property
    def header(self) -> int | None:
        """Width of the features of each of its headers, if it has any."""
        return self.network.features if isinstance(self.network, MultiHeader) else None

    @property
    def cut(self) -> tuple[tuple[tuple[int, ...], ...], Grid | None]:
        """The chunks of a representation that its students answer, and the sides of that, if they are several."""
        return (self.network.parts.chunks, self.network.parts.grid) if isinstance(self.network, Joined) else ((), None)

    def answers(self, images: Tensor) -> Tensor:
        """What each of its members learns by, `[N, M, …]`; see `answer`."""
        if isinstance(self.network, Committee):
            return self.network.each(self.standardized(images))
        return self.answer(images, apart=True).unsqueeze(1)

    def answer(self, images: Tensor, *, apart: bool = False) -> Tensor:
        """What an objective compares with the teachers' answers.

        Logits; of a network with headers `[N, H, K + F]`, the logits of each and behind them its features; of students
        side by side `[N, ...]`, the representation and behind it the logits, both flat.

        Args:
            images: `[N, C, H, W]` in the teacher's input range.
            apart: see `joined.Joined.both`; others have nothing to keep apart.
        """
        if isinstance(self.network, Joined):
            both = self.network.both(self.standardized(images), apart=apart)
            return torch.cat([part.flatten(1) for part in both], dim=1)
        if isinstance(self.network, MultiHeader):
            return torch.cat(self.network.each(self.standardized(images)), dim=2)
        logits: Tensor = self(images)
        return logits

    def standardized(self, images: Tensor) -> Tensor:
        """What the network itself is shown."""
        if self.ids:
            return images.flatten(1).long()
        if self.rows:
            images, mean, scale = images.flatten(1), self.get_buffer("pixel_mean"), self.get_buffer("pixel_scale")
            return (images - mean.flatten()) * scale.flatten()
        return (images - self.get_buffer("pixel_mean")) * self.get_buffer("pixel_scale")
