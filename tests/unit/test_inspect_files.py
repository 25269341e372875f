"""What `inspect` says of the kinds of files that teachers come in: which access levels are possible, and why not."""

# ruff: noqa: E501 - text graphs
from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.inspect import Inspection, inspect_model

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="asks the importer")
IMAGES, LOGITS = "float[N,3,8,8] x", "float[N,5] y"
BODY = "c = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(c)  p = GlobalAveragePool(r)  f = Flatten(p)  l = Gemm(f, d)  "


def parsed(body: str, signature: str = f"({IMAGES}) => ({LOGITS})", opset: int = 17) -> onnx.ModelProto:
    """A model of a text graph, with random weights for the names it uses."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> graph {signature} {{ {body} }}')
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "d": (4, 5), "one": (4, 1), "v": (4,), "m3": (3,), "s3": (3,)}
    values: dict[str, Any] = {name: rng.uniform(0.1, 0.9, shape).astype(np.float32) for name, shape in shapes.items()}
    values |= {"step": np.array(0.05, np.float32), "zero": np.array(128, np.uint8), "q": np.ones((4, 3, 3, 3), np.int8)}
    values |= {"byte": np.array(255, np.float32), "none": np.array(0, np.int8), "order": np.array([1, 0])}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in values.items() if name in used)
    return model


def trees(entry: int = TensorProto.FLOAT, *, zipped: bool = False) -> onnx.ModelProto:
    """A stump per class, as scikit-learn's converter writes a classifier."""
    keys: dict[str, list[Any]] = {
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0], "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "nodes_missing_value_tracks_true": [0, 0, 0],
        "nodes_hitrates": [1.0, 1.0, 1.0], "class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 1], "class_weights": [1.0, 1.0],
        "classlabels_int64s": [0, 1],
    }  # fmt: skip
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "p"], "forest", domain="ai.onnx.ml", post_transform="NONE", **keys
    )
    nodes = (
        [node, helper.make_node("ZipMap", ["p"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])]
        if zipped
        else [node]
    )
    scores = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", 2])
    maps = helper.make_value_info(
        "y",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        ),
    )
    leaving = [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]), maps if zipped else scores]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", entry, ["N", 4])], leaving)
    kinds = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=kinds, ir_version=8)


@dataclass(frozen=True)
class Told:
    """What is expected: facts of the teacher, and words of why an access level is refused or the file is no teacher."""

    model: Callable[[], onnx.ModelProto]
    facts: dict[str, Any] = field(default_factory=dict)
    no_gradient: str = ""
    problem: str = ""
    statistics: str = "1 layer output looks like folded"
    input_shape: tuple[int, int, int] | None = None


