"""Rows of a table before anyone says of what: what features have in common when nothing but their ranges is known.

Four families: features that have nothing to do with each other; few that move while the others rest; all that follow a
few hidden causes (a Gaussian copula of low rank); and neighbours alike, as along a spectrum, a clock, or the pixels of
a line. As with images what was answered is bred: children of the rows that came nearest to a wanted class. A row is
`[F, 1, 1]` between 0 and 1, the ends of each feature's own range.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.synthesis.evolution import fittest

LEVELS = (2, 4, 8, 16)
"""Half of the rows take so few values: counts and grades are features as well."""


def draw(count: int, features: int) -> Tensor:
    """`count` rows `[count, F, 1, 1]` in [0, 1], a quarter of each family, by torch's global random state."""
    quarter = math.ceil(count / len(FAMILIES))
    rows = torch.cat([family(quarter, features) for family in FAMILIES])[torch.randperm(len(FAMILIES) * quarter)]
    return _developed(rows[:count])[:, :, None, None]


def _developed(rows: Tensor) -> Tensor:
    """A curve for each row, half of them turned upside down, half of them in steps."""
    count = len(rows)
    rows = rows.clamp(0, 1) ** torch.exp(1.4 * torch.rand(count, 1) - 0.7)
    rows = torch.where(torch.rand(count, 1) < 0.5, 1 - rows, rows)
    steps = torch.tensor(LEVELS)[torch.randint(len(LEVELS), (count, 1))]
    return torch.where(torch.rand(count, 1) < 0.5, (rows * steps).round() / steps, rows)


def independent(count: int, features: int) -> Tensor:
    """Each feature anywhere."""
    return torch.rand(count, features)


def sparse(count: int, features: int) -> Tensor:
    """Some features anywhere, the others at rest: at an end of their range, or where another row has them."""
    rest = torch.where(torch.rand(count, 1) < 0.7, torch.zeros(count, features), torch.rand(count, features))
    moving = torch.rand(count, features) < torch.rand(count, 1)
    return torch.where(moving, torch.rand(count, features), rest)


def caused(count: int, features: int) -> Tensor:
    """Features that follow up to eight hidden causes, their weights drawn for each row's group of 16."""
    groups, causes = math.ceil(count / 16), 1 + int(torch.randint(8, ()))
    weights = torch.randn(groups, features, causes) / math.sqrt(causes)
    values = torch.randn(groups, 16, causes) @ weights.transpose(1, 2)
    noise = 0.3 * torch.rand(groups, 16, 1) * torch.randn(groups, 16, features)
    ranks: Tensor = torch.special.ndtr(values + noise)
    return ranks.flatten(0, 1)[:count]


def ordered(count: int, features: int) -> Tensor:
    """Neighbouring features alike: random numbers on coarse grids, smoothly enlarged and summed."""
    total = torch.zeros(count, 1, features)
    slope = 0.3 + 0.7 * torch.rand(count, 1, 1)
    cells = 2
    while cells <= max(2, features):
        smooth = functional.interpolate(torch.randn(count, 1, cells), size=features, mode="linear", align_corners=True)
        total += smooth * slope ** math.log2(cells)
        cells *= 2
    low, high = total.amin(2, keepdim=True), total.amax(2, keepdim=True)
    return ((total - low) / (high - low).clamp_min(1e-6)).squeeze(1)


FAMILIES: tuple[Callable[[int, int], Tensor], ...] = (independent, sparse, caused, ordered)


def children(codes_at: Callable[[Tensor], Tensor], scores: Tensor, count: int) -> Tensor:
    """`count` new rows out of asked ones, all options wanted equally often; as `evolution.children`.

    Args:
        codes_at: of the N rows asked so far, the uint8 codes `[n, F, 1, 1]` at places `[n]`.
        scores: `[N, O]`, the log-probability of each option in the answers.

    Returns:
        float32 `[count, F, 1, 1]` in [0, 1]: two parents of one option, mixed or crossed, with some features drawn anew
        and all of them a little off.
    """
    wanted = torch.randint(scores.shape[1], (count,))
    first, second = (codes_at(fittest(scores, wanted)).float().flatten(1) / 255 for _ in range(2))
    kind, share = torch.rand(count, 1), torch.rand(count, 1)
    crossed = torch.where(torch.rand_like(first) < share, first, second)
    bred = torch.where(kind < 0.3, share * first + (1 - share) * second, torch.where(kind < 0.8, crossed, first))
    anew = torch.rand_like(bred) < 0.2 * torch.rand(count, 1) ** 2
    off = 0.1 * torch.rand(count, 1) ** 2 * torch.randn_like(bred)
    return torch.where(anew, torch.rand_like(bred), bred + off).clamp(0, 1)[:, :, None, None]
