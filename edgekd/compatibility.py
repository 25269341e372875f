"""Whether a device's runtime will take a model: yes, maybe or no, and why. Nothing is run on the device.

What a target's file says is checked against the graph: opset, IR version, operators, shapes, ranks, types and the
flavour of quantization. For NNAPI and CoreML ONNX Runtime's own usability checker tells into how many parts the graph
will fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import ModelProto, TensorProto
from pydantic import BaseModel

from edgekd import onnx_file
from edgekd.devices import Target
from edgekd.errors import CannotLoad, EdgekdError
from edgekd.inference import open_session
from edgekd.quantize.preparation import QUANTIZED, fixed_shapes
from edgekd.quiet import quiet

SCHEMA = "edgekd.check/1"
Answer = Literal["yes", "maybe", "no"]
_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
_WIDE: dict[int, str] = {
    TensorProto.DOUBLE: "float64",
    TensorProto.STRING: "string",
    TensorProto.COMPLEX64: "complex64",
}
_COREML = {
    "coreml-mlprogram": "coreml_supported_mlprogram_ops.md",
    "coreml-neuralnetwork": "coreml_supported_neuralnetwork_ops.md",
}


class Finding(BaseModel):
    """One thing that speaks against a model on a target, or for it.

    Attributes:
        answer: what the verdict would be by this alone.
        about: opset, operators, shapes, rank, types, quantization, partitions or loading.
        reason: a sentence without a full stop.
    """

    answer: Answer
    about: str
    reason: str


class Verdict(BaseModel):
    """What is to be expected of a model on a target: the worst of all findings."""

    model: str
    sha256: str
    target: str
    verdict: Answer
    findings: list[Finding]
    partitions: dict[str, Any] | None


def check(path: Path, target: Target) -> Verdict:
    """Whether a target's runtime will take a model.

    Args:
        path: any ONNX file, quantized or not.
        target: the device.

    Raises:
        BadModel: not a valid ONNX file.
    """
    model = onnx_file.load(path)
    findings = [finding for look in _LOOKS for finding in look(model, target)]
    findings += _loading(path, target)
    partitions = _partitions(model, path, target)
    if partitions is not None:
        findings.append(_of_partitions(partitions))
    worst: Answer = max((one.answer for one in findings), key=("yes", "maybe", "no").index, default="yes")
    return Verdict(
        model=path.name,
        sha256=onnx_file.model_sha256(path),
        target=target.name,
        verdict=worst,
        findings=findings,
        partitions=partitions,
    )


def rows(verdict: Verdict) -> list[list[str]]:
    """The findings as a table's rows, the worst first, and below them the verdict."""
    ordered = sorted(verdict.findings, key=lambda one: ("no", "maybe", "yes").index(one.answer))
    told = [[one.answer, one.about, one.reason] for one in ordered]
    return [*told, [verdict.verdict, "verdict", f"{verdict.model} on {verdict.target}"]]


# ------------------------------------------------------------------------------------------------------ what is looked
# at


def _versions(model: ModelProto, target: Target) -> Iterator[Finding]:
    found, ceiling = onnx_file.opset(model), target.model.highest_opset
    if found > ceiling:
        yield Finding(answer="no", about="opset", reason=f"it has opset {found}, the target reads up to {ceiling}")
    if model.ir_version > target.model.ir_version:
        what = f"it has IR version {model.ir_version}, the target reads up to {target.model.ir_version}"
        yield Finding(answer="no", about="IR version", reason=what)


def _operators(model: ModelProto, target: Target) -> Iterator[Finding]:
    types = {node.op_type for node in model.graph.node}
    if denied := sorted(types & set(target.model.denied_operators)):
        yield Finding(answer="no", about="operators", reason=f"the target does not run {', '.join(denied)}")
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in _DOMAINS})
    own = {function.name for function in model.functions}
    if foreign and not all(name.rpartition(".")[2] in own for name in foreign):
        yield Finding(answer="no", about="operators", reason=f"no runtime knows {', '.join(foreign)}")


def _shapes(model: ModelProto, target: Target) -> Iterator[Finding]:
    if not target.model.static_shapes:
        return
    for entry in onnx_file.real_inputs(model):
        known = onnx_file.dimensions(entry)
        if known is None or None in known[1:]:
            what = f"input {entry.name!r} leaves more than the batch free, the target takes static shapes alone"
            yield Finding(answer="no", about="shapes", reason=what)
        elif known[:1] == [None]:
            what = f"input {entry.name!r} has a free batch; edgekd export --target {target.name} fixes it to 1"
            yield Finding(answer="maybe", about="shapes", reason=what)


def _ranks(model: ModelProto, target: Target) -> Iterator[Finding]:
    highest = target.model.max_rank
    if highest is None:
        return
    inferred = _inferred(model)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    deep = sorted({value.name for value in values if len(onnx_file.dimensions(value) or ()) > highest})
    if deep:
        what = f"{len(deep)} tensors have more than {highest} dimensions: {', '.join(deep[:3])}"
        yield Finding(answer="maybe", about="rank", reason=what)


