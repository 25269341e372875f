"""Where a generator's latent vectors come from, and whether they say which class is wanted.

Drawn for a batch at a time. What a generator makes of them is its own business.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GaussianLatents(nn.Module):
    """Standard normal vectors; which class an image shows is left to the teacher (DAFL).

    Args:
        length: z of the latent vectors.
        count: N, vectors in a batch.
    """

    def __init__(self, length: int, count: int) -> None:
        super().__init__()
        self.length, self.count = length, count

    def renew(self) -> bool:
        """Begin a round: there is nothing to draw anew, and so False."""
        return False

    def forward(self) -> tuple[Tensor, None]:
        """Latent vectors `[N, z]`, no labels."""
        return torch.randn(self.count, self.length), None


class NoisyLatents(nn.Module):
    """Labels sent through a dense layer of random weights that is drawn anew every round (NAYER, Tran et al. 2024).

    Every class is wanted equally often, however small the batch. Each group of K samples, one of every class, has a
    layer of its own. Its weights are trained with the generator and forgotten with the round. As codes of the classes
    the authors take text embeddings of their names; here they are one-hot, for a name is data too. Vectors are divided
    by sqrt(K), so that fresh ones are standard normal, as what is exported with the generator expects.

    Args:
        length: z of the latent vectors.
        classes: K.
        count: N, vectors in a batch.
    """

    def __init__(self, length: int, classes: int, count: int) -> None:
        super().__init__()
        self.length, self.norm = length, nn.BatchNorm1d(classes)
        self.weight = nn.Parameter(torch.empty(math.ceil(count / classes), classes, length))
        self.bias = nn.Parameter(torch.empty(len(self.weight), 1, length))
        self.register_buffer("chosen", torch.empty(count, dtype=torch.long))
        self.renew()

    def renew(self) -> bool:
        """Draw the layers anew; True, for what was learned of the old ones is worth nothing now."""
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)
        chosen, classes = self.get_buffer("chosen"), self.weight.shape[1]
        whole = len(chosen) // classes * classes  # the others are drawn from the classes of the last group
        chosen.copy_(torch.cat([torch.arange(whole), whole + torch.randperm(classes)[: len(chosen) - whole]]))
        return True

    def forward(self) -> tuple[Tensor, Tensor]:
        """Latent vectors `[N, z]` and the labels `[N]` that are wanted; the same labels all round."""
        groups, classes, _ = self.weight.shape
        labels, chosen = torch.arange(classes).repeat(groups), self.get_buffer("chosen")
        codes = self.norm(nn.functional.one_hot(labels, classes).float()).view(groups, classes, classes)
        vectors = (torch.bmm(codes, self.weight) / math.sqrt(classes) + self.bias).flatten(0, 1)
        return vectors[chosen], labels[chosen]
