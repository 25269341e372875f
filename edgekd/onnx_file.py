"""Read ONNX files nobody vouches for, and state plain facts about them: parameters, MACs, opset.

It does not run models and does not need torch.
"""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from edgekd.errors import BadModel

MAXIMUM_BYTES = 2**31 - 1
"""Protobuf's own ceiling for one message."""
MAXIMUM_NODES = 200_000
"""A graph may have this many nodes once its local functions are written out."""
_BLOCK = 2**20


def load(path: Path) -> ModelProto:
    """Parse and check an ONNX file; external tensors are read only from beside it.

    Raises:
        BadModel: missing, not ONNX, cut short, invalid, or reaching outside its folder.
    """
    path = Path(path)
    if not path.is_file():
        raise BadModel("no such file", where=path)
    if path.stat().st_size > MAXIMUM_BYTES:
        hint = "export it again with its weights as external data"
        raise BadModel("larger than 2 GiB, which no ONNX file can be", where=path, hint=hint)
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        hint = "export it again as .onnx, or copy it again in full"
        raise BadModel("not an ONNX file, or cut short", where=path, hint=hint) from error
    if not model.graph.node or not model.opset_import:
        raise BadModel("not an ONNX file: it holds no graph", where=path)
    outside = _external_files(model, path)
    if outside:
        _load_external(model, path)
    try:
        # With its external data a model may be beyond what one message can hold, and so is checked by its path.
        onnx.checker.check_model(str(path.resolve()) if outside else model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise BadModel(f"not a valid ONNX model: {first_line(error)}", where=path) from error
    if (nodes := _written_out(model)) > MAXIMUM_NODES:
        raise BadModel(f"its local functions call each other up to {nodes:.3g} nodes", where=path)
    return model


def _written_out(model: ModelProto) -> float:
    """How many nodes a checked model has once every call of a local function is replaced by its body."""
    sizes: dict[tuple[str, str], float] = {}
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    waiting = list(bodies)
    while waiting:  # depth first, without recursion: a function is sized after those that it calls
        called = {key for node in _nodes(bodies[waiting[-1]]) if (key := (node.domain, node.op_type)) in bodies}
        if waiting[-1] in sizes or not (missing := called - set(sizes)):
            key = waiting.pop()
            sizes[key] = sum(sizes.get((node.domain, node.op_type), 1.0) for node in _nodes(bodies[key]))
        else:
            waiting.extend(missing)
    return sum(sizes.get((node.domain, node.op_type), 1.0) for node in _nodes(model.graph.node))


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for a in node.attribute:
            for inner in (*([a.g] if a.type == AttributeProto.GRAPH else []), *a.graphs):
                yield from _nodes(inner.node)


def _external_files(model: ModelProto, path: Path) -> list[Path]:
    """The other files that a model keeps tensors in, in the order of their names.

    Raises:
        BadModel: one of them is outside the model's folder.
    """
    folder = path.resolve().parent
    names = set()
    for tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        inside = location and "\0" not in location and (folder / location).resolve().is_relative_to(folder)
        if not inside:
            raise BadModel(f"tensor {tensor.name} reads outside the model's folder: {location[:200]!r}", where=path)
        names.add(location)
    return [folder / name for name in sorted(names)]


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor stored in a graph, those in attributes and subgraphs included."""
    yield from graph.initializer
    for a in (a for node in graph.node for a in node.attribute):
        yield from (a.t, *a.tensors)
        for inner in (*([a.g] if a.type == AttributeProto.GRAPH else []), *a.graphs):
            yield from _tensors(inner)


def _load_external(model: ModelProto, path: Path) -> None:
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.resolve().parent))
    except Exception as error:  # what a hostile place, offset or length makes onnx raise is up to onnx
        raise BadModel(f"its external data cannot be read: {first_line(error)[:300]}", where=path) from error


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's text, or its type's name."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes. What identifies a model is `model_sha256`."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_sha256(path: Path) -> str:
    """Hex digest of a model: over the file's bytes, and over its external data where it has any.

    Raises:
        BadModel: its external data cannot be read, or is outside its folder.
    """
    path = Path(path)
    digest = hashlib.sha256()
    for part in parts(path):
        try:
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise BadModel(f"{part.name} cannot be read: {error.strerror}", where=path) from error
    return digest.hexdigest()


def size(path: Path) -> int:
    """Bytes of a model on disk, external data included."""
    return sum(part.stat().st_size for part in parts(path))


def gzip_size(path: Path) -> int:
    """Bytes of a model compressed as for a download: gzip, level 9, external data included."""
    return sum(len(gzip.compress(part.read_bytes(), 9, mtime=0)) for part in parts(path))


def parts(path: Path) -> list[Path]:
    """The file and those it keeps tensors in; of a file that is no model, the file alone."""
    path, model = Path(path), ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        return [path]
    return [path, *_external_files(model, path)]


def opset(model: ModelProto) -> int:
    """Version of the default operator set."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def metadata(model: ModelProto) -> dict[str, str]:
    """The file's own key-value notes: who made it, from what."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: ModelProto, notes: dict[str, str]) -> None:
    """Replace the key-value notes, in sorted order so that equal models have equal bytes."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(notes.items())))


def tidy(model: ModelProto) -> None:
    """Remove in place what no runtime needs: intermediate shapes, unused domains, notes (they name local paths)."""
    graph = model.graph
    del graph.value_info[:], model.metadata_props[:]
    noted = (*graph.node, *graph.initializer, *graph.input, *graph.output, graph)
    for part in noted:
        del part.metadata_props[:]  # type: ignore[attr-defined]  # every one of these kinds has them
        part.ClearField("doc_string")
    model.ClearField("doc_string")
    used = {node.domain or "" for node in graph.node}
    kept = [entry for entry in model.opset_import if (entry.domain or "") in used | {""}]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda entry: entry.domain))


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """A node's attribute as a Python value, or `default`."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def constants(model: ModelProto) -> dict[str, TensorProto]:
    """Tensors fixed in the file: initializers and the values of Constant nodes."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for a in node.attribute if node.op_type == "Constant" else ():
            if a.type == AttributeProto.TENSOR:
                found[node.output[0]] = a.t
    return found


