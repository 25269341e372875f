"""What a tensor name of the ONNX graph stands for while the graph is being imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from edgekd.errors import BadModel

Element: TypeAlias = int | float | bool | fx.Node
"""A number known now, or a node that yields a Python number when the module runs."""


@dataclass(frozen=True)
class Sizes:
    """A tensor of rank 0 or 1 that depends on the sizes of the inputs: shape arithmetic, kept as Python numbers."""

    elements: tuple[Element, ...]
    scalar: bool
    dtype: torch.dtype


Value: TypeAlias = Tensor | fx.Node | Sizes
"""A constant, a tensor computed when the module runs, or shape arithmetic."""


class Unconvertible(BadModel):
    """One node cannot be imported as it stands; the importer adds which node."""


def sizes_tensor(elements: Sequence[Any], scalar: bool, dtype: torch.dtype, like: Tensor) -> Tensor:
    """Shape arithmetic as a tensor, for the operators that want one; on the device of `like`."""
    return torch.tensor(elements[0] if scalar else list(elements), dtype=dtype, device=like.device)
