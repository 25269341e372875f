"""QuantizeLinear and DequantizeLinear into a prepared float model, as the target wants them, by ranges found before.

The second half of `onnxruntime.quantization.quantize_static`, called alone because only so can its ranges come from
elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

from edgekd import __version__, onnx_file
from edgekd.devices import Quantization
from edgekd.quantize.preparation import OPERATORS, QUANTIZED, WEIGHTED
from edgekd.quantize.ranges import Range
from edgekd.quiet import quiet
from edgekd.run_folder import scratch

_TYPES = {
    "uint8": QuantType.QUInt8,
    "int8": QuantType.QInt8,
    "uint16": QuantType.QUInt16,
    "int16": QuantType.QInt16,
}


def levels(flavour: Quantization) -> int:
    """How many values an activation can take."""
    return 2**16 if flavour.activation.endswith("16") else 2**8


def quantizable(flavour: Quantization) -> list[str]:
    """Types of nodes that are quantized for a target, sorted."""
    return sorted(OPERATORS - set(flavour.float_operators))


def narrow(model: ModelProto, flavour: Quantization) -> set[str]:
    """Names of the convolutions that a target leaves in float because they read too few channels to gain by INT8.

    None where nothing with weights would be quantized then.
    """
    fixed = onnx_file.constants(model)
    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in fixed]
    found = {node.name for node in weighted if _reads_few(node, fixed, flavour)}
    return found if len(found) < len(weighted) else set()


def _reads_few(node: onnx.NodeProto, fixed: Mapping[str, onnx.TensorProto], flavour: Quantization) -> bool:
    whole = node.op_type == "Conv" and onnx_file.attribute(node, "group", 1) == 1
    return whole and node.input[1] in fixed and fixed[node.input[1]].dims[1] < flavour.float_channels


def inserted(
    prepared: ModelProto, ranges: Mapping[str, Range], flavour: Quantization, *, in_float: Collection[str] = ()
) -> ModelProto:
    """The quantized model, without notes; equal arguments give equal bytes.

    Args:
        prepared: see `edgekd.quantize.preparation`; unchanged.
        ranges: of its activations.
        flavour: the target's.
        in_float: names of nodes that are left in float.

    Raises:
        Whatever ONNX Runtime raises; callers translate it.
    """
    model = ModelProto()
    model.CopyFrom(prepared)
    left = {*in_float, *narrow(prepared, flavour)}
    ends = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    with scratch() as folder, quiet():
        quantizer = QDQQuantizer(
            model,
            flavour.per_channel,
            flavour.reduce_range,
            _TYPES[flavour.weight],
            _TYPES[flavour.activation],
            TensorsData(CalibrationMethod.MinMax, ends),
            [],
            sorted(left),
            quantizable(flavour),
            _options(flavour, model),
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(folder / "sorted.onnx"))  # it sorts the nodes only when saving
        quantized = onnx.load(folder / "sorted.onnx")
    onnx_file.tidy(quantized)
    quantized.ir_version = prepared.ir_version
    quantized.producer_name, quantized.producer_version = "edgekd", __version__
    return quantized


def _options(flavour: Quantization, model: ModelProto) -> dict[str, Any]:
    options: dict[str, Any] = {
        "ActivationSymmetric": flavour.activation_symmetric,
        "WeightSymmetric": flavour.weight_symmetric,
        "QuantizeBias": flavour.quantize_bias,
        "DedicatedQDQPair": flavour.dedicated_pairs,
    }
    if flavour.minimum_range is not None:
        options["MinimumRealRange"] = flavour.minimum_range
    if flavour.per_channel_operators:
        one_scale = [{"symmetric": flavour.weight_symmetric}]
        weighted = [n for n in model.graph.node if n.op_type in WEIGHTED - set(flavour.per_channel_operators)]
        fixed = {tensor.name for tensor in model.graph.initializer}
        options["TensorQuantOverrides"] = {n.input[1]: one_scale for n in weighted if n.input[1] in fixed}
    return options


def float_nodes(model: ModelProto) -> dict[str, int]:
    """Nodes that compute in float, counted by operator.

    Those for which ONNX Runtime knows no INT8 form, those none of whose inputs comes from a DequantizeLinear, and those
    that multiply by weights unless both factors come from one.
    """
    return dict(sorted(Counter(node.op_type for node in _floating(model)).items()))


def _floating(model: ModelProto) -> list[onnx.NodeProto]:
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}

    def in_int8(node: onnx.NodeProto) -> bool:
        if node.op_type not in OPERATORS:
            return False
        if node.op_type in WEIGHTED:
            return set(node.input[:2]) <= dequantized
        return bool(dequantized & set(node.input))

    return [node for node in model.graph.node if node.op_type not in QUANTIZED and not in_int8(node)]


def reasons(model: ModelProto, flavour: Quantization, in_float: Collection[str]) -> list[dict[str, str]]:
    """Why each node that computes in float does: `node`, `operator`, `reason`."""

    fixed = onnx_file.constants(model)

    def why(node: onnx.NodeProto) -> str:
        if node.name in in_float:
            return "left in float, INT8 costs too much there"
        if _reads_few(node, fixed, flavour):
            return f"quicker so: it reads fewer than {flavour.float_channels} channels"
        if node.op_type in flavour.float_operators:
            return "the target leaves it in float"
        if node.op_type not in OPERATORS:
            return "ONNX Runtime has no INT8 form of it"
        return "none of its inputs is quantized"

    return [{"node": n.name, "operator": n.op_type, "reason": why(n)} for n in _floating(model)]
