"""A task in torch: logits `[N, K]` as rows of options, so that every loss of classes serves labels too.

A label is a question with two options whose logits are 0 and z. What the losses say of such a row is what they would
say of the Bernoulli: cross-entropy to its own rounded answer, the Kullback-Leibler divergence between two of them, the
entropy of its mean output. Every term is the mean over labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.synthesis import losses
from edgekd.tasks import Task


def _labels(logits: Tensor) -> Tensor:
    flat = logits.flatten()
    return torch.stack([torch.zeros_like(flat), flat], dim=1)


_ROWS: dict[Task, Callable[[Tensor], Tensor]] = {
    "classes": lambda logits: logits,
    "binary": _labels,
    "multilabel": _labels,
}


def rows(logits: Tensor, task: Task) -> Tensor:
    """Logits `[N, K]` as `[N * Q, C]`: a row for each of Q questions about each image, its C options."""
    return _ROWS[task](logits)


def _by_image(logits: Tensor, task: Task) -> Tensor:
    """`[N, Q, C]`."""
    each = rows(logits, task)
    return each.reshape(len(logits), -1, each.shape[1])


def entropy(logits: Tensor, task: Task) -> Tensor:
    """L_ie of DAFL (eq. 4) of each question, mean over questions: labels are to be on for half of the images."""
    questions = _by_image(logits, task).unbind(dim=1)
    return torch.stack([losses.entropy(question) for question in questions]).mean()


def scores(logits: Tensor, task: Task) -> Tensor:
    """Log-probability of every option there is, `[N, Q * C]`: class by class, or label by label off and on."""
    return rows(logits, task).log_softmax(dim=1).reshape(len(logits), -1)


def chosen(logits: Tensor, task: Task) -> Tensor:
    """Which of the options of `scores` are chosen: bool `[N, Q * C]`, one of every question."""
    each = _by_image(logits, task)
    return functional.one_hot(each.argmax(dim=2), each.shape[2]).flatten(1).bool()


def balance(logits: Tensor, task: Task) -> float:
    """Entropy of the histogram of what is chosen, as a share of the most there can be, mean over questions."""
    each = _by_image(logits, task)
    found = [losses.class_entropy(labels, each.shape[2]) for labels in each.argmax(dim=2).unbind(dim=1)]
    return sum(found) / len(found)