def real_inputs(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs that a caller must feed: those that are not initializers (IR version 3 lists both)."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in fixed]


def dimensions(value: onnx.ValueInfoProto) -> list[int | None] | None:
    """Shape of a tensor value, None for a free dimension; None when the file does not tell or it is no tensor.

    A dimension of -1 is free: PaddlePaddle's converter writes it so.
    """
    kind = value.type
    if kind.WhichOneof("value") != "tensor_type" or not kind.tensor_type.HasField("shape"):
        return None
    fixed = (d.WhichOneof("value") == "dim_value" and d.dim_value != -1 for d in kind.tensor_type.shape.dim)
    return [d.dim_value if f else None for d, f in zip(kind.tensor_type.shape.dim, fixed, strict=True)]


def dtype_name(value: onnx.ValueInfoProto) -> str:
    """numpy's name of a tensor value's type, such as `float32`; empty of what is no tensor, or of a type unknown."""
    kind = value.type.tensor_type.elem_type
    return onnx.helper.tensor_dtype_to_np_dtype(kind).name if kind in onnx.helper.get_all_tensor_dtypes() else ""


def type_name(element_type: int) -> str:
    """The name of an element type, in small letters; one that ONNX does not know goes by its number."""
    known = element_type in TensorProto.DataType.values()
    return TensorProto.DataType.Name(element_type).lower() if known else f"type {element_type}"


def parameters(model: ModelProto) -> int:
    """Numbers stored as weights: floating initializers and constants, quantized weights included.

    Integers of 64 bits (shapes, axes), scales and zero points are not weights and are not counted.
    """
    used_as_weight = set(_weight_names(model.graph))
    return sum(math.prod(t.dims) for name, t in constants(model).items() if name in used_as_weight)


_WEIGHT_INPUTS = {
    "QuantizeLinear": (),
    "DequantizeLinear": (0,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (3,),
    "BatchNormalization": (1, 2),  # mean and variance are statistics, as torch's buffers are
}


def _weight_names(graph: GraphProto) -> Iterator[str]:
    fixed = {t.name: t.data_type for t in graph.initializer}
    fixed |= {
        n.output[0]: a.t.data_type
        for n in graph.node
        if n.op_type == "Constant"
        for a in n.attribute
        if a.HasField("t")
    }
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    quantized = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT16, TensorProto.UINT16)
    for node in graph.node:
        if node.op_type in _WEIGHT_INPUTS:
            places = _WEIGHT_INPUTS[node.op_type]
            yield from (
                node.input[i] for i in places if i < len(node.input) and fixed.get(node.input[i]) in floats + quantized
            )
        else:
            yield from (name for name in node.input if fixed.get(name) in floats)


def macs(model: ModelProto, input_shape: tuple[int, ...] | None = None) -> int | None:
    """Multiply-accumulates of one inference at batch 1: convolutions and matrix products.

    Args:
        model: any ONNX model, quantized or not.
        input_shape: shape of the first input without the batch, where the file leaves it free.

    Returns:
        The count, or None when shapes cannot be inferred.
    """
    counts = macs_of_nodes(model, input_shape)
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def macs_of_nodes(model: ModelProto, input_shape: tuple[int, ...] | None = None) -> list[int | None]:
    """What `macs` adds up: one count per node of the graph, None where its shapes cannot be inferred."""
    shapes = _inferred_shapes(model, input_shape)
    return [_node_macs(node, shapes) for node in model.graph.node]


def _inferred_shapes(model: ModelProto, input_shape: tuple[int, ...] | None) -> dict[str, list[int | None]]:
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for position, value in enumerate(real_inputs(fixed)):
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if axis == 0 and len(dims) > 1:
                dim.dim_value = 1
            elif position == 0 and input_shape and 0 < axis <= len(input_shape):
                dim.dim_value = input_shape[axis - 1]
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=_longest(fixed) < _PROPAGATED)
    except Exception:  # shape inference of a foreign graph may fail in any way: then shapes are unknown
        return {}
    graph = fixed.graph
    known = {v.name: d for v in (*graph.input, *graph.value_info, *graph.output) if (d := dimensions(v)) is not None}
    for name in _of_one_batch(model):
        if known.get(name, [1])[:1] == [None]:
            known[name][0] = 1
    return known | {name: list(t.dims) for name, t in constants(fixed).items()}


