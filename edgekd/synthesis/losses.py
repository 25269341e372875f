"""The generator's loss terms, each a plain function of what teacher and student answered, each citing its equation.

All return a scalar to be minimised. N images, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.teachers import Moments, Statistics

EPSILON = 1e-5
"""Added to variances, as batch normalization does: a channel that is always the same is not worth more than that."""


def one_hot(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """L_oh of DAFL (eq. 2): cross-entropy of `[N, K]` logits to their own arg-max, or to the labels wanted."""
    return functional.cross_entropy(logits, logits.argmax(dim=1) if labels is None else labels)


def activation(features: Tensor) -> Tensor:
    """L_a of DAFL (eq. 3): minus the mean absolute feature of `[N, F]`.

    The paper writes an L1 norm per image; the authors' code, and so the published weight, takes the mean over N and F.
    """
    return -features.abs().mean()


def entropy(logits: Tensor) -> Tensor:
    """L_ie of DAFL (eq. 4): minus the entropy of the mean output, base 10 as in the authors' code, best -log10 K."""
    mean = logits.softmax(dim=1).mean(dim=0)
    return (mean * mean.clamp_min(1e-12).log10()).sum()


def statistics(layers: Sequence[Statistics]) -> Tensor:
    """Distance between batch and running statistics, summed over batch-normalization layers.

    After DeepInversion (Yin et al., 2020, eq. 4), which takes ||mean - running mean||_2 + ||variance - running
    variance||_2 per layer: there the channels that vary most drown the others. Batch normalization puts all channels
    on one scale, so here each is measured in its own running deviation: ||(mean - running mean) / running s||_2 +
    ||log(s / running s)||_2 (measured by edgekd; no published source).
    """
    terms = []
    for layer in layers:
        running = layer.running_variance + EPSILON
        terms.append(torch.linalg.vector_norm((layer.mean - layer.running_mean) / running.sqrt()))
        terms.append(torch.linalg.vector_norm(((layer.variance + EPSILON) / running).log() / 2))
    return torch.stack(terms).sum()


def raw_statistics(layers: Sequence[Statistics], seen: Sequence[Moments]) -> Tensor:
    """||mean - running mean||_2 + ||variance - running variance||_2, summed over layers (DeepInversion, eq. 4).

    Args:
        layers: hold the running statistics.
        seen: what is compared with them, of the batch or of several.
    """
    terms = []
    for layer, moments in zip(layers, seen, strict=True):
        terms.append(torch.linalg.vector_norm(moments.mean - layer.running_mean))
        terms.append(torch.linalg.vector_norm(moments.variance - layer.running_variance))
    return torch.stack(terms).sum()


def statistics_prior(layers: Sequence[Moments]) -> Tensor:
    """What batch normalization implies once it is folded away, summed over layers: a prior that knows no scale.

    After folding, a layer puts out what was normalized, times gamma plus beta, and over the training data channel c has
    mean beta_c and deviation |gamma_c|. In trained networks both are nearly the same all over a layer; beta is near
    zero at first, but training for long moves it, all channels alike. So means and deviations s are each asked to be
    equal, the means in units of the layer's root mean square r: 3 * (||(mean - average mean) / r||_2 + ||log s -
    average log s||_2) (measured by edgekd, as is the factor by which it has to weigh more than `statistics`; no
    published source).
    """
    terms = []
    for layer in layers:
        variance = layer.variance + 1e-6
        logarithm = variance.log() / 2
        scale = (layer.mean.square() + variance).mean().sqrt()
        terms.append(torch.linalg.vector_norm((layer.mean - layer.mean.mean()) / scale))
        terms.append(torch.linalg.vector_norm(logarithm - logarithm.mean()))
    return 3 * torch.stack(terms).sum()


def disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Minus the mean absolute difference of `[N, K]` logits (DFAD, Fang et al. 2019, eq. 3), each row centred.

    Centring leaves the softmax as it is and keeps a common offset from counting as disagreement.
    """
    return -(centred(student) - centred(teacher)).abs().mean()


def agreed_disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Minus the Kullback-Leibler divergence of `[N, K]` logits where both choose one class, else 0; mean over N.

    The "decision adversarial distillation" of Fast-Datafree and NAYER: what the student has wrong is not asked for.
    """
    agreed = student.argmax(dim=1) == teacher.argmax(dim=1)
    target, given = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    divergence = functional.kl_div(given, target, reduction="none", log_target=True).sum(dim=1)
    return -(divergence * agreed).mean()


def contention(logits: Sequence[Tensor]) -> Tensor:
    """Minus the deviation of S students' probabilities, mean over classes and images (DisGUIDE, Rosenthal et al. 2023).

    Args:
        logits: of S > 1 students, each `[N, K]`.
    """
    return -torch.stack([one.softmax(dim=1) for one in logits]).std(dim=0).mean()


def certainty(logits: Tensor) -> Tensor:
    """Deviation of `[N, K]` probabilities over classes, mean over N: the over-confidence of QEDG, to be penalised."""
    return logits.softmax(dim=1).std(dim=1).mean()


def likeness(logits: Tensor) -> Tensor:
    """Mean cosine of the probabilities `[N, K]` of two images for which the same class is chosen (QEDG); 0 without."""
    answers = functional.normalize(logits.softmax(dim=1), dim=1)
    chosen = logits.argmax(dim=1)
    pairs = (chosen.unsqueeze(0) == chosen.unsqueeze(1)).float()
    pairs.fill_diagonal_(0)
    return (answers @ answers.T * pairs).sum() / pairs.sum().clamp_min(1)


def centred(logits: Tensor) -> Tensor:
    """Logits `[N, K]` minus their mean per row: what log-probabilities determine."""
    return logits - logits.mean(dim=1, keepdim=True)


def soft_labels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence at temperature T, times T^2 (Hinton et al., 2015), mean over N."""
    target = functional.log_softmax(teacher / temperature, dim=1)
    given = functional.log_softmax(student / temperature, dim=1)
    return functional.kl_div(given, target, reduction="batchmean", log_target=True) * temperature**2


def class_entropy(labels: Tensor, classes: int) -> float:
    """Entropy of the histogram of `[N]` labels over K classes, as a share of log K: 1 is balanced, 0 one class."""
    share = torch.bincount(labels, minlength=classes).double() / len(labels)
    return float(-(share * share.clamp_min(1e-12).log()).sum() / math.log(classes))
