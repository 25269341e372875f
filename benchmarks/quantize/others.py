"""Other people's quantizers with their defaults: `python others.py static|nncf MODEL FEED.npy OUT`. Needs no edgekd."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx


def static(model: str, feed: np.ndarray, out: str) -> None:
    """ONNX Runtime: pre-processing as its documentation says, then `quantize_static` as it comes."""
    from onnxruntime import quantization as q  # noqa: PLC0415
    from reader import Reader, in_batches  # noqa: PLC0415

    name = onnx.load(model).graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        q.quant_pre_process(model, ready, skip_symbolic_shape=True)
        q.quantize_static(ready, out, Reader(name, in_batches(feed)))


def nncf(model: str, feed: np.ndarray, out: str) -> None:
    """NNCF's post-training quantization with its defaults, which correct biases."""
    import nncf as library  # noqa: PLC0415

    loaded = onnx.load(model)
    name = loaded.graph.input[0].name
    samples = library.Dataset([feed[number : number + 1] for number in range(len(feed))], lambda one: {name: one})
    onnx.save(library.quantize(loaded, samples, subset_size=len(feed)), out)


if __name__ == "__main__":
    {"static": static, "nncf": nncf}[sys.argv[1]](sys.argv[2], np.load(sys.argv[3]), sys.argv[4])
