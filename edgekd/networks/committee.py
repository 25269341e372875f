"""Several students of one kind that learn apart and answer together: images `[N, C, H, W]` to the mean of their logits.

Each begins with its own random weights and has a loss of its own; none is taught what the others answer, or they would
soon answer alike (a deep ensemble: Lakshminarayanan et al., NeurIPS 2017). In use they are one network with one answer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Committee(nn.Module):
    """`count` networks that `make` builds."""

    def __init__(self, make: Callable[[], nn.Module], count: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(make() for _ in range(count))

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the members' logits, `[N, K]` or `[N, K, h, w]`."""
        return self.each(images).mean(dim=1)

    def each(self, images: Tensor) -> Tensor:
        """Every member's logits, `[N, M, K]` or `[N, M, K, h, w]`."""
        return torch.stack([member(images) for member in self.members], dim=1)
