"""Run a float model over samples and keep a histogram of every activation, one batch after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from edgekd import onnx_file
from edgekd.errors import EdgekdError
from edgekd.inference import fed_type, typed
from edgekd.quantize.histogram import Histogram
from edgekd.quantize.samples import Source, batches

Floats = NDArray[np.float32]
_BATCH, _BATCH_BYTES = 16, 2**23
"""Samples in one run, at most; fewer of a model whose activations for so many would fill 8 MiB."""


def activations(model: ModelProto, operators: Collection[str]) -> list[str]:
    """Names of the float tensors that nodes of these types read or write, constants left out, in the graph's order.

    The choice of ONNX Runtime's calibrators.

    Args:
        model: whose shapes have been inferred.
        operators: types of nodes.
    """
    graph = model.graph
    values = [*graph.value_info, *graph.output, *graph.input]
    floats = {v.name for v in values if v.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16)}
    floats -= set(onnx_file.constants(model))
    named = (name for node in graph.node if node.op_type in operators for name in (*node.input, *node.output))
    return [name for name in dict.fromkeys(named) if name in floats]


def observe(model: ModelProto, source: Source, operators: Collection[str], bins: int) -> dict[str, Histogram]:
    """A histogram of every activation that `activations` names.

    Args:
        model: a float model with one input whose shapes have been inferred.
        source: samples for that input; of a fixed batch size B the last N modulo B are left out.
        operators: types of the nodes whose inputs and outputs are wanted.
        bins: of each histogram, at most.

    Raises:
        EdgekdError: an activation is NaN or infinite.
    """
    names = activations(model, operators)
    found = {name: Histogram(bins) for name in names}
    for values in runs(model, source, names):
        for name, histogram in found.items():
            try:
                histogram.add(np.asarray(values[name], np.float32))
            except ValueError as error:
                what = f"activation {name} is {error} on a calibration sample"
                raise EdgekdError(what, hint="the float model itself breaks on it") from error
        values.clear()  # or they would be held while the next ones are computed
    return found


def runs(model: ModelProto, source: Source, names: Iterable[str]) -> Iterator[dict[str, Floats]]:
    """Values of tensors of a model, batch by batch.

    Args:
        model: with one input.
        source: samples for it.
        names: of tensors: inner ones, outputs or the input itself.
    """
    entry = onnx_file.real_inputs(model)[0]
    inner = [name for name in names if name != entry.name]
    session = _session(model, inner)
    fixed = (onnx_file.dimensions(entry) or [None])[0]
    size, dtype = fixed or 1, fed_type(session)
    for part in _growing(source, size, fixed is None, session, inner, entry.name):
        feed = typed(part, dtype)
        yield dict(zip(inner, session.run(inner, {entry.name: feed}), strict=True)) | {entry.name: feed}


def _growing(
    source: Source, size: int, free: bool, session: onnxruntime.InferenceSession, names: list[str], entry: str
) -> Iterator[Floats]:
    """Batches of the fixed size; of a free one as many samples as keep all activations within their share of memory."""
    if free:
        first = typed(next(batches(source, 1)), fed_type(session))
        held = sum(value.nbytes for value in session.run(names, {entry: first}))
        size = max(1, min(_BATCH, _BATCH_BYTES // max(1, held)))
    return batches(source, size, whole=not free)


def _session(model: ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    """A session that also answers inner tensors."""
    whole = ModelProto()
    whole.CopyFrom(model)
    already = {value.name for value in whole.graph.output}
    known = {value.name: value for value in whole.graph.value_info}
    for name in names:
        if name not in already:
            whole.graph.output.append(known.get(name, onnx.ValueInfoProto(name=name)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False  # what one batch needed is given back before the next
    return onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
