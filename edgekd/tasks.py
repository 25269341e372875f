"""Kinds of output: how the numbers `[N, K]` or `[N, K, h, w]` that a model answers are read.

They are read as answers to questions, each with some options. `classes` is one question with K options. `binary` is one
label, `multilabel` K of them: each a question of its own with two options, off and on, whose logits are 0 and z, since
softmax([0, z]) is sigmoid(z). `segmentation` asks for the class of every pixel of a grid `[h, w]` that lies over the
image, `mask` for one label of every pixel. What differs between tasks is in the table here, and for torch in
`edgekd.synthesis.questions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BadModel, BadSetting

Task = Literal["classes", "binary", "multilabel", "segmentation", "mask"]
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
        grid: whether every pixel of a grid is answered, `[N, K, h, w]`, and not the image, `[N, K]`.
        fits: whether a model of K columns may have this task.
        options: of each question, for K columns.
        choices: the option chosen at each of Q questions, `[N, Q]`, by logits; pixels come row by row.
        certain: the logits that give a probability to the choices `[N, Q]`; options share the rest. `[N, K]`, of a grid
            `[N, K, Q]`.
        axes: of the labels of an evaluation: 1 for `[N]`, 2 for `[N, K]`, 3 for `[N, h, w]`.
        counted: what agreement and accuracy are shares of.
        ignored: the label that says not to count, unless there are as many classes.
    """

    exclusive: bool
    grid: bool
    fits: Callable[[int], bool]
    options: Callable[[int], int]
    choices: Callable[[Floats], Choices]
    certain: Callable[[Choices, int, float], Floats]
    axes: int
    counted: str
    ignored: int | None = None


def _largest(logits: Floats) -> Choices:
    largest: Choices = logits.argmax(axis=1).reshape(len(logits), math.prod(logits.shape[2:]))
    return largest


def _positive(logits: Floats) -> Choices:
    return (logits > 0).astype(np.int64)


def _positive_pixels(logits: Floats) -> Choices:
    return _positive(logits).reshape(len(logits), math.prod(logits.shape[1:]))


def _certain_class(choices: Choices, classes: int, probability: float) -> Floats:
    gap = np.log(probability * (classes - 1) / (1 - probability))
    return (np.eye(classes, dtype=np.float32) * np.float32(gap))[choices[:, 0]]


def _certain_pixels(choices: Choices, classes: int, probability: float) -> Floats:
    pixels = _certain_class(choices.reshape(-1, 1), classes, probability)
    return pixels.reshape(*choices.shape, classes).swapaxes(1, 2)


def _certain_labels(choices: Choices, _: int, probability: float) -> Floats:
    return (2 * choices - 1).astype(np.float32) * np.float32(np.log(probability / (1 - probability)))


def _certain_mask(choices: Choices, classes: int, probability: float) -> Floats:
    return _certain_labels(choices, classes, probability)[:, None]


KINDS: dict[Task, Kind] = {
    "classes": Kind(True, False, lambda k: k > 1, lambda k: k, _largest, _certain_class, 1, "images"),
    "binary": Kind(False, False, lambda k: k == 1, lambda _: 2, _positive, _certain_labels, 1, "images"),
    "multilabel": Kind(False, False, lambda k: k > 1, lambda _: 2, _positive, _certain_labels, 2, "labels"),
    # 255 is what is not labelled in Pascal VOC, Cityscapes and ADE20K.
    "segmentation": Kind(True, True, lambda k: k > 1, lambda k: k, _largest, _certain_pixels, 3, "pixels", 255),
    "mask": Kind(False, True, lambda k: k == 1, lambda _: 2, _positive_pixels, _certain_mask, 3, "pixels", 255),
}


def choices(logits: Floats, task: Task) -> Choices:
    """The option that logits choose at each question, `[N, Q]`; Q is 1, K for `multilabel`, h * w of a grid."""
    return KINDS[task].choices(logits)


def fitting(columns: int, grid: bool) -> list[Task]:
    """The tasks that a model of K columns may have, which answers each pixel of a grid or the image as a whole."""
    return [task for task in TASKS if KINDS[task].fits(columns) and KINDS[task].grid == grid]


def settled(
    told: Task | None, columns: int, ending: str, noted: str | None, where: object, *, grid: bool = False
) -> tuple[Task, str]:
    """The task of a model, and where it was learned: "flag", "graph" or "default".

    One column is a label, several behind a Sigmoid are labels, several behind a Softmax are classes. Several logits
    with nothing behind them could be either; they are taken for classes. Of a grid one column is a mask, several are
    classes.

    Args:
        told: what the user says, or None.
        columns: K.
        ending: what is applied to the logits last.
        noted: what the file's metadata holds under `NOTE`, or None.
        where: for messages.
        grid: whether it answers each pixel of a grid.

    Raises:
        BadSetting: what the user says does not fit the model.
        BadModel: a Softmax over one column, which answers 1 whatever the image; several Sigmoids per pixel.
    """
    softmax = ending in ("softmax", "log_softmax")
    allowed = [task for task in fitting(columns, grid) if KINDS[task].exclusive or not softmax]
    shown = f"{columns} column{'s' * (columns != 1)}{' per pixel' * grid}{f' behind a {ending}' * softmax}"
    if not allowed:
        raise BadModel(
            f"it answers {shown}, which tells nothing", where=where, allowed="one logit, or two columns and more"
        )
    if told is not None and told not in allowed:
        raise BadSetting(f"{where} answers {shown}", where=f"--task {told}", allowed=", ".join(allowed))
    if told is not None:
        return told, "flag"
    if grid and columns > 1 and ending == "sigmoid":
        hint = "if its largest column is what counts, say --task segmentation"
        raise BadModel(f"it answers {shown} that do not exclude each other", where=where, hint=hint)
    for task in allowed:
        if noted == task or len(allowed) == 1:
            return task, "graph"
    return ("multilabel", "graph") if ending == "sigmoid" else ("classes", "default")
