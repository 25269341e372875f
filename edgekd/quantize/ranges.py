"""The range of every activation, found in its histogram: one function per method of a recipe.

Each takes a histogram, the recipe and the number of levels (256 for 8 bits), and returns the least and the largest
value that are kept; what lies outside is clipped to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgekd.devices import CalibrationRecipe
from edgekd.quantize.histogram import Histogram

Range = tuple[float, float]
Method = Callable[[Histogram, CalibrationRecipe, int], Range]
_STEPS = 128  # how many ends are tried on either side
_PLAIN_BINS = 2048  # kept for those methods that do not look at them: coverage does


def minmax(histogram: Histogram, _: CalibrationRecipe, __: int) -> Range:
    """The smallest and the largest value seen (Jacob et al., CVPR 2018)."""
    return histogram.low, histogram.high


def moving_average(histogram: Histogram, _: CalibrationRecipe, __: int) -> Range:
    """The means over batches of the smallest and of the largest value, as ONNX Runtime's CalibMovingAverage."""
    return histogram.mean_low, histogram.mean_high


def percentile(histogram: Histogram, recipe: CalibrationRecipe, _: int) -> Range:
    """The range that holds a share of all values, the rest half on either side (arXiv:2004.09602, section 5.2)."""
    assert recipe.percentile is not None
    tail = (1 - recipe.percentile / 100) / 2
    shares = np.concatenate([[0.0], np.cumsum(histogram.counts) / histogram.total])
    edges = histogram.start + histogram.width * np.arange(len(shares))
    low, high = np.interp((tail, 1 - tail), shares, edges).clip(histogram.low, histogram.high)
    return float(low), float(high)


def entropy(histogram: Histogram, _: CalibrationRecipe, levels: int) -> Range:
    """The range whose quantized version loses least information (Migacz, GTC 2017).

    Magnitudes above a threshold are clipped, on both sides. P is the histogram with what is clipped in its outer bins,
    Q what `levels` steps leave of the inner bins; the least Kullback-Leibler divergence KL(P || Q) wins. A histogram of
    fewer bins than levels cannot tell: then nothing is clipped. Exact zeros do not count, every range keeps them: where
    Relu made half of the values 0, they would else outweigh all others.
    """
    low, high = _with_zero(histogram)
    counts, centres = _without_zeros(histogram), histogram.centres()
    best, kept = np.inf, (low, high)
    for factor in np.linspace(1.0, 1 / _STEPS, _STEPS):
        threshold = factor * max(-low, high)
        inside = np.flatnonzero(np.abs(centres) <= threshold)
        if len(inside) < levels or not counts[inside].any():
            break
        lost = _divergence(counts, inside[0], inside[-1] + 1, levels)
        if lost < best:
            best, kept = lost, (max(low, -threshold), min(high, threshold))
    return kept


def _divergence(counts: NDArray[np.float64], first: int, end: int, levels: int) -> float:
    """KL(P || Q) of Migacz for the bins from first to end."""
    inner = counts[first:end]
    reference = inner.copy()
    reference[0] += counts[:first].sum()
    reference[-1] += counts[end:].sum()
    filled = inner > 0
    places = np.linspace(0, len(inner), levels, endpoint=False).astype(np.int64)
    sums, used = np.add.reduceat(inner, places), np.add.reduceat(filled.astype(np.float64), places)
    spread = np.repeat(sums / np.maximum(used, 1), np.diff(np.append(places, len(inner)))) * filled
    wanted = reference > 0
    if not (spread[wanted] > 0).all():
        spread = np.maximum(spread, 1e-6 * spread.max())  # where only clipped values lie, Q must not be 0
    p, q = reference / reference.sum(), spread / spread.sum()
    return float((p[wanted] * np.log(p[wanted] / q[wanted])).sum())


def mse(histogram: Histogram, _: CalibrationRecipe, levels: int) -> Range:
    """The range of least mean squared error, either end moved on its own.

    Values inside are off by uniform noise, step^2 / 12, but for exact zeros; values outside by their distance to the
    end (the model of OCTAV: Sakr et al., ICML 2022, eq. 5). ONNX Runtime has no such method.
    """
    low, high = _with_zero(histogram)
    counts, centres = _without_zeros(histogram), histogram.centres()
    factors = np.linspace(1 / _STEPS, 1.0, _STEPS)
    lows, highs = (factors * low if low < 0 else np.zeros(1)), (factors * high if high > 0 else np.zeros(1))
    under, missed_low = _outside(-centres[::-1], counts[::-1], -lows)
    over, missed_high = _outside(centres, counts, highs)
    step = (highs[None, :] - lows[:, None]) / (levels - 1)
    rounded = counts.sum() - missed_low[:, None] - missed_high[None, :]
    error = under[:, None] + over[None, :] + step**2 / 12 * np.maximum(rounded, 0)
    row, column = np.unravel_index(int(error.argmin()), error.shape)
    return float(lows[row]), float(highs[column])


def _outside(
    centres: NDArray[np.float64], counts: NDArray[np.float64], ends: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of squared distances of what lies above each end, and how much that is; `centres` ascend."""
    from_above = [np.append(np.cumsum((counts * centres**power)[::-1])[::-1], 0.0) for power in (0, 1, 2)]
    many, first, second = (sums[np.searchsorted(centres, ends, side="right")] for sums in from_above)
    return np.maximum(second - 2 * ends * first + ends**2 * many, 0), many


def _without_zeros(histogram: Histogram) -> NDArray[np.float64]:
    """Counts of the values that are not exactly 0."""
    counts = histogram.counts.astype(np.float64)
    if histogram.zeros:
        counts[-histogram.first] -= histogram.zeros
    return counts


def _with_zero(histogram: Histogram) -> Range:
    """The range of all values and of 0, which quantization always represents."""
    return min(histogram.low, 0.0), max(histogram.high, 0.0)


METHODS: dict[str, Method] = {
    "minmax": minmax,
    "moving-average": moving_average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def bins_of(recipe: CalibrationRecipe) -> int:
    """How many bins a recipe's histograms have."""
    return recipe.bins or _PLAIN_BINS


def tensor_ranges(
    histograms: Mapping[str, Histogram], recipe: CalibrationRecipe, *, levels: int, symmetric: bool = False
) -> dict[str, Range]:
    """The range of every activation by a recipe.

    Args:
        histograms: of the activations, by tensor name.
        recipe: method and options.
        levels: 256 for 8 bits.
        symmetric: make ranges symmetric about zero, whatever the recipe says, because the target wants it.
    """
    found = {name: METHODS[recipe.method](histogram, recipe, levels) for name, histogram in histograms.items()}
    if not (recipe.symmetric or symmetric):
        return found
    return {name: (-max(map(abs, ends)), max(map(abs, ends))) for name, ends in found.items()}
