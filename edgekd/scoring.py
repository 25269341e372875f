"""How right choices are: shares, their interval, F1, intersection over union. It knows neither files nor models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks import KINDS, Task


def ignored_label(options: int, task: Task) -> int | None:
    """The label that is not counted, if there is one."""
    ignored = KINDS[task].ignored
    return ignored if ignored is not None and ignored >= options else None


class Tally:
    """What was chosen beside what is right.

    Args:
        found, labels: `[N, Q]`.
        options: of each question.
        task: of both.
    """

    def __init__(self, found: NDArray[Any], labels: NDArray[Any], options: int, task: Task) -> None:
        self.kind = KINDS[task]
        ignored = ignored_label(options, task)
        self.counted = np.ones(labels.shape, np.bool_) if ignored is None else labels != ignored
        self.right = (found == labels) & self.counted
        several = not (self.kind.exclusive or self.kind.grid) and labels.shape[1] > 1
        self.on = (found == 1, labels == 1) if several else None
        """Of several labels, which are answered and which are right, bool `[N, K]` each."""
        self.n, self.correct = int(self.counted.sum()), int(self.right.sum())
        pairs = options * labels[self.counted].astype(np.int64) + found[self.counted]
        self.table = np.bincount(pairs, minlength=options**2).reshape(options, options)
        """How often which label was answered how: the confusion matrix, a row per label."""

    def summary(self) -> dict[str, float]:
        """Accuracy, and where pixels are answered mean_iou, elsewhere f1."""
        accuracy = {"accuracy": self.correct / self.n}
        if not self.kind.grid:
            return accuracy | {"f1": self._f1()}
        ious = [iou for iou in self._ious() if iou is not None]
        return accuracy | {"mean_iou": sum(ious) / len(ious)}

    def _f1(self) -> float:
        """Of two options that of the second, of more the mean over those that are anywhere; of labels their mean.

        The harmonic mean of precision and recall (van Rijsbergen, 1979): twice what is both over the sum of either.
        """
        if self.on is not None:
            found, labels = self.on
            both, sums = (found & labels).sum(axis=0), found.sum(axis=0) + labels.sum(axis=0)
        else:
            both, sums = self.table.diagonal(), self.table.sum(axis=0) + self.table.sum(axis=1)
            if len(both) == 2:
                both, sums = both[1:], sums[1:]
        there = sums > 0
        return float((2 * both[there] / sums[there]).mean()) if there.any() else 0.0

    def _ious(self) -> list[float | None]:
        """Jaccard index of each class (Everingham et al., 2010), None of one that is nowhere."""
        both = self.table.diagonal()
        either = self.table.sum(axis=0) + self.table.sum(axis=1) - both
        return [_share(*pair) for pair in zip(both, either, strict=True)]

    def per_class(self) -> list[dict[str, Any]]:
        """By class; of several labels, by label."""
        if self.on is not None:
            shares, n = self.right.mean(axis=0), len(self.right)
            return [{"class": k, "n": n, "accuracy": share.item()} for k, share in enumerate(shares)]
        totals, entries = self.table.sum(axis=1), list[dict[str, Any]]()
        for k, (right, n) in enumerate(zip(self.table.diagonal(), totals, strict=True)):
            entries.append({"class": k, "n": int(n), "accuracy": _share(right, n)})
        if self.kind.grid:
            entries = [entry | {"iou": iou} for entry, iou in zip(entries, self._ious(), strict=True)]
        return entries

    def interval(self) -> tuple[float, float]:
        """Of the accuracy, 95 %."""
        return interval(self.right, self.counted)


def interval(right: NDArray[np.bool_], counted: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """Of the share of answers that are right, 95 %; answers about one image are related.

    Args:
        right: `[N, Q]`, false where nothing is counted.
        counted: likewise; all if left out.
    """
    counted = np.ones(right.shape, np.bool_) if counted is None else counted
    n = float(counted.sum())
    share = float(right.sum()) / n
    if right.shape[1] > 1:
        n = effective(right.sum(axis=1), counted.sum(axis=1))
    return wilson(share * n, n)


def _share(part: np.int64, whole: np.int64) -> float | None:
    return int(part) / int(whole) if whole else None


def effective(correct: NDArray[np.int64], counted: NDArray[np.int64]) -> float:
    """How many independent answers vary as much as those of some images, related within each, do.

    The variance of a ratio over a cluster sample is `N / (N - 1) * sum((c - p n)^2) / sum(n)^2` (Kish, 1965), that of
    independent answers `p (1 - p) / n`. Where images do not differ there are as many as images.

    Args:
        correct: right answers by image, `[N]`.
        counted: answers by image.
    """
    images, n = int((counted > 0).sum()), int(counted.sum())
    share = correct.sum() / n
    spread = float(((correct - share * counted) ** 2).sum()) / n**2
    if images < 2 or not spread:
        return float(images)
    return float(np.clip(share * (1 - share) * (images - 1) / images / spread, 1, n))


def wilson(correct: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927), 95 % by default; unlike p ± z·s it stays within 0 and 1."""
    share, weight = correct / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)
