"""The dense representation of a teacher, and the layer behind it that makes logits of it: both out of the graph.

The representation is the input of the last Gemm or MatMul or, where pixels are answered, of the last convolution. What
lies behind it is cut out, run alone, and held to the layer that stands for it here: a graph that does more than that is
refused, and never approximated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from edgekd.errors import BadModel, CannotLoad
from edgekd.inference import open_session
from edgekd.onnx_file import attribute, constants, first_line, load
from edgekd.teachers import Signal
from edgekd.teachers.codes import within
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.spec import TeacherSpec
from edgekd.teachers.wiring import Wiring

TOLERANCE = 1e-3
"""Largest difference between the graph and the layer that stands for it, as a share of the largest logit."""
_HINT = "name another tensor: --representation TENSOR"


@dataclass(frozen=True)
class LastLayer:
    """What makes logits of the representation.

    Attributes:
        weight: `[K, F]`, or `[K, F, kh, kw]` of a convolution that keeps the size of the map.
        bias: `[K]`.
        rectified: the representation is never negative, or its negative numbers count as 0.
        grid: h, w of the representation, if it is a map.
    """

    weight: Tensor
    bias: Tensor
    rectified: bool
    grid: tuple[int, int] | None = None


def with_representation(spec: TeacherSpec, told: str | None) -> TeacherSpec:
    """A spec whose features are the dense representation: what the user names, or the input of the last layer.

    Raises:
        BadModel: there is no such tensor, or no such layer.
    """
    model = load(spec.path)
    if told is not None:
        names = {name for node in model.graph.node for name in node.output}
        if told not in names:
            what = f"it has no tensor '{told}'"
            raise BadModel(what, where=spec.path, allowed="the output of any node, as a viewer of ONNX files shows it")
        return replace(spec, features_name=told)
    wiring = Wiring(model)
    found = wiring.features(spec.logits_name) if spec.grid is None else wiring.map(spec.logits_name)
    if found is None:
        layer = "dense layer" if spec.grid is None else "convolution"
        raise BadModel(f"no last {layer} found, whose input is to be learned", where=spec.path, hint=_HINT)
    return replace(spec, features_name=found)


def last_layer(teacher: object) -> LastLayer:
    """The layer behind a teacher's features.

    Args:
        teacher: a file whose graph can be run.

    Raises:
        BadModel: the teacher shows no features, or what lies behind them is no layer of one of the two kinds.
    """
    if not isinstance(teacher, GraphTeacher) or Signal.FEATURES not in teacher.signals:
        name = getattr(getattr(teacher, "spec", None), "name", None)
        what = "its dense representation is to be learned, and it shows none"
        raise BadModel(what, where=name, allowed="ONNX files with --access gradient")
    spec = teacher.spec
    assert spec.features_name is not None, "it offers features"
    with torch.no_grad():
        nothing = torch.zeros((1, spec.channels, spec.height, spec.width))
        shown = teacher(within(nothing, spec.low, spec.high)).features
    assert shown is not None, "it offers features"
    model = load(spec.path)
    grid = (shown.shape[2], shown.shape[3]) if shown.dim() == 4 else None
    behind = _Behind(teacher, _cut(model, spec.features_name, spec.logits_name, spec, shown.dim()))
    rectified = Wiring(model).rectified(spec.features_name)
    found = _dense(behind, shown.shape[1]) if grid is None else _convolution(model, spec, grid)
    checked = _checked(found, behind, shown)
    return replace(checked, rectified=checked.rectified or rectified)


class _Behind:
    """What the graph makes of a representation: logits in the teacher's own order of classes."""

    def __init__(self, teacher: GraphTeacher, model: ModelProto) -> None:
        self.teacher, spec = teacher, teacher.spec
        self.entry = model.graph.input[0].name
        try:
            self.session = open_session(spec.path, graph=model.SerializeToString())
        except CannotLoad as error:
            what = f"what lies behind '{self.entry}' cannot be run alone ({error})"
            raise BadModel(what, where=spec.path, hint=_HINT) from error

    def __call__(self, representation: Tensor) -> Tensor:
        try:
            (found,) = self.session.run(None, {self.entry: representation.numpy()})
        except Exception as error:
            what = f"what lies behind '{self.entry}' takes no {list(representation.shape[1:])}: {first_line(error)}"
            raise BadModel(what, where=self.teacher.spec.path, hint=_HINT) from error
        return self.teacher.by_class(torch.from_numpy(np.asarray(found)))