def _types(model: ModelProto, _: Target) -> Iterator[Finding]:
    held = [tensor.data_type for tensor in model.graph.initializer]
    held += [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    if wide := sorted({_WIDE[kind] for kind in held if kind in _WIDE}):
        what = f"it holds {', '.join(wide)}, which few runtimes compute fast"
        yield Finding(answer="maybe", about="types", reason=what)


def _quantization(model: ModelProto, target: Target) -> Iterator[Finding]:
    flavour = target.quantization
    types = {node.op_type for node in model.graph.node}
    whole = sorted(t for t in types if t.startswith("QLinear") or (t in QUANTIZED and not t.endswith("Linear")))
    quantized = bool(whole) or "QuantizeLinear" in types
    if not quantized and flavour.precision == "int8":
        yield Finding(answer="yes", about="quantization", reason="it is float; the target runs INT8 faster as a rule")
    if quantized and flavour.int8_refused:
        yield Finding(answer="no", about="quantization", reason=flavour.int8_refused)
    if whole:
        what = f"{', '.join(whole)} instead of QuantizeLinear and DequantizeLinear, which most targets want"
        yield Finding(answer="maybe", about="quantization", reason=what)
    others = sorted(_activations(model) - {flavour.activation})
    if quantized and not flavour.int8_refused and others:
        what = f"its activations are {', '.join(others)}, the target wants {flavour.activation}"
        yield Finding(answer="maybe", about="quantization", reason=what)
    if flavour.activation_symmetric and _has_zero_points(model):
        yield Finding(answer="no", about="quantization", reason="zero points other than 0, the target takes 0 alone")


def _activations(model: ModelProto) -> set[str]:
    """Types that QuantizeLinear nodes write, by their zero points."""
    zeros = onnx_file.constants(model)
    nodes = (node for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2)
    return {onnx_file.type_name(zeros[node.input[2]].data_type) for node in nodes if node.input[2] in zeros}


def _has_zero_points(model: ModelProto) -> bool:
    zeros = onnx_file.constants(model)
    nodes = (node for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2)
    return any(onnx.numpy_helper.to_array(zeros[n.input[2]]).any() for n in nodes if n.input[2] in zeros)


_LOOKS: tuple[Callable[[ModelProto, Target], Iterator[Finding]], ...] = (
    _versions,
    _operators,
    _shapes,
    _ranks,
    _types,
    _quantization,
)


def _loading(path: Path, target: Target) -> list[Finding]:
    """Whether ONNX Runtime's CPU kernels, which every target falls back to, take it."""
    try:
        open_session(path)
    except CannotLoad as error:
        return [Finding(answer="no", about="loading", reason=str(error).partition(": ")[2] or str(error))]
    reason = f"ONNX Runtime loads it on the CPU, what {target.runtime.provider} does not take runs there"
    return (
        []
        if target.runtime.provider == "CPUExecutionProvider"
        else [Finding(answer="yes", about="loading", reason=reason)]
    )


# ------------------------------------------------------------------------------------------------------ partitions


def _partitions(model: ModelProto, path: Path, target: Target) -> dict[str, Any] | None:
    """How ONNX Runtime's usability checker thinks the graph is shared out; None where it has no list for the target."""
    name = target.model.checker
    if name is None:
        return None
    # Its package imports torch where that is installed: only here.
    from onnxruntime.tools.mobile_helpers import usability_checker  # noqa: PLC0415

    if target.model.static_shapes:
        with suppress(EdgekdError):  # said among the shapes: then it is judged as it is
            model = fixed_shapes(model, path)
    whole, fixed = _inferred(model), target.model.static_shapes
    try:
        with quiet():
            if name == "nnapi":
                info = usability_checker.check_nnapi_partitions(whole, fixed)
            else:
                info = usability_checker.check_coreml_partitions(whole, fixed, _COREML[name])
    except ValueError:  # shapes that cannot be inferred
        return None
    return {
        "checker": name,
        "partitions": info.num_partitions,
        "nodes": info.num_nodes,
        "supported_nodes": info.num_supported_nodes,
        "unsupported_operators": sorted(info.unsupported_ops),
        "suitability": info.suitability().name.lower(),
    }


def _of_partitions(found: dict[str, Any]) -> Finding:
    share = found["supported_nodes"] / max(1, found["nodes"])
    what = f"{found['supported_nodes']} of {found['nodes']} nodes ({share:.0%}) in {found['partitions']} partitions"
    if found["unsupported_operators"]:
        what += f"; unsupported: {', '.join(found['unsupported_operators'])}"
    return Finding(answer=found["suitability"], about="partitions", reason=what)


def _inferred(model: ModelProto) -> ModelProto:
    """With the shapes that onnx can tell; as it is where it cannot."""
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # of a foreign graph it may fail in any way
        return model
