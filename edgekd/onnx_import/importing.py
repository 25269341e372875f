"""Import: check the graph, cut it at the wanted tensors, convert node by node."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence

import torch
from onnx import ModelProto, NodeProto, TensorProto
from onnx.inliner import inline_local_functions
from torch import Tensor, fx

from edgekd.errors import BadModel
from edgekd.onnx_file import first_line, real_inputs
from edgekd.onnx_import import registry
from edgekd.onnx_import.graph import GraphBuilder
from edgekd.onnx_import.node import NodeView
from edgekd.onnx_import.tensors import dtype_of, to_torch
from edgekd.onnx_import.trial import Trial, trials
from edgekd.onnx_import.values import Unconvertible, Value

for _module in pkgutil.iter_modules(importlib.import_module("edgekd.onnx_import.operators").__path__):
    importlib.import_module(f"edgekd.onnx_import.operators.{_module.name}")  # each file declares its operators


def import_onnx(
    model: ModelProto,
    outputs: Sequence[str] | None = None,
    *,
    shape: Sequence[int | None] | None = None,
    as_floats: bool = False,
) -> fx.GraphModule:
    """Make a torch module of an ONNX graph.

    Args:
        model: opset 9 or newer, external data loaded.
        outputs: names of any tensors of the graph; the graph's outputs by default.
        shape: sizes of the first input, None where they stay as the file has them. Some graphs leave a size free that
            works for one value only.
        as_floats: feed the first input, integers in the file, as float32 that holds them, so that it has a gradient.

    Returns:
        A module whose `forward` takes the graph's inputs in order and returns a tuple of tensors in the order of
        `outputs`. Initializers are buffers. Where the file fixes the batch, the batch is made free if the graph
        allows it; `module.meta["batch_free"]` tells.

    Raises:
        BadModel: unsupported operators (all are listed), a graph that is not sound, or a node that cannot be converted;
            with `as_floats`, one that computes with the integers before they are cast or dequantized.
    """
    model = _inlined(model)
    wanted = _wanted(model, outputs)
    nodes = _needed(model, wanted)
    missing = _unclaimed(model, nodes)
    if missing:
        hint, page = "such a model can still be queried", "tutorial.md#only-an-endpoint"
        raise BadModel(f"unsupported operators: {_listing(missing)}", hint=hint, page=page)
    failure: BadModel | None = None
    for trial in trials(real_inputs(model), shape, as_floats=as_floats):
        try:
            return _convert(model, nodes, wanted, trial)
        except BadModel as error:
            failure = error
    assert failure is not None
    raise failure


def unsupported(model: ModelProto, outputs: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """The nodes needed for `outputs` that `import_onnx` has no converter for: operator type and node name."""
    model = _inlined(model)
    return _unclaimed(model, _needed(model, _wanted(model, outputs)))


def _inlined(model: ModelProto) -> ModelProto:
    if not model.functions:
        return model
    try:
        inlined: ModelProto = inline_local_functions(model)
    except Exception as error:
        raise BadModel(f"its local functions cannot be inlined: {first_line(error)}") from error
    return inlined


def _wanted(model: ModelProto, outputs: Sequence[str] | None) -> list[str]:
    wanted = [value.name for value in model.graph.output] if outputs is None else list(outputs)
    if not wanted:
        raise BadModel("the graph has no outputs")
    return wanted


def _needed(model: ModelProto, wanted: Iterable[str]) -> list[NodeProto]:
    """The nodes that the wanted tensors depend on, sorted so that each comes after those it needs.

    Iterative: a graph may be deeper than Python's stack.
    """
    producer = _producers(model)
    given = {value.name for value in model.graph.input} | {t.name for t in model.graph.initializer}
    given |= {t.values.name for t in model.graph.sparse_initializer}
    done: set[int] = set()
    open_nodes: set[int] = set()
    order: list[NodeProto] = []
    stack: list[tuple[str, bool]] = [(name, False) for name in reversed(list(wanted))]
    while stack:
        name, visited = stack.pop()
        node = producer.get(name)
        if node is None:
            if name not in given:
                raise BadModel(f"no node, input or initializer provides the tensor '{name}'")
        elif visited:
            open_nodes.discard(id(node))
            if id(node) not in done:
                done.add(id(node))
                order.append(node)
        elif id(node) in open_nodes:
            raise BadModel(f"the graph has a cycle through the tensor '{name}'")
        elif id(node) not in done:
            open_nodes.add(id(node))
            stack.append((name, True))
            stack.extend((needed, False) for needed in reversed(_reads(node)))
    return order


def _producers(model: ModelProto) -> dict[str, NodeProto]:
    producer: dict[str, NodeProto] = {}
    for node in model.graph.node:
        for name in filter(None, node.output):
            if name in producer:
                raise BadModel(f"two nodes provide the tensor '{name}'")
            producer[name] = node
    return producer


def _reads(node: NodeProto) -> list[str]:
    return [name for name in node.input if name]


def _opsets(model: ModelProto) -> dict[str, int]:
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}


def _claim(opsets: dict[str, int], node: NodeProto) -> registry.Claim | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return registry.find(node.op_type, domain, opsets.get(domain, 1))


def _unclaimed(model: ModelProto, nodes: Iterable[NodeProto]) -> list[tuple[str, str]]:
    opsets = _opsets(model)
    return [(node.op_type, _label(node)) for node in nodes if _claim(opsets, node) is None]


def _label(node: NodeProto) -> str:
    return node.name or next((f"-> {name}" for name in node.output if name), "without a name")


def _listing(missing: list[tuple[str, str]]) -> str:
    by_type: dict[str, list[str]] = {}
    for op_type, name in missing:
        by_type.setdefault(op_type, []).append(name)
    return ", ".join(f"{op_type} ({', '.join(names)})" for op_type, names in sorted(by_type.items()))


def _convert(model: ModelProto, nodes: list[NodeProto], wanted: list[str], trial: Trial) -> fx.GraphModule:
    used = set(wanted).union(*(node.input for node in nodes)) if nodes else set(wanted)
    fixed = _constants(model, used)
    builder = GraphBuilder(trial.batch_growth, sum(x.numel() for x in fixed.values()) + _in_nodes(nodes))
    known: dict[str, Value] = {}
    for value, tensors in zip(real_inputs(model), trial.tensors, strict=True):
        known[value.name] = builder.placeholder(value.name, tensors, dtype_of(value.type.tensor_type.elem_type))
    known |= fixed
    opsets = _opsets(model)
    for node in nodes:
        known |= _converted(node, known, opsets, builder)
    _check_batch(builder, [known[name] for name in wanted], trial)
    module = builder.output([known[name] for name in wanted])
    module.meta["batch_free"] = trial.batch_free
    return module


def _in_nodes(nodes: list[NodeProto]) -> int:
    """Elements stored in Constant nodes, at least."""
    return sum(len(a.t.raw_data) // 8 for node in nodes if node.op_type == "Constant" for a in node.attribute)


def _constants(model: ModelProto, used: set[str]) -> dict[str, Tensor]:
    sparse = [t.values.name for t in model.graph.sparse_initializer if t.values.name in used]
    if sparse:
        raise BadModel(f"sparse initializers are not supported: {', '.join(sparse)}")
    return {proto.name: _constant(proto) for proto in model.graph.initializer if proto.name in used}


def _constant(proto: TensorProto) -> Tensor:
    try:
        return to_torch(proto)
    except Unconvertible as error:
        raise BadModel(str(error), where=f"initializer {proto.name}") from error


def _converted(
    node: NodeProto, known: dict[str, Value], opsets: dict[str, int], builder: GraphBuilder
) -> dict[str, Value]:
    claim = _claim(opsets, node)
    assert claim is not None
    inputs = [known[name] if name else None for name in node.input]
    kinds = {builder.carried_type(value) for value in inputs[: 1 if node.op_type != "Concat" else None]}
    moved = kinds.pop() if claim.moves and len(kinds) == 1 else None
    try:
        if not (claim.carried or moved):
            inputs = [None if value is None else builder.settled(value) for value in inputs]
        result = claim.convert(NodeView(node, inputs, opsets.get("", 1), builder))
    except Exception as error:  # a converter or torch may refuse a foreign graph in any way: one line says where
        raise BadModel(
            f"cannot be imported: {first_line(error)}", where=f"{node.op_type} node {_label(node)}"
        ) from error
    values = result if isinstance(result, tuple) else (result,)
    if moved is not None:
        values = tuple(_carried(builder, value, moved, inputs) for value in values)
    named = {name: value for name, value in zip(node.output, values, strict=False) if name and value is not None}
    if builder.grown(inputs) and not builder.grown(list(named.values())) and _has_tensor(named):
        raise BadModel("the graph works on its fixed batch only", where=f"{node.op_type} node {_label(node)}")
    lost = [name for name in node.output if name and name not in named]
    if lost:
        raise BadModel(f"its output {', '.join(lost)} is not supported", where=f"{node.op_type} node {_label(node)}")
    return named


def _has_tensor(named: dict[str, Value]) -> bool:
    return any(isinstance(value, fx.Node) for value in named.values())


def _carried(
    builder: GraphBuilder, value: Value | None, dtype: torch.dtype, moved: Sequence[Value | None]
) -> Value | None:
    kind = None if value is None else builder.dtype(value)
    floats = kind is not None and kind.is_floating_point
    return builder.carry(value, dtype, moved) if value is not None and floats else value


def _check_batch(builder: GraphBuilder, values: list[Value], trial: Trial) -> None:
    """A batch that was made free must reach every output, or the graph mixed or dropped samples."""
    if trial.batch_growth is None:
        return
    for value in values:
        pair = builder.trial(value)
        if isinstance(pair, tuple) and isinstance(pair[0], Tensor) and pair[0].ndim:
            first, second = pair[0].shape[0], pair[1].shape[0]
            if first == trial.batch and second != first * trial.batch_growth:
                raise BadModel("the graph works on its fixed batch only")