def _cut(model: ModelProto, first: str, last: str, spec: TeacherSpec, axes: int) -> ModelProto:
    """The part of a graph between two tensors."""
    nodes = list(_between(model, first, last, spec))
    read = {name for node in nodes for name in node.input}
    entry = helper.make_tensor_value_info(first, TensorProto.FLOAT, [None] * axes)
    leaving = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
    stored = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, "behind", [entry], [leaving], stored)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def _between(model: ModelProto, first: str, last: str, spec: TeacherSpec) -> Iterator[NodeProto]:
    """The nodes between two tensors, in graph order.

    Raises:
        BadModel: `last` depends on the graph's input past `first`, or not on `first`.
    """
    wiring, ends = Wiring(model), {first, *(tensor.name for tensor in model.graph.initializer)}
    made = set[str]()
    for name in wiring.leading_to(last, ends):
        if name not in ends and name not in wiring.makers:
            what = f"its answer does not depend on '{first}' alone, but on '{name}' as well"
            raise BadModel(what, where=spec.path, hint=_HINT)
        made.add(name)
    if first not in made:
        raise BadModel(f"its answer does not depend on '{first}'", where=spec.path, hint=_HINT)
    return (node for node in model.graph.node if (made - ends).intersection(node.output))


def _dense(behind: _Behind, width: int) -> LastLayer:
    """A layer `[K, F]`, column by column out of what the graph answers to unit vectors."""
    answers = behind(torch.cat([torch.zeros(1, width), torch.eye(width)]))
    return LastLayer((answers[1:] - answers[0]).T.contiguous(), answers[0], rectified=False)


def _convolution(model: ModelProto, spec: TeacherSpec, grid: tuple[int, int]) -> LastLayer:
    """The last convolution's own kernel, where it keeps the size of the map."""
    node = next(n for n in reversed(model.graph.node) if spec.features_name in n.input)
    fixed = constants(model)
    kernel = fixed.get(node.input[1]) if node.op_type == "Conv" and len(node.input) > 1 else None
    if kernel is None or attribute(node, "group", 1) != 1:
        what = f"'{spec.features_name}' is read by a {node.op_type}, not by one plain convolution"
        raise BadModel(what, where=spec.path, hint=_HINT)
    weight = torch.from_numpy(numpy_helper.to_array(kernel).astype(np.float32))
    stored = fixed.get(node.input[2]) if len(node.input) > 2 else None
    bias = torch.zeros(len(weight)) if stored is None else torch.from_numpy(numpy_helper.to_array(stored).copy())
    return LastLayer(weight, bias.float(), rectified=False, grid=grid)


def _checked(layer: LastLayer, behind: _Behind, shown: Tensor) -> LastLayer:
    """The layer, held to the graph on random representations; rectified where it is one only then.

    Raises:
        BadModel: the graph does something else.
    """
    spec = behind.teacher.spec
    examples = torch.randn(8, *shown.shape[1:], generator=torch.Generator().manual_seed(0))
    expected = behind(examples)
    if layer.grid is not None and behind.teacher.order is not None:
        order = list(behind.teacher.order)
        layer = replace(layer, weight=layer.weight[order], bias=layer.bias[order])
    for rectified in (False, True):
        found = _answer(layer, functional.relu(examples) if rectified else examples, spec.grid)
        if found.shape == expected.shape and (found - expected).abs().max() <= TOLERANCE * expected.abs().max():
            return replace(layer, rectified=rectified)
    what = f"what lies behind '{spec.features_name}' is more than one layer and a ReLU before it"
    raise BadModel(what, where=spec.path, hint=_HINT)


def _answer(layer: LastLayer, representation: Tensor, grid: tuple[int, int] | None) -> Tensor:
    if layer.grid is None:
        return functional.linear(representation, layer.weight, layer.bias)
    middle = (layer.weight.shape[2] // 2, layer.weight.shape[3] // 2)
    logits = functional.conv2d(representation, layer.weight, layer.bias, padding=middle)
    if grid is None or tuple(logits.shape[-2:]) == grid:
        return logits
    return functional.interpolate(logits, size=grid, mode="bilinear", align_corners=False)
