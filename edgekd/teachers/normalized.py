"""Whether layers that look like it had batch normalization that was folded into them: their biases tell.

Batch normalization takes each channel's mean off. Folded, that is the layer's bias: it undoes what the filter answers
on average, b = beta - gamma * mean / deviation. A bias that was trained beside its filter has no such duty and stays
small (LeNet). Images of no data set at all show it, because a filter's mean answer depends little on what it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgekd.codes import Bound
from edgekd.teachers import Moments
from edgekd.teachers.codes import within

COUNT, CELL = 16, 8
"""Images to look with, and the side of the squares of pixels between which they shade."""
LEAST_BALANCE = 0.05
"""Teachers measured here: 0.2 to 0.5 with batch normalization folded (MobileNetV3 least), 0.00 and below without."""


def shades(shape: tuple[int, int, int], low: Bound, high: Bound) -> Tensor:
    """Smooth random images `[16, C, H, W]` between low and high, always the same ones."""
    channels, height, width = shape
    cells = (max(2, height // CELL), max(2, width // CELL))
    coarse = torch.rand(COUNT, channels, *cells, generator=torch.Generator().manual_seed(0))
    return within(functional.interpolate(coarse, size=(height, width), mode="bilinear"), low, high)


def balance(layers: Sequence[Moments], biases: Sequence[NDArray[np.float64]]) -> float:
    """How far biases undo the mean answers of their filters: minus their covariance, in units of the layer's variance.

    Args:
        layers: what some images showed in each layer, biases included.
        biases: `[channels]` of each of them, or `[1]`.

    Returns:
        The mean over layers, each counted from -1 to 1.
    """
    found = []
    for layer, bias in zip(layers, biases, strict=True):
        added = torch.from_numpy(bias).to(layer.mean)
        answered = layer.mean - added
        covariance = ((answered - answered.mean()) * (added - added.mean())).mean()
        found.append(float((-covariance / (layer.variance.mean() + 1e-12)).clamp(-1, 1)))
    return sum(found) / len(found)