_PROPAGATED = 2**16


def _longest(model: ModelProto) -> int:
    """How long a vector may get that onnx would follow through the graph: joined to itself often enough, endless."""
    counts = {name: tensor for name, tensor in constants(model).items() if tensor.data_type == TensorProto.INT64}
    lengths = {name: math.prod(tensor.dims) for name, tensor in counts.items() if len(tensor.dims) < 2}
    for node in model.graph.node:
        taken = [lengths.get(name, 1) for name in node.input]
        length = sum(taken) if node.op_type == "Concat" else max(taken, default=1)
        lengths.update(dict.fromkeys(node.output, min(length, _PROPAGATED)))
    return max(lengths.values(), default=0)


def _of_one_batch(model: ModelProto) -> list[str]:
    """Values that the file says are as long as its free batch, which shape inference may lose on the way."""
    entries = real_inputs(model)[:1]
    values = [*entries, *model.graph.value_info, *model.graph.output]
    first = [next((d.dim_param for d in v.type.tensor_type.shape.dim[:1]), "") for v in values]
    return [v.name for v, name in zip(values, first, strict=True) if name and entries and name == first[0]]


def _node_macs(node: NodeProto, shapes: dict[str, list[int | None]]) -> int | None:
    """MACs of one node: output elements times the length of the sum behind each."""
    weight_at = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "QLinearConv": 3, "QLinearMatMul": 3}
    if node.op_type not in weight_at:
        return 0
    out, first = shapes.get(node.output[0]), shapes.get(node.input[0])
    weight = shapes.get(node.input[weight_at[node.op_type]])
    if not out or not first or not weight:
        return None
    if node.op_type in ("Conv", "QLinearConv"):
        factors = [*out, *weight[1:]]
    elif node.op_type == "ConvTranspose":
        factors = [*first, *weight[1:]]
    else:
        factors = [*out, first[0] if node.op_type == "Gemm" and attribute(node, "transA", 0) else first[-1]]
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None
