"""A teacher that is only asked: numpy images in, numpy scores out, and nothing of torch.

An ONNX Runtime session, a server and a Python function are the same to the rest of edgekd: a `Source`. What its scores
mean is settled here, once: every source answers logits, whatever it was made of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd import inference
from edgekd.codes import from_codes
from edgekd.errors import BadModel, EdgekdError
from edgekd.tasks import KINDS, Task, choices, settled
from edgekd.teachers.pixels import NOTHING_DONE, Dtype, Stated, image_layout, image_shape, pixel_values
from edgekd.teachers.spec import Interface, require_grid
from edgekd.teachers.wiring import Ending

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
Sizes = tuple[int, ...]
Again = Callable[[int], None]
"""Told a number of samples whenever they have to be sent once more after they may have been answered and paid for."""

SMALLEST = float(np.finfo(np.float32).eps)
"""Probabilities below it, and those nearer than it to 1, are taken for it: float32 cannot tell them apart near 1."""
SURE = 0.9
"""The probability that the answer of a teacher of labels alone gives to its label; the other classes share the rest."""
_SUM = 0.01
"""How far a row of probabilities may be from a sum of one: half precision is that coarse."""


class Source(Protocol):
    """A teacher outside torch.

    Attributes:
        spec: how it is asked.
        batch: how many samples it takes at most in one `ask`.
        probed: samples it was asked about to learn what it is, before any ledger was there to count them.
    """

    @property
    def spec(self) -> Interface: ...

    @property
    def batch(self) -> int: ...

    @property
    def probed(self) -> int: ...

    def close(self) -> None:
        """Give back what is open."""

    def ask(self, images: Floats, again: Again) -> Floats:
        """Logits `[N, K]` or `[N, K, h, w]` of at most `batch` images `[N, C, H, W]` in the range of the spec.

        Raises:
            EdgekdError: no answer, or none that can be used.
        """


class LabelsOnly:
    """A source of which only what it chooses is let through: the arg-max, or which labels are on.

    The logits are those of a smoothed one-hot: `SURE` for the choice, the rest shared by the others. A student cannot
    learn from an infinite logit, and 0.9 leaves room for labels that are wrong.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.spec, self.batch, self.probed = source, source.spec, source.batch, source.probed

    def close(self) -> None:
        """Close what answers."""
        self.source.close()

    def ask(self, images: Floats, again: Again) -> Floats:
        """Smoothed logits: `log(SURE / others)` for the class, 0 for the others; a label keeps its sign."""
        chosen = choices(self.source.ask(images, again), self.spec.task)
        certain = KINDS[self.spec.task].certain(chosen, self.spec.classes, SURE)
        return certain.reshape(len(images), *self.spec.answer_shape)


def outside(
    name: str,
    sha256: str,
    input_name: str,
    dims: Sequence[int | None],
    output_name: str,
    stated: Stated,
    known: Mapping[str, Any],
    where: object,
    dtype: Dtype = "float32",
) -> Interface:
    """The interface of a teacher whose graph cannot be seen.

    Args:
        name, sha256, input_name, output_name: as in `Interface`.
        dims: of the input `[N, ?, ?, ?]`, None where it is free.
        stated: what the user says about the images.
        known: the record of an earlier start: its classes, grid, task and ending hold. Without one they are 0, None,
            "classes" and "logits", until `tried` finds out.
        where: for messages.
        dtype: of the input.

    Raises:
        BadModel, BadSetting: as `image_shape` and `pixel_values`.
    """
    layout, layout_source = image_layout(stated.layout, dims)
    channels, height, width = image_shape(dims, layout, stated.input_shape, where)
    values = pixel_values(NOTHING_DONE, channels, stated, dtype)
    grid = known.get("grid")
    return Interface(
        name=name,
        sha256=sha256,
        input_name=input_name,
        channels=channels,
        height=height,
        width=width,
        layout=layout,
        batch=dims[0],
        dtype=dtype,
        output_name=output_name,
        ending=known.get("ending", "logits"),
        classes=known.get("classes", 0),
        grid=(grid[0], grid[1]) if grid else None,
        task=known.get("task", "classes"),
        low=values.low,
        high=values.high,
        mean=values.mean,
        std=values.std,
        sources={"range": values.range_source, "normalization": values.normalization_source, "layout": layout_source}
        | {"task": known.get("sources", {}).get("task", "default")},
    )


