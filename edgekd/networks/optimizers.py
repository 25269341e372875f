"""How a student learns: the optimizers that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from edgekd.config import Recipe
from edgekd.networks.muon import Muon

Optimizer = torch.optim.Optimizer | Muon
_BY_NAME: dict[str, Callable[[Iterable[nn.Parameter], Recipe], Optimizer]] = {
    "adam": lambda learning, recipe: torch.optim.Adam(learning, recipe.student_rate),
    "sgd": lambda learning, recipe: torch.optim.SGD(
        learning, recipe.student_rate, momentum=0.9, weight_decay=recipe.student_decay
    ),
    "muon": lambda learning, recipe: Muon(learning, recipe.student_rate),
}


def student_optimizer(learning: Iterable[nn.Parameter], recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over what is learned together with the student."""
    return _BY_NAME[recipe.student_optimizer](learning, recipe)
