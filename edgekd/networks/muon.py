"""Muon (Jordan et al., 2024) for whole networks: orthogonalized momentum for filters and matrices, Adam for the rest.

`torch.optim.Muon` takes matrices only. Here each filter bank `[out, in, h, w]` lends it its own memory as a matrix
`[out, h * w * in]`, as its author does for convolutions. It does not know first or last layers: one rule, by shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

ADAM_SHARE = 0.25
"""The learning rate of Adam as a share of Muon's."""


class Muon:
    """Two optimizers behind the interface of one.

    A step moves every direction of a matrix equally far, however steep the loss is along it. Vectors, and filters over
    a single channel (depthwise, or the stem for grey images), which are no matrices, go to Adam.

    Args:
        parameters: of the network, in their final memory format: `Module.to(memory_format=...)` comes before.
        rate: step length of an orthogonalized matrix, times max(1, out / in) ** 0.5.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float) -> None:
        parameters = list(parameters)
        self.matrices = [p for p in parameters if p.dim() > 1 and p.shape[1] > 1]
        self.others = [p for p in parameters if p.dim() < 2 or p.shape[1] < 2]
        self.views = [nn.Parameter(_matrix(p.detach(), p)) for p in self.matrices]
        self.muon = torch.optim.Muon([{"params": self.views}], lr=rate, weight_decay=0.0, momentum=0.9)
        rest = {"params": self.others, "share": ADAM_SHARE}
        self.adam = torch.optim.Adam([rest], lr=ADAM_SHARE * rate, betas=(0.9, 0.99))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both; a group's learning rate is its "share", or else 1, of the network's."""
        return [*self.muon.param_groups, *self.adam.param_groups]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in (*self.matrices, *self.others):
            parameter.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for parameter, view in zip(self.matrices, self.views, strict=True):
            view.grad = None if parameter.grad is None else _matrix(parameter.grad, parameter)
        self.muon.step()  # type: ignore[no-untyped-call]  # missing in torch's stubs
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs of both."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a stored state of the same network."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def _matrix(values: Tensor, parameter: Tensor) -> Tensor:
    """`[out, ...]` as a matrix `[out, -1]`, in the order in which the parameter lies in memory: a view of it."""
    return values.flatten(1) if parameter.is_contiguous() else values.movedim(1, -1).flatten(1)
