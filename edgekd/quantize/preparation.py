"""An ONNX file as the quantizers want it: refused if not for them, simplified, nodes named, shapes known."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import quant_pre_process
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgekd import onnx_file
from edgekd.devices import ModelLimits
from edgekd.errors import BadModel, EdgekdError
from edgekd.quiet import quiet
from edgekd.run_folder import scratch

OPERATORS = frozenset({*QDQRegistry, *QLinearOpsRegistry})
"""Types of nodes that ONNX Runtime has an INT8 form of."""
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Types of nodes that multiply by weights; a model without any has nothing to quantize."""
QUANTIZED = frozenset(
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
"""Types of nodes that only a quantized model has, besides those that begin with QLinear."""
_ENTRIES = (TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64, TensorProto.INT32)
_PER_CHANNEL_OPSET = 13  # QuantizeLinear has no axis before


def checked(path: Path, limits: ModelLimits) -> ModelProto:
    """A float model that may be quantized, or brought to half precision, for a target.

    Raises:
        BadModel: not a valid ONNX file, quantized already, with nothing to quantize, not of one image or sequence of
            ids, too large for one message, or of an opset above the target's ceiling.
    """
    model = onnx_file.load(path)
    require_float(model, path)
    if model.ByteSize() > onnx_file.MAXIMUM_BYTES:
        raise BadModel("with its external data larger than 2 GiB, which edgekd cannot quantize", where=path)
    entries = onnx_file.real_inputs(model)
    if len(entries) != 1 or entries[0].type.tensor_type.elem_type not in _ENTRIES:
        names = ", ".join(entry.name for entry in entries) or "none"
        allowed = "one input, a float32 or uint8 image or int64 or int32 token ids"
        raise BadModel(f"its inputs are {names}", where=path, allowed=allowed)
    if onnx_file.opset(model) > limits.highest_opset:
        what = f"opset {onnx_file.opset(model)} is above the target's"
        hint = "export it again with a lower opset, or choose another --target"
        raise BadModel(what, where=path, allowed=f"up to {limits.highest_opset}", hint=hint)
    return model


def require_float(model: ModelProto, path: Path) -> None:
    """Refuse a model that is quantized already, or has nothing to quantize.

    Raises:
        BadModel: it is so.
    """
    found = sorted({n.op_type for n in model.graph.node if n.op_type in QUANTIZED or n.op_type.startswith("QLinear")})
    if found:
        raise BadModel(f"already quantized ({', '.join(found)})", where=path, hint="quantize the float model instead")
    fixed = onnx_file.constants(model)
    if not any(node.op_type in WEIGHTED and node.input[1] in fixed for node in model.graph.node):
        what = "nothing to quantize"
        raise BadModel(what, where=path, allowed=f"a model with weights in {', '.join(sorted(WEIGHTED))}")


def prepared(model: ModelProto, path: Path) -> ModelProto:
    """The model after ONNX Runtime's pre-processing, of an opset that knows weights with a scale per channel.

    Args:
        model: as `checked` gives it; unchanged.
        path: for messages.

    Raises:
        EdgekdError: ONNX Runtime fails, or onnx cannot convert the opset.
    """
    with scratch() as folder, quiet():
        whole, ready = folder / "whole.onnx", folder / "ready.onnx"
        try:
            if onnx_file.opset(model) < _PER_CHANNEL_OPSET:
                model = onnx.version_converter.convert_version(model, _PER_CHANNEL_OPSET)
            onnx.save(model, whole)  # as a file: given a model, ONNX Runtime 1.31 loses its weights
            # Symbolic shape inference would need sympy; a classifier's shapes are known without it.
            quant_pre_process(whole, ready, skip_symbolic_shape=True)
            return _named(onnx.load(ready))
        except Exception as error:
            what = f"ONNX Runtime cannot quantize it: {onnx_file.first_line(error)}"
            raise EdgekdError(what, where=path) from error


def _named(model: ModelProto) -> ModelProto:
    """Every node with a name of its own, in place: by it nodes are left in float and found again."""
    taken = {node.name for node in model.graph.node}
    seen = set[str]()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{number}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)
    return model


def fixed_shapes(model: ModelProto, path: Path) -> ModelProto:
    """The model with a batch of one instead of a free one, for targets that take static shapes alone.

    Raises:
        BadModel: another dimension of its input is free.
    """
    whole = ModelProto()
    whole.CopyFrom(model)
    free = set[str]()
    for entry in onnx_file.real_inputs(whole):
        known = onnx_file.dimensions(entry)
        if known is None or None in known[1:]:
            what = f"input {entry.name!r} leaves dimensions free: {known or 'all'}"
            raise BadModel(what, where=path, hint="the target takes static shapes alone: export it with a fixed size")
        if known[:1] == [None]:
            batch = entry.type.tensor_type.shape.dim[0]
            free.add(batch.dim_param)
            batch.dim_value = 1
    del whole.graph.value_info[:]
    _fix_outputs(whole, free - {""})
    for value in whole.graph.output:
        if None in (onnx_file.dimensions(value) or [None]):
            what = f"the shape of output {value.name!r} cannot be told for a batch of one"
            raise BadModel(what, where=path, hint="the target takes static shapes alone: export it with a fixed size")
    return whole


def _fix_outputs(model: ModelProto, free: set[str]) -> None:
    """Fix the outputs' dimensions of these names to 1, and infer what is still free then, in place.

    By name first: onnx knows no shapes behind QuantizeLinear of 16 bits in ONNX Runtime's own domain.
    """
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in free:
                dim.dim_value = 1
    unknown = [value for value in model.graph.output if None in (onnx_file.dimensions(value) or [None])]
    for value in unknown:
        value.type.tensor_type.ClearField("shape")
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.output} if unknown else {}
    for value in unknown:
        value.CopyFrom(inferred[value.name])
