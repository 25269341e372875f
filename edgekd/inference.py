"""Run an ONNX classifier in ONNX Runtime and compare what two of them say.

It measures answers, not time: `edgekd.bench` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from edgekd.errors import BadData, BadModel, CannotLoad, EdgekdError
from edgekd.onnx_file import first_line
from edgekd.tasks import Task, choices

Floats = NDArray[np.float32]
Fed = NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.int64] | NDArray[np.int32]
TYPES = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}
"""Of the input of a session, and what numpy calls it; the last two are token ids."""
_OFF = 0.01
"""How far a value for an input of integers may be from a whole one: float32 arithmetic on codes is no farther off."""
ROWS = ("NF", "NT")
"""Layouts of what is no image: features of a table, token ids."""
_BATCH, _BATCH_BYTES = 256, 2**26
"""Inputs in one run, at most; of 512x512 pixels 21: what a network makes of them on the way is many times more."""


def open_session(path: Path, threads: int = 1, *, graph: bytes | None = None) -> onnxruntime.InferenceSession:
    """A session on the CPU, quiet on stderr, with one or more threads.

    Args:
        path: the file.
        threads: of one operator.
        graph: what to load instead, where the file was changed in memory.

    Raises:
        CannotLoad: ONNX Runtime refuses the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong is said once, by the exception
    try:
        return onnxruntime.InferenceSession(graph or Path(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CannotLoad(f"ONNX Runtime cannot load it: {first_line(error)}", where=path) from error


def logits(path: Path, images: Floats, threads: int = 1, *, layout: str = "NCHW") -> Floats:
    """First float output of a model for images `[N, C, H, W]` or `[N, H, W, C]`, in batches; float32.

    The images are transposed to the model's layout when they fit only that way, and are the numbers that it takes, for
    an input of uint8 or of token ids whole ones. A model whose batch is fixed is fed batches of that size, the last one
    padded.

    Args:
        path: the file.
        images: what it is shown.
        threads: of one operator.
        layout: of the model's axes, where it answers per pixel.

    Returns:
        `[N, K]`, or `[N, K, h, w]` of a model that answers per pixel.

    Raises:
        CannotLoad: ONNX Runtime refuses the file.
        BadModel: it is no classifier of one float32 or uint8 image, or of token ids.
        BadData: the images do not fit the model's input.
        EdgekdError: ONNX Runtime fails while running it.
    """
    session = open_session(path, threads)
    entry, outputs = _image_input(session, path), session.get_outputs()
    # Tree ensembles answer a label first, and its scores beside it.
    first = next((one.name for one in outputs if one.type == "tensor(float)"), outputs[0].name)
    arranged, dtype = _arranged(images, entry, path), TYPES[entry.type]
    if dtype != "float32":
        _require_whole(arranged, entry, path)
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else None
    answers = in_batches(arranged, batch, lambda part: _answer(session, first, {entry.name: typed(part, dtype)}, path))
    return by_class(answers, layout)


def in_batches(images: Floats, batch: int | None, answer: Callable[[Floats], Floats]) -> Floats:
    """Answers `[N, ...]` to images `[N, ...]`, asked part by part; a fixed `batch` is filled up."""
    parts = in_parts(images, batch)
    return np.concatenate([answer(padded(part, batch or len(part)))[: len(part)] for part in parts])


def in_parts(inputs: Floats, size: int | None = None) -> Iterator[Floats]:
    """Inputs `[N, ...]` part by part, of a size or of as many as fit into a run."""
    size = size or max(1, min(_BATCH, _BATCH_BYTES // max(1, inputs[:1].nbytes)))
    return (inputs[start : start + size] for start in range(0, len(inputs), size))


def padded(part: Floats, batch: int) -> Floats:
    """Images `[N, ...]` filled up to a batch with the last one."""
    missing = batch - len(part)
    return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part


def scores_name(model: ModelProto) -> str:
    """The output that `logits` reads: the first of floats."""
    floats = (one.name for one in model.graph.output if one.type.tensor_type.elem_type == TensorProto.FLOAT)
    return next(floats, model.graph.output[0].name)


def fed(images: Floats, layout: str) -> Floats:
    """Images `[N, C, H, W]` as a file of that layout takes them: as they are, `[N, H, W, C]`, or in one row."""
    if layout in ROWS:
        return images.reshape(len(images), -1)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if layout == "NHWC" else images


def typed(images: Floats, dtype: str) -> Fed:
    """Images as an input of a type of `TYPES` takes them: for integers rounded, since 254.99998 is 255."""
    if dtype == "float32":
        return images
    whole: Fed = np.rint(images).clip(0, 255 if dtype == "uint8" else None).astype(dtype)
    return whole


def fed_type(session: onnxruntime.InferenceSession) -> str:
    """The type that the first input of a session takes, as `typed` wants it."""
    return TYPES.get(session.get_inputs()[0].type, "float32")


def fed_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Channels, height and width of one image, in the order of `fed`; of a row its features, or its ids, alone."""
    if layout in ROWS:
        return shape[:1]
    return (*shape[1:], shape[0]) if layout == "NHWC" else shape


def by_class(answers: Floats, layout: str) -> Floats:
    """What a file of that layout answers as edgekd reads it: of `[N, h, w, K]` it makes `[N, K, h, w]`."""
    return np.ascontiguousarray(answers.transpose(0, 3, 1, 2)) if answers.ndim == 4 and layout == "NHWC" else answers


def by_class_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Sizes of one answer, in the order of `by_class`."""
    return (shape[-1], *shape[:-1]) if layout == "NHWC" else tuple(shape)


def _image_input(session: onnxruntime.InferenceSession, path: Path) -> onnxruntime.NodeArg:
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in TYPES:
        found = ", ".join(f"{entry.name}: {entry.type}" for entry in inputs)
        raise BadModel(f"its inputs are {found}", where=path, allowed=f"one input of type {' or '.join(TYPES)}")
    return inputs[0]


def _require_whole(images: Floats, entry: onnxruntime.NodeArg, path: Path) -> None:
    """Refuse what rounding would change: values of another range, say, of which nothing would be left."""
    dtype = TYPES[entry.type]
    most, hint = (255, "round them, and leave --input-range at 0,255") if dtype == "uint8" else (None, "")
    if np.abs(images - np.rint(images).clip(0, most)).max(initial=0) > _OFF:
        kind = "from 0 to 255" if most else "from 0 on"
        what = f"the images are not whole numbers {kind}, as its {dtype} input {entry.name!r} takes them"
        raise BadData(what, where=path, hint=hint)


def _arranged(images: Floats, entry: onnxruntime.NodeArg, path: Path) -> Floats:
    """The images as they are, or channels moved last, or first, or in one row: the first that the input accepts."""
    orders = ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)) if images.ndim == 4 else (tuple(range(images.ndim)),)
    for order in orders:
        given = [images.shape[axis] for axis in order[1:]]
        if len(given) == len(entry.shape) - 1 and all(
            not isinstance(e, int) or e == g for e, g in zip(entry.shape[1:], given, strict=True)
        ):
            return np.ascontiguousarray(images.transpose(order))
    row = images.reshape(len(images), -1)
    if len(entry.shape) == 2 and entry.shape[1] in (None, row.shape[1]):
        return row
    given = list(images.shape[1:])
    raise BadData(f"images of shape {given} do not fit input {entry.name!r}", where=path, allowed=str(entry.shape[1:]))


def _answer(session: onnxruntime.InferenceSession, output: str, feed: dict[str, Fed], path: Path) -> Floats:
    try:
        answer = np.asarray(session.run([output], feed)[0])
    except Exception as error:
        raise EdgekdError(f"ONNX Runtime fails while running it: {first_line(error)}", where=path) from error
    if answer.ndim not in (2, 4) or answer.dtype.kind != "f":
        what = f"its first output has shape {list(answer.shape)} and type {answer.dtype}"
        raise BadModel(what, where=path, allowed="floating scores of shape [N, classes], or [N, classes, h, w]")
    return answer.astype(np.float32, copy=False)


def agreement(first: Floats, second: Floats, task: Task = "classes") -> float:
    """Share of questions that logits answer alike: images or pixels of the same arg-max, or labels of the same sign.

    Raises:
        BadData: not of the same shape.
    """
    if first.shape != second.shape:
        raise BadData(f"answers of shape {list(first.shape)} and {list(second.shape)} cannot agree")
    return float((choices(first, task) == choices(second, task)).mean())
