"""What is said about samples of time: quantiles, how sure we are of the median, and whether two of them differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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


RESAMPLES = 1000
"""Draws of a bootstrap."""

LEAST_FLOOR = 0.02
"""Changes smaller than this are never called one, however quiet an A/A run was: layout and moment differ by as much."""

TIMES = {"p50": 50, "p90": 90, "load": 50}
"""Times that are compared, and which percentile each is: a load time is one sample a process."""

Verdict = Literal["ok", "improved", "inconclusive", "regressed"]


def median_interval(
    processes: Sequence[Samples], confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
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
    draws = np.random.default_rng(seed).integers(0, len(processes), (resamples, len(processes)))
    return _ends(_of_draws(processes, draws, 50), confidence)


def _of_draws(processes: Sequence[Samples], draws: NDArray[np.int64], percent: float) -> NDArray[np.float64]:
    """The pooled percentile of every draw of processes; each distinct draw is computed once."""
    distinct, which = np.unique(np.sort(draws, axis=1), axis=0, return_inverse=True)  # 126 at most for five processes
    found = [float(np.percentile(np.concatenate([processes[i] for i in draw]), percent)) for draw in distinct]
    return np.array(found)[which.ravel()]


def _ends(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.percentile(values, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high)


@dataclass(frozen=True)
class Change:
    """A time over an earlier one, with the ends of its 95 % interval; no ends where there was but one process."""

    ratio: float
    low: float | None = None
    high: float | None = None

    def verdict(self, limit: float) -> Verdict:
        """Whether the ratio is above `limit` (such as 1.05) beyond doubt, below it, or nobody can tell.

        Only an interval that lies wholly above the limit is a regression; one wholly below 1/limit an improvement.
        """
        if self.low is None or self.high is None:
            return "inconclusive"
        if self.low > limit:
            return "regressed"
        if self.high < 1 / limit:
            return "improved"
        return "ok" if self.high <= limit else "inconclusive"

    def floor(self) -> float:
        """Of a model over itself (an A/A run): how far from 1 its interval reaches, and at least `LEAST_FLOOR`."""
        ends = (self.low, self.high) if self.low and self.high else (self.ratio,)
        return max(LEAST_FLOOR, *(math.expm1(abs(math.log(end))) for end in ends))


def change(
    now: Sequence[Samples], then: Sequence[Samples], *, percent: float = 50, paired: bool = False, seed: int = 0
) -> Change:
    """The ratio of two pooled percentiles, with a bootstrap interval that resamples whole processes.

    Args:
        now, then: samples of each process.
        percent: which percentile.
        paired: the k-th processes of both ran one after the other, so that they shared the machine's moment: then they
            are drawn together, and what slowed both falls out of the ratio.
        seed: of the draws.
    """
    ratio = float(np.percentile(np.concatenate(now), percent) / np.percentile(np.concatenate(then), percent))
    if min(len(now), len(then)) < 2:
        return Change(ratio)
    rng = np.random.default_rng(seed)
    above = rng.integers(0, len(now), (RESAMPLES, len(now)))
    below = above if paired and len(now) == len(then) else rng.integers(0, len(then), (RESAMPLES, len(then)))
    return Change(ratio, *_ends(_of_draws(now, above, percent) / _of_draws(then, below, percent), 0.95))


def thinned(samples: Samples, limit: int) -> Samples:
    """At most `limit` samples, evenly spaced in time."""
    return samples[:: -(-len(samples) // limit)] if len(samples) > limit else samples
