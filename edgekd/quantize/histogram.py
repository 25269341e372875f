"""What is known of one activation: its extremes, and how often which values occur, in memory that does not grow.

Bins are as wide as a power of two, and lie where multiples of it lie. When values come that lie outside, neighbouring
bins are joined in pairs until all fit; so the result does not depend on what came first. ONNX Runtime's histogram keeps
the bins of the first batch and adds more of them beside; and collecting all activations before, it holds some 13 MB a
sample of a 2 MB model.
"""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_CHUNK = 2**16  # values binned at a time: they are held as 64-bit numbers meanwhile
_FINEST = -120
"""Exponent of the narrowest bins: float32 still holds what values are multiplied by."""


class Histogram:
    """Counts of an activation's values; at most `bins` of them, and more than half as many once it varies.

    Attributes:
        low, high: least and largest value.
        zeros: how many values are exactly 0, which every quantization keeps.
        counts: int64 `[n]`, of the bins from `start` on.
        first, exponent: the number of the first bin, counted from 0, and the width as a power of two.
        batches, mean_low, mean_high: how many batches came, and the means of their extremes.
    """

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self.low, self.high, self.zeros = math.inf, -math.inf, 0
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self.first, self.exponent = 0, _FINEST
        self.batches, self.mean_low, self.mean_high = 0, 0.0, 0.0

    @property
    def width(self) -> float:
        """Of one bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def start(self) -> float:
        """Where the first bin begins."""
        return self.first * self.width

    @property
    def total(self) -> int:
        """How many values came."""
        return int(self.counts.sum())

    def centres(self) -> NDArray[np.float64]:
        """Middles of the bins, `[n]`."""
        return (self.first + np.arange(len(self.counts), dtype=np.float64) + 0.5) * self.width

    def add(self, values: Floats) -> None:
        """Count a batch of values, of any shape.

        Raises:
            ValueError: one of them is NaN or infinite.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN or infinite")
        self.batches += 1
        self.mean_low += (low - self.mean_low) / self.batches
        self.mean_high += (high - self.mean_high) / self.batches
        self.zeros += values.size - int(np.count_nonzero(values))
        self._reach(low, high)
        for start in range(0, values.size, _CHUNK):
            scaled = values.reshape(-1)[start : start + _CHUNK] * np.float32(math.ldexp(1.0, -self.exponent))
            places = np.floor(scaled, out=scaled).astype(np.int64) - self.first
            self.counts += np.bincount(places, minlength=len(self.counts))

    def coarser(self, bins: int) -> Histogram:
        """The histogram that as few bins would have made of the same values."""
        fewer = copy.copy(self)
        fewer._bins = bins
        if self.batches:
            fewer._reach(self.low, self.high)
        return fewer

    def _reach(self, low: float, high: float) -> None:
        """Widen the bins until all that came and comes fits into them."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(abs(self.low), abs(self.high))
        exponent = max(self.exponent, math.frexp(largest)[1] - 31) if largest else self.exponent  # places fit 32 bits
        while self._place(self.high, exponent) - self._place(self.low, exponent) >= self._bins:
            exponent += 1
        first, last = self._place(self.low, exponent), self._place(self.high, exponent)
        counts = np.zeros(last - first + 1, np.int64)
        before = np.flatnonzero(self.counts)
        moved = ((before + self.first) >> (exponent - self.exponent)) - first
        np.add.at(counts, moved, self.counts[before])
        self.counts, self.first, self.exponent = counts, first, exponent

    @staticmethod
    def _place(value: float, exponent: int) -> int:
        return math.floor(math.ldexp(value, -exponent))


def share_outside(histogram: Histogram, low: float, high: float) -> float:
    """Share of the values below `low` or above `high`, to a bin's width."""
    centres = histogram.centres()
    outside = histogram.counts[(centres < low - histogram.width / 2) | (centres > high + histogram.width / 2)].sum()
    return float(outside / max(1, histogram.total))


def overlap(one: Histogram, other: Histogram) -> float:
    """What two distributions have in common, from 0 to 1: the sum over bins of the smaller of their shares."""
    exponent = max(one.exponent, other.exponent)
    shares = [_shares(histogram, exponent) for histogram in (one, other)]
    return float(sum(min(share, shares[1].get(place, 0.0)) for place, share in shares[0].items()))


def _shares(histogram: Histogram, exponent: int) -> dict[int, float]:
    """The share of every bin that holds anything, by its place among bins of that width."""
    filled = np.flatnonzero(histogram.counts)
    found: dict[int, float] = {}
    for place, count in zip(filled + histogram.first, histogram.counts[filled], strict=True):
        joined = int(place) >> (exponent - histogram.exponent)
        found[joined] = found.get(joined, 0.0) + float(count) / histogram.total
    return found
