"""Bias correction: take out of every layer the shift of its mean output that quantization brought.

Rounded weights shift what a channel answers on average; the bias takes it back (Nagel et al., ICCV 2019,
arXiv:1906.04721, section 4.2, there with statistics of batch normalization; here, as in its appendix, with samples).
Layers are corrected from the first to the last, each with those before it corrected already.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from edgekd.quantize.observation import runs
from edgekd.quantize.samples import Source

Array = NDArray[np.float64]


def corrected(quantized: ModelProto, prepared: ModelProto, source: Source) -> ModelProto:
    """The quantized model with corrected biases; layers without one are left as they are.

    Args:
        quantized: as `edgekd.quantize.insertion` makes it from `prepared`; unchanged.
        prepared: the float model; its nodes have the same names.
        source: samples; some hundred are enough for means.
    """
    whole = ModelProto()
    whole.CopyFrom(quantized)
    floats = {node.name: node for node in prepared.graph.node}
    layers = [n for n in whole.graph.node if n.op_type in ("Conv", "Gemm") and len(n.input) > 2 and n.name in floats]
    if not layers:
        return whole
    wanted = _means(prepared, source, [floats[node.name].output[0] for node in layers])
    for node in layers:
        found = _means(whole, source, [node.output[0]])[node.output[0]]
        shift = found - wanted[floats[node.name].output[0]]
        _lower_bias(whole, node, shift)
    return whole


def _means(model: ModelProto, source: Source, names: list[str]) -> dict[str, Array]:
    """The mean of every channel, `[C]`, of some tensors `[N, C, ...]`."""
    sums: dict[str, Array] = {}
    count = 0
    for values in runs(model, source, names):
        for name in names:
            value = values[name].astype(np.float64)
            mean = value.mean(axis=(0, *range(2, value.ndim))) * len(value)
            sums[name] = sums.get(name, 0.0) + mean
        count += len(values[names[0]])
    return {name: total / count for name, total in sums.items()}


def _lower_bias(model: ModelProto, node: NodeProto, shift: Array) -> None:
    """Subtract a shift from a node's bias, in place: of float32, or of int32 behind a DequantizeLinear."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    if node.input[2] in tensors:
        _replace(tensors[node.input[2]], numpy_helper.to_array(tensors[node.input[2]]) - shift)
        return
    source = next((n for n in model.graph.node if n.output and n.output[0] == node.input[2]), None)
    if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in tensors:
        return
    bias = tensors[source.input[0]]
    scale = numpy_helper.to_array(tensors[source.input[1]]).astype(np.float64)
    if bias.data_type == TensorProto.INT32 and (scale > 0).all():
        ends = np.iinfo(np.int32)
        steps = np.rint(shift / scale)
        _replace(bias, (numpy_helper.to_array(bias) - steps).clip(ends.min, ends.max))


def _replace(tensor: TensorProto, values: Array) -> None:
    kind = numpy_helper.to_array(tensor).dtype
    tensor.CopyFrom(numpy_helper.from_array(values.astype(kind), tensor.name))