def tried(
    spec: Interface, ask: Callable[[Floats, Sizes | None], Floats], told: Task | None = None
) -> tuple[Interface, int]:
    """Learn from a few images how many classes there are, which task it is, and whether scores are probabilities.

    Args:
        spec: with the classes and the grid that were declared, or 0.
        ask: images `[N, C, H, W]` and the sizes of one answer, if known, to scores as `checked` returns them.
        told: the task, if the user says it.

    Returns:
        The completed interface, and how many samples were asked about.

    Raises:
        BadModel, BadSetting: as `settled` and `require_grid`.
    """
    images = probes(spec)
    scores = ask(images, spec.answer_shape if spec.classes else None)
    columns, *grid = scores.shape[1:]
    ending = ending_of(scores, told)
    task, source = settled(told, columns, ending, None, spec.name, grid=bool(grid))
    if grid:
        own = inference.fed_shape(scores.shape[1:], spec.layout)
        require_grid((len(images), *own), (spec.height, spec.width), spec.layout, spec.name)
    sources = spec.sources | {"task": source}
    there = (grid[0], grid[1]) if grid else None
    learned = dataclasses.replace(spec, classes=columns, grid=there, task=task, ending=ending, sources=sources)
    return learned, len(images)


def probes(spec: Interface) -> Floats:
    """Four images to try a source on: black, white, and noise twice; always the same."""
    random = np.random.default_rng(0)
    shape = (4, spec.channels, spec.height, spec.width)
    codes = random.integers(0, 256, shape, dtype=np.uint8)
    codes[0], codes[1] = 0, 255
    return from_codes(codes, spec.low, spec.high)


def checked(answer: NDArray[np.generic], count: int, sizes: Sizes | None, name: object, layout: str = "NCHW") -> Floats:
    """An answer as float32 `[count, K]`, or `[count, K, h, w]` of every pixel of a grid.

    Args:
        answer: what came back.
        count: how many samples were asked about.
        sizes: of one answer as it is returned, or None while they are not known.
        name: of the teacher, for messages.
        layout: of the answer, if it has a grid.

    Raises:
        BadModel: while the sizes are not known: this is no classifier.
        EdgekdError: later: it answers something else than before, or numbers that are not finite.
    """
    told = answer.shape[1:] if sizes is None else inference.fed_shape(sizes, layout)
    shaped = answer.ndim in (2, 4) and answer.shape == (count, *told)
    if answer.dtype.kind not in "fiu" or not shaped or not answer.size:
        kind = EdgekdError if sizes is not None else BadModel
        what = f"it answers {answer.dtype} of shape {list(answer.shape)} to {count} images"
        expected = f"[{count}, K]" if sizes is None else str([count, *told])
        raise kind(what, where=name, allowed=f"scores of shape {expected}")
    if broken := not_finite(answer):
        raise EdgekdError(broken, where=name)
    return inference.by_class(answer.astype(np.float32), layout)


def not_finite(answers: NDArray[np.generic]) -> str:
    """What is wrong with answers `[N, ...]` that are not all finite numbers; "" of others."""
    rows = int((~np.isfinite(answers)).reshape(len(answers), -1).any(axis=1).sum())
    return f"its answers to {rows} of {len(answers)} images are not finite" if rows else ""


def ending_of(answers: Floats, told: Task | None = None) -> Ending:
    """What a teacher whose graph cannot be seen answers, by a few answers and by its task, if that is told.

    Classes are probabilities where every one is a distribution, labels where every number lies between 0 and 1.
    """
    exclusive = KINDS[told].exclusive if told else answers.shape[1] > 1
    if exclusive:
        return "softmax" if _distributions(answers) else "logits"
    return "sigmoid" if bool(((answers >= 0) & (answers <= 1)).all()) else "logits"


def _distributions(answers: Floats) -> bool:
    return bool((answers >= 0).all() and (np.abs(answers.sum(axis=1) - 1) <= _SUM).all())


def as_logits(scores: Floats, ending: Ending, name: object) -> Floats:
    """Logits `[N, K]` or `[N, K, h, w]` of what a teacher answers, as far as its ending lets them be recovered.

    A softmax forgets one constant per sample or pixel: what comes back is the centred log p. A sigmoid forgets nothing.

    Raises:
        EdgekdError: scores that such an ending cannot give.
    """
    if ending in ("logits", "log_softmax"):
        return scores
    outside = (scores < 0) | (scores > 1 + _SUM)
    if outside.any() or (ending == "softmax" and not _distributions(scores)):
        raise EdgekdError("it answers numbers that are no probabilities, which it did before", where=name)
    clipped = np.clip(scores, SMALLEST, 1 - SMALLEST if ending == "sigmoid" else 1)
    if ending == "sigmoid":
        return np.log(clipped) - np.log1p(-clipped)
    logs = np.log(clipped)
    centred: Floats = logs - logs.mean(axis=1, keepdims=True)
    return centred