QUANTIZED = (
    "i = QuantizeLinear(x, step, zero)  j = DequantizeLinear(i, step, zero)  k = DequantizeLinear(q, step, none)  c = Conv(j, k)  r = Relu(c)"
    "  p = GlobalAveragePool(r)  f = Flatten(p)  y = Gemm(f, d)"
)
TRANSPOSED = "t = Transpose<perm=[0,3,1,2]>(x)  " + BODY.replace("Conv<pads=[1,1,1,1]>(x", "Conv<pads=[1,1,1,1]>(t")
FILES = {
    "logits": Told(lambda: parsed(BODY + "y = Identity(l)"), {"ending": "logits", "batch": None, "classes": 5}),
    "softmax": Told(lambda: parsed(BODY + "y = Softmax(l)"), {"ending": "softmax"}),
    "log softmax": Told(lambda: parsed(BODY + "y = LogSoftmax(l)"), {"ending": "log_softmax"}),
    "sigmoid": Told(lambda: parsed(BODY + "y = Sigmoid(l)"), {"ending": "sigmoid", "task": "multilabel"}),
    "fixed batch": Told(
        lambda: parsed(BODY + "y = Softmax(l)", "(float[1,3,8,8] x) => (float[1,5] y)"), {"batch": 1, "ending": "softmax"}
    ),
    "a batch that stays fixed": Told(
        lambda: parsed(BODY + "y = Gather<axis=0>(l, order)", "(float[2,3,8,8] x) => (float[2,5] y)"),
        {"batch": 2},
        no_gradient="works for a batch of 2 only",
    ),
    "channels last": Told(
        lambda: parsed(TRANSPOSED + "y = Softmax(l)", f"(float[N,8,8,3] x) => ({LOGITS})"),
        {"layout": "NHWC", "channels": 3, "height": 8},
    ),
    "channels last, normalized": Told(
        lambda: parsed(
            "z = Sub(x, m3)  u = Div(z, s3)  " + TRANSPOSED.replace("(x)", "(u)") + "y = Softmax(l)", f"(float[N,8,8,3] x) => ({LOGITS})"
        ),
        {"layout": "NHWC", "range": (0.0, 1.0)},
    ),
    "scaled bytes": Told(lambda: parsed("z = Div(x, byte)  " + BODY.replace("(x,", "(z,") + "y = Identity(l)"), {"range": (0.0, 255.0)}),
    "batch norm kept": Told(
        lambda: parsed("c = Conv(x, w)  n = BatchNormalization(c, v, v, v, v)  r = Relu(n)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Gemm(f, d)"),
        statistics="1 layers keep them",
    ),
    "quantized": Told(lambda: parsed(QUANTIZED), {"classes": 5}, statistics="nothing looks like a folded one"),
    "bytes": Told(
        lambda: parsed("g = Cast<to=1>(x)  " + BODY.replace("(x,", "(g,") + "y = Identity(l)", f"(uint8[N,3,8,8] x) => ({LOGITS})"),
        {"dtype": "uint8", "range": (0.0, 255.0), "channels": 3},
    ),
    "halved bytes": Told(
        lambda: parsed("h = Div(x, x)  g = Cast<to=1>(h)  " + BODY.replace("(x,", "(g,") + "y = Identity(l)", f"(uint8[N,3,8,8] x) => ({LOGITS})"),
        {"dtype": "uint8"},
        no_gradient="computes with the uint8 input as it is",
    ),
    "doubles": Told(
        lambda: parsed("g = Cast<to=1>(x)  " + BODY.replace("(x,", "(g,") + "y = Identity(l)", f"(double[N,3,8,8] x) => ({LOGITS})"),
        problem="input 'x' is double; allowed: float32 or uint8 images",
    ),
    "one logit": Told(
        lambda: parsed(BODY.replace("(f, d)", "(f, one)") + "y = Sigmoid(l)", f"({IMAGES}) => (float[N,1] y)"),
        {"task": "binary", "classes": 1, "ending": "sigmoid"},
    ),
    "classes per pixel": Told(
        lambda: parsed("y = Conv<pads=[1,1,1,1]>(x, w, b)", f"({IMAGES}) => (float[N,4,8,8] y)"),
        {"task": "segmentation", "classes": 4, "grid": (8, 8), "ending": "logits"},
        statistics="nothing looks like a folded one",
    ),
    "one score without a column": Told(
        lambda: parsed(BODY.replace("(f, d)", "(f, one)") + "y = Squeeze(l)", f"({IMAGES}) => (float[N] y)"),
        problem="output 'y' is [?]; allowed: one output of class scores, [N,K] or [N,K,h,w]; export one score per image as a column",
    ),
    "trees": Told(
        trees, {"classes": 2, "channels": 1}, no_gradient="TreeEnsembleClassifier (forest)", statistics="nothing looks like", input_shape=(1, 2, 2)
    ),
    "trees of a table": Told(
        trees, {"classes": 2, "channels": 4, "height": 1, "layout": "NF"}, no_gradient="TreeEnsembleClassifier (forest)", statistics="nothing looks like"
    ),
    "trees of doubles": Told(
        lambda: trees(TensorProto.DOUBLE), problem="input 'x' is double", statistics="nothing looks like", input_shape=(1, 2, 2)
    ),
    "trees that answer maps": Told(
        lambda: trees(zipped=True), problem="without ZipMap", statistics="nothing looks like", input_shape=(1, 2, 2)
    ),
    "control flow": Told(
        lambda: parsed(
            BODY + "t = ReduceSum<keepdims=0>(l)  o = Cast<to=9>(t)  y = If(o) <then_branch = a () => (float[N,5] e) { e = Identity(l) }, else_branch = b () => (float[N,5] e) { e = Neg(l) }>"
        ),
        no_gradient="unsupported operators: If",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name: str, tmp_path: Path) -> None:
    told = FILES[name]
    onnx.save(told.model(), tmp_path / "model.onnx")
    found = inspect_model(tmp_path / "model.onnx", input_shape=told.input_shape)
    assert told.statistics in found.statistics.note
    if told.problem:
        assert found.teacher is None
        assert told.problem in found.problems[0]
        assert {access.possible for access in found.access.values()} == {False}
        return
    assert found.teacher is not None
    assert {name: getattr(found.teacher, name) for name in told.facts} == told.facts
    refusals(found, told)


def refusals(found: Inspection, told: Told) -> None:
    """Each level is possible, or refused in the expected words."""
    for level, words in (("gradient", told.no_gradient), ("scores", ""), ("labels", "")):
        access = found.access[level]  # type: ignore[index]
        assert access.possible is not bool(words), access.why
        assert words in access.why
