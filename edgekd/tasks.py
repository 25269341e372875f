"""Kinds of output: how the numbers `[N, K]` that a model answers are read.

They are read as answers to questions, each with some options. `classes` is one question with K options. `binary` is one
label, `multilabel` K of them: each a question of its own with two options, off and on, whose logits are 0 and z, since
softmax([0, z]) is sigmoid(z). What differs between tasks is in the table here, and for torch in
`edgekd.synthesis.questions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BadModel, BadSetting

Task = Literal["classes", "binary", "multilabel"]
TASKS: tuple[Task, ...] = get_args(Task)
NOTE = "edgekd.task"
"""Metadata key by which a student tells its task: logits alone do not."""
Floats = NDArray[np.float32]
Choices = NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """What a task means for numpy.

    Attributes:
        exclusive: whether one column rules out the others, as behind a softmax.
        fits: whether a model of K columns may have this task.
        options: of each question, for K columns.
        choices: the option chosen at each of Q questions, `[N, Q]`, by logits `[N, K]`.
        certain: the logits `[N, K]` that give a probability to the choices `[N, Q]`; options share the rest.
        axes: of the labels of an evaluation: 1 for `[N]`, 2 for `[N, K]`.
    """

    exclusive: bool
    fits: Callable[[int], bool]
    options: Callable[[int], int]
    choices: Callable[[Floats], Choices]
    certain: Callable[[Choices, int, float], Floats]
    axes: int


def _largest(logits: Floats) -> Choices:
    largest: Choices = logits.argmax(axis=1)[:, None]
    return largest


def _positive(logits: Floats) -> Choices:
    return (logits > 0).astype(np.int64)


def _certain_class(choices: Choices, classes: int, probability: float) -> Floats:
    gap = np.log(probability * (classes - 1) / (1 - probability))
    return (np.eye(classes, dtype=np.float32) * np.float32(gap))[choices[:, 0]]


def _certain_labels(choices: Choices, _: int, probability: float) -> Floats:
    return (2 * choices - 1).astype(np.float32) * np.float32(np.log(probability / (1 - probability)))


KINDS: dict[Task, Kind] = {
    "classes": Kind(True, lambda k: k > 1, lambda k: k, _largest, _certain_class, 1),
    "binary": Kind(False, lambda k: k == 1, lambda _: 2, _positive, _certain_labels, 1),
    "multilabel": Kind(False, lambda k: k > 1, lambda _: 2, _positive, _certain_labels, 2),
}


def choices(logits: Floats, task: Task) -> Choices:
    """The option that logits `[N, K]` choose at each question, `[N, Q]`; Q is 1, or K for `multilabel`."""
    return KINDS[task].choices(logits)


def settled(told: Task | None, columns: int, ending: str, noted: str | None, where: object) -> tuple[Task, str]:
    """The task of a model, and where it was learned: "flag", "graph" or "default".

    One column is a label, several behind a Sigmoid are labels, several behind a Softmax are classes. Several logits
    with nothing behind them could be either; they are taken for classes.

    Args:
        told: what the user says, or None.
        columns: K.
        ending: what is applied to the logits last.
        noted: what the file's metadata holds under `NOTE`, or None.
        where: for messages.

    Raises:
        BadSetting: what the user says does not fit the model.
        BadModel: a Softmax over one column, which answers 1 whatever the image.
    """
    softmax = ending in ("softmax", "log_softmax")
    fitting = [task for task in TASKS if KINDS[task].fits(columns) and (KINDS[task].exclusive or not softmax)]
    shown = f"{columns} column{'s' * (columns != 1)}{f' behind a {ending}' * softmax}"
    if not fitting:
        raise BadModel(
            f"it answers {shown}, which tells nothing", where=where, allowed="one logit, or two columns and more"
        )
    if told is not None and told not in fitting:
        raise BadSetting(f"{where} answers {shown}", where=f"--task {told}", allowed=", ".join(fitting))
    if told is not None:
        return told, "flag"
    for task in fitting:
        if noted == task or len(fitting) == 1:
            return task, "graph"
    return ("multilabel", "graph") if ending == "sigmoid" else ("classes", "default")
