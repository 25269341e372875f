"""What is said about samples of time: quantiles, and how sure we are of the median."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int64]

TAIL_SAMPLES = 1000
"""Fewer samples than this say nothing about the 99th percentile."""


def quantile(samples: Samples, percent: float) -> float:
    """The given percentile, linear between order statistics (Hyndman and Fan 1996, definition 7, numpy's default)."""
    return float(np.percentile(samples, percent))


def p99(samples: Samples) -> float | None:
    """The 99th percentile, or None below `TAIL_SAMPLES` samples, where it would be little else than the maximum."""
    return quantile(samples, 99) if len(samples) >= TAIL_SAMPLES else None


def median_interval(
    processes: Sequence[Samples], confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the pooled median, resampling whole processes.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13. Samples of one process share its memory
    layout and its moment, so they are not independent; processes nearly are. With few processes the interval is too
    narrow rather than too wide.

    Returns:
        Low and high end in the samples' unit, or None for a single process, which tells nothing about the spread.
    """
    if len(processes) < 2:
        return None
    rng = np.random.default_rng(seed)
    draws = np.sort(rng.integers(0, len(processes), (resamples, len(processes))), axis=1)
    distinct, repeats = np.unique(draws, axis=0, return_counts=True)  # 126 at most for five processes, not a thousand
    medians = [float(np.median(np.concatenate([processes[i] for i in draw]))) for draw in distinct]
    ends = np.percentile(np.repeat(medians, repeats), [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(ends[0]), float(ends[1])


def thinned(samples: Samples, limit: int) -> Samples:
    """At most `limit` samples, evenly spaced in time."""
    return samples[:: -(-len(samples) // limit)] if len(samples) > limit else samples
