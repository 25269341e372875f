"""A task in torch: logits as rows of options, so that every loss of classes serves labels and pixels too.

A label is a question with two options whose logits are 0 and z. What the losses say of such a row is what they would
say of the Bernoulli: cross-entropy to its own rounded answer, the Kullback-Leibler divergence between two of them, the
entropy of its mean output. Every term is the mean over labels. Pixels are so many answers to one question: their
class, or their label.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from edgekd.synthesis import losses
from edgekd.tasks import Task


def _labels(logits: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(logits), logits], dim=2).unsqueeze(1)


_ANSWERS: dict[Task, Callable[[Tensor], Tensor]] = {
    "classes": lambda logits: logits[:, None, None],
    "binary": _labels,
    "multilabel": _labels,
    "segmentation": lambda logits: logits.flatten(2).transpose(1, 2).unsqueeze(2),
    "mask": lambda logits: torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(1, 3).unsqueeze(2),
}
"""Logits of N images as `[N, A, Q, C]`: A answers in each image to each of Q questions with C options."""


def rows(logits: Tensor, task: Task) -> Tensor:
    """Logits as `[N * A * Q, C]`: a row of C options for each of A answers to each of Q questions about each image."""
    return _ANSWERS[task](logits).flatten(0, 2)


def entropy(logits: Tensor, task: Task) -> Tensor:
    """L_ie of DAFL (eq. 4) of each question, mean over questions: labels are to be on for half of the images.

    Of pixels it is that of all pixels of all images: classes are to be seen equally often, wherever that is.
    """
    questions = _ANSWERS[task](logits).flatten(0, 1).unbind(dim=1)
    return torch.stack([losses.entropy(question) for question in questions]).mean()


def scores(logits: Tensor, task: Task) -> Tensor:
    """Log-probability of every option there is, `[N, Q * C]`: class by class, or label by label off and on.

    Of pixels it is the logarithm of the mean probability over the image.
    """
    each = _ANSWERS[task](logits).log_softmax(dim=3)
    return (each.logsumexp(dim=1) - math.log(each.shape[1])).flatten(1)


def chosen(logits: Tensor, task: Task) -> Tensor:
    """Which of the options of `scores` are chosen: bool `[N, Q * C]`, one of every question, or by any pixel."""
    each = _ANSWERS[task](logits)
    found = torch.zeros(each.shape[0], *each.shape[2:], dtype=torch.bool)
    return found.scatter_(2, each.argmax(dim=3).transpose(1, 2), True).flatten(1)


def balance(logits: Tensor, task: Task) -> float:
    """Entropy of the histogram of what is chosen, as a share of the most there can be, mean over questions."""
    each = _ANSWERS[task](logits)
    answers = each.argmax(dim=3).flatten(0, 1).unbind(dim=1)
    found = [losses.class_entropy(labels, each.shape[3]) for labels in answers]
    return sum(found) / len(found)
