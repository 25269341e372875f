"""Static quantization with ONNX Runtime: QDQ, the flavour told by the target, the ranges by the recipe.

These are the two halves of `onnxruntime.quantization.quantize_static` (calibrate, insert QuantizeLinear and
DequantizeLinear), called one by one because only so can the calibrator be fed in batches and given its bins.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import QDQQuantizer, QuantType, quant_pre_process
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgekd import __version__, onnx_file
from edgekd.config import CalibrationRecipe, Quantization
from edgekd.errors import BadData, BadModel, EdgekdError
from edgekd.inference import open_session
from edgekd.quantize.ranges import tensor_ranges
from edgekd.quiet import quiet
from edgekd.run_folder import atomic, scratch

_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
_OPERATORS = sorted({*QDQRegistry, *QLinearOpsRegistry})
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_QUANTIZED = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "ConvInteger",
        "MatMulInteger",
        "QGemm",
        "QAttention",
    }
)


def quantize(
    float_model: Path,
    out: Path,
    samples: NDArray[np.float32],
    *,
    quantization: Quantization,
    recipe: CalibrationRecipe,
    metadata: dict[str, str],
) -> dict[str, Any]:
    """Write the INT8 version of a float model; equal inputs give equal bytes.

    Args:
        float_model: a classifier with one float32 input; opset and IR version are kept.
        out: the file to write, whole or not at all.
        samples: float32 `[N, ...]`, as the model's input wants them, to calibrate on.
        quantization: the target's flavour.
        recipe: how ranges are found.
        metadata: provenance to write into the file, beside what this function knows itself.

    Returns:
        the file (`path`, `sha256`, `bytes`), `flavour`, `recipe`, `samples` (count, sha256) and `float_nodes`: how many
        nodes of which operator still compute in float.

    Raises:
        BadModel: not a float model with one input and something to quantize.
        BadData: samples that do not fit it, hold NaN or infinity, or are too few for the recipe.
        EdgekdError: ONNX Runtime failed, or the disk is full.
    """
    model = onnx_file.load(float_model)
    _check_model(model, float_model)
    samples = np.ascontiguousarray(samples)
    _check_samples(samples, onnx_file.real_inputs(model)[0], recipe)
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    with scratch() as folder, quiet():
        try:
            quantized = _quantized(model, samples, quantization, recipe, folder)
        except Exception as error:
            raise EdgekdError(
                f"ONNX Runtime cannot quantize it: {onnx_file.first_line(error)}", where=float_model
            ) from error
        own = {
            "edgekd.calibration": _compact(recipe.model_dump(exclude={"title"}, by_alias=True)),
            "edgekd.calibration.samples": f"{len(samples)} sha256:{digest}",
            "edgekd.float.sha256": onnx_file.sha256(float_model),
            "edgekd.quantization": _compact({"format": "QDQ", **quantization.model_dump()}),
        }
        onnx_file.set_metadata(quantized, onnx_file.metadata(model) | metadata | own)
        content = quantized.SerializeToString(deterministic=True)
        proof = folder / "quantized.onnx"
        proof.write_bytes(content)
        open_session(proof)
    with atomic(out) as file:
        file.write(content)
    return {
        "path": out.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "flavour": {"format": "QDQ", **quantization.model_dump()},
        "recipe": recipe.model_dump(by_alias=True),
        "samples": {"count": len(samples), "sha256": digest},
        "float_nodes": float_nodes(quantized),
    }


def _compact(record: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in record.items() if value is not None}, separators=(",", ":"))


def _check_model(model: ModelProto, path: Path) -> None:
    found = sorted({n.op_type for n in model.graph.node if n.op_type in _QUANTIZED or n.op_type.startswith("QLinear")})
    if found:
        raise BadModel(f"already quantized ({', '.join(found)})", where=path, hint="quantize the float model instead")
    fixed = onnx_file.constants(model)
    if not any(node.op_type in _WEIGHTED and node.input[1] in fixed for node in model.graph.node):
        what = "nothing to quantize"
        raise BadModel(what, where=path, allowed=f"a model with weights in {', '.join(sorted(_WEIGHTED))}")
    entries = onnx_file.real_inputs(model)
    if len(entries) != 1 or entries[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise BadModel(f"its inputs are {names}", where=path, allowed="one float32 input")


def _check_samples(samples: NDArray[np.float32], entry: onnx.ValueInfoProto, recipe: CalibrationRecipe) -> None:
    where = "calibration samples"
    if samples.dtype != np.float32:
        raise BadData(f"dtype {samples.dtype}", where=where, allowed="float32")
    expected = onnx_file.dimensions(entry)
    wanted, given = (expected or [])[1:], samples.shape[1:]
    fits = len(wanted) == len(given) and all(w in (None, g) for w, g in zip(wanted, given, strict=True))
    if expected is not None and not fits:
        raise BadData(f"shape {list(given)} does not fit input {entry.name}", where=where, allowed=str(wanted))
    least = max(recipe.minimum, (expected or [None])[0] or 1)
    if len(samples) < least:
        raise BadData(f"{len(samples)} are too few for recipe {recipe.name}", where=where, allowed=f"at least {least}")
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples.reshape(len(samples), -1))).any(axis=1).sum())
        raise BadData(
            f"{bad} of {len(samples)} hold NaN or infinity", where=where, hint="distil again with another --seed"
        )


def _quantized(
    model: ModelProto, samples: NDArray[np.float32], flavour: Quantization, recipe: CalibrationRecipe, folder: Path
) -> ModelProto:
    """The quantized model without notes. Raises whatever ONNX Runtime raises."""
    whole, prepared = folder / "whole.onnx", folder / "prepared.onnx"
    onnx.save(model, whole)  # as a file: given a model, ONNX Runtime 1.31 loses its weights
    # Symbolic shape inference would need sympy; a classifier's shapes are known without it.
    quant_pre_process(whole, prepared, skip_symbolic_shape=True)
    ranges = tensor_ranges(prepared, samples, recipe, operators=_OPERATORS, folder=folder)
    quantizer = QDQQuantizer(
        onnx.load(prepared),
        flavour.per_channel,
        flavour.reduce_range,
        _TYPES[flavour.weight],
        _TYPES[flavour.activation],
        ranges,
        [],
        [],
        _OPERATORS,
        {"ActivationSymmetric": flavour.activation_symmetric, "WeightSymmetric": flavour.weight_symmetric},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(folder / "sorted.onnx"))  # it sorts the nodes only when saving
    quantized = onnx.load(folder / "sorted.onnx")
    onnx_file.tidy(quantized)
    quantized.ir_version = model.ir_version
    quantized.producer_name, quantized.producer_version = "edgekd", __version__
    onnx.checker.check_model(quantized, full_check=True)
    return quantized


def float_nodes(model: ModelProto) -> dict[str, int]:
    """Nodes that compute in float, counted by operator.

    Those for which ONNX Runtime knows no INT8 form, and those none of whose inputs comes from a DequantizeLinear.
    """
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    computing = (node for node in model.graph.node if node.op_type not in _QUANTIZED)
    left = (n.op_type for n in computing if n.op_type not in _OPERATORS or not dequantized & set(n.input))
    return dict(sorted(Counter(left).items()))
