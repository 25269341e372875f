"""Run an ONNX classifier in ONNX Runtime and compare what two of them say.

It measures answers, not time: `edgekd.bench` does that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgekd.errors import BadData, CannotLoad
from edgekd.onnx_file import first_line

Floats = NDArray[np.float32]
_BATCH = 256


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU, quiet on stderr, with one or more threads.

    Raises:
        CannotLoad: ONNX Runtime refuses the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong is said once, by the exception
    try:
        return onnxruntime.InferenceSession(Path(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CannotLoad(f"ONNX Runtime cannot load it: {first_line(error)}", where=path) from error


def logits(path: Path, images: Floats, threads: int = 1) -> Floats:
    """First output of a model for images `[N, ...]`, in batches; `[N, K]` float32.

    A model whose batch is fixed is fed batches of that size, the last one padded.

    Raises:
        CannotLoad: ONNX Runtime refuses the file.
        BadData: the images do not fit the model's input.
    """
    session = open_session(path, threads)
    entry, first = session.get_inputs()[0], session.get_outputs()[0].name
    expected, given = entry.shape[1:], images.shape[1:]
    if len(expected) != len(given) or any(isinstance(e, int) and e != g for e, g in zip(expected, given, strict=True)):
        raise BadData(f"images of shape {list(given)} do not fit input {entry.name!r}", where=path, allowed=str(expected))
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else _BATCH
    answers = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        fed = part if len(part) == batch or not isinstance(entry.shape[0], int) else _padded(part, batch)
        answers.append(np.asarray(session.run([first], {entry.name: fed})[0], np.float32)[: len(part)])
    return np.concatenate(answers)


def _padded(part: Floats, batch: int) -> Floats:
    return np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])


def agreement(first: Floats, second: Floats) -> float:
    """Share of rows `[N, K]` whose arg-max is the same."""
    return float((first.argmax(1) == second.argmax(1)).mean())
