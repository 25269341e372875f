"""Which procedural images to draw the more of: those with pixels such as the teacher's normalization tells.

A network that subtracts a mean and divides by a deviation was trained on images that have them: a mean of 0.13 and a
deviation of 0.31 is bright ink on a dark ground, 0.47 and 0.25 is anything but that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.codes import Bound, extent

MOMENTS = {
    "value_noise": ((0.372, 0.169), (0.379, 0.176)),
    "dead_leaves": ((0.375, 0.191), (0.375, 0.192)),
    "silhouettes": ((0.248, 0.133), (0.502, 0.330)),
    "strokes": ((0.188, 0.073), (0.558, 0.360)),
}
"""Mean of a pixel and of its square in each family of `priors`, as drawn and inverted (4,000 images each)."""
APART = (0.17, 0.15)
"""The deviations of the two from image to image, over all of them."""
RIDGE = 0.03
"""Against leaving a family out for a small difference."""
BINARY = 0.98
"""Of the largest deviation that a mean allows: what comes nearer to it is a convention, as 0.5 and 0.5 are."""


def mixture(mean: Sequence[float] | None, std: Sequence[float] | None, low: Bound, high: Bound) -> Tensor | None:
    """Shares `[families, 2]`, as drawn and inverted, that come nearest to what a normalization tells.

    Of all shares that come as near these differ least from equal ones: p_i ~ exp(a · z_i), z_i a family's moments in
    units of their deviation (minimum discrimination information; Kullback, 1959), a found with a ridge.

    Args:
        mean, std: of each channel, in the input's own range; None where nothing is known.
        low, high: that range.

    Returns:
        None where the two tell nothing: an unknown normalization, or one that no images between low and high have.
    """
    if mean is None or std is None:
        return None
    start, end = extent(low, high)
    means = (torch.tensor(mean, dtype=torch.float64) - start) / (end - start)
    squares = (torch.tensor(std, dtype=torch.float64) / (end - start)) ** 2 + means**2
    first, second = float(means.mean()), float(squares.mean())
    if second - first**2 >= BINARY * (first - first**2):
        return None
    apart = torch.tensor(APART, dtype=torch.float64)
    moments = torch.tensor(list(MOMENTS.values()), dtype=torch.float64).flatten(0, 1)
    middle = moments.mean(0)
    units, goal = (moments - middle) / apart, (torch.tensor([first, second], dtype=torch.float64) - middle) / apart
    tilt = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([tilt], max_iter=200, line_search_fn="strong_wolfe")

    def distance() -> Tensor:
        search.zero_grad()
        found = torch.logsumexp(units @ tilt, 0) - tilt @ goal + RIDGE / 2 * tilt @ tilt
        found.backward()  # type: ignore[no-untyped-call]  # missing in torch's stubs
        return found

    search.step(distance)  # type: ignore[no-untyped-call]
    return torch.softmax(units @ tilt.detach(), 0).view(-1, 2)
