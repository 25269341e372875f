"""An ONNX file that is only asked, tree ensembles included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_teacher import classifier

from edgekd import inference
from edgekd.bench.inputs import describe
from edgekd.errors import BadModel
from edgekd.teachers.session import SessionSource
from edgekd.teachers.source import SMALLEST, SURE, LabelsOnly, as_logits, checked
from edgekd.teachers.spec import read_spec


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).random((count, 1, 12, 12), dtype=np.float32)


def nothing(_: int) -> None:
    raise AssertionError("a file is never asked twice")


def ending_in(folder: Path, operator: str) -> Path:
    model = classifier()
    model.graph.node.append(helper.make_node(operator, ["logits"], ["ended"]))
    model.graph.output[0].name = "ended"
    onnx.save(model, folder / "teacher.onnx")
    return folder / "teacher.onnx"


@pytest.mark.parametrize("operator", ["Identity", "Softmax", "LogSoftmax", "Sigmoid"])
def test_the_graph_is_cut_before_what_hides_the_logits(tmp_path: Path, operator: str) -> None:
    onnx.save(classifier(), tmp_path / "plain.onnx")
    source = SessionSource(read_spec(ending_in(tmp_path, operator)))
    expected = inference.logits(tmp_path / "plain.onnx", images())
    np.testing.assert_allclose(source.ask(images(), nothing), expected, rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    model = classifier()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, tmp_path / "fixed.onnx")
    onnx.save(classifier(), tmp_path / "free.onnx")
    source = SessionSource(read_spec(tmp_path / "fixed.onnx"))
    assert source.batch == 3
    expected = inference.logits(tmp_path / "free.onnx", images(5))
    np.testing.assert_allclose(source.ask(images(5), nothing), expected, rtol=1e-5, atol=1e-6)


def trees(folder: Path, *, zipmap: bool = False) -> Path:
    """A forest of one stump over four pixels, as converters write it: a label, and probabilities beside it."""
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[2, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        class_treeids=[0] * 6,
        class_nodeids=[1, 1, 1, 2, 2, 2],
        class_ids=[0, 1, 2, 0, 1, 2],
        class_weights=[0.75, 0.25, 0.0, 0.125, 0.125, 0.75],
        classlabels_int64s=[0, 1, 2],
        post_transform="NONE",
    )
    scores = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])
    nodes = [node]
    if zipmap:
        nodes.append(
            helper.make_node("ZipMap", ["probabilities"], ["map"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
        )
        kind = helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        )
        scores = helper.make_value_info("map", kind)
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    entry = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "trees", [entry], [label, scores])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "trees.onnx")
    return folder / "trees.onnx"


def test_a_tree_ensemble_answers_centred_log_probabilities(tmp_path: Path) -> None:
    source = SessionSource(read_spec(trees(tmp_path), input_shape=(1, 2, 2)))
    assert (source.spec.classes, source.spec.ending, source.spec.output_name) == (3, "softmax", "probabilities")
    low, high = np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 1, 2, 2), np.float32)
    found = source.ask(np.concatenate([low, high]), nothing)
    for row, expected in zip(found, ([0.75, 0.25, SMALLEST], [0.125, 0.125, 0.75]), strict=True):
        logs = np.log(expected)
        np.testing.assert_allclose(row, logs - logs.mean(), rtol=1e-5)


def test_a_tree_ensemble_is_measured_as_any_other_teacher(tmp_path: Path) -> None:
    path, low = trees(tmp_path), np.zeros((2, 1, 2, 2), np.float32)
    np.testing.assert_allclose(inference.logits(path, low), [[0.75, 0.25, 0.0]] * 2)
    assert describe(onnx.load(path), path, (1, 2, 2), 0, 1)[0].shape == (1, 4)
    assert read_spec(path, input_shape=(1, 2, 2)).sources["layout"] == "default"


def test_a_tree_ensemble_says_what_it_lacks(tmp_path: Path) -> None:
    assert read_spec(trees(tmp_path)).layout == "NF"
    with pytest.raises(BadModel, match=r"a sequence or a map; .*options=\{'zipmap': False\}"):
        read_spec(trees(tmp_path, zipmap=True), input_shape=(1, 2, 2))


def test_of_labels_only_the_arg_max_leaves_the_source(tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "plain.onnx")
    source = SessionSource(read_spec(tmp_path / "plain.onnx"))
    found = LabelsOnly(source).ask(images(), nothing)
    likely = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(found.argmax(axis=1), source.ask(images(), nothing).argmax(axis=1))
    np.testing.assert_allclose(np.sort(likely, axis=1), [[(1 - SURE) / 3] * 3 + [SURE]] * 5, rtol=1e-5)


@pytest.mark.parametrize("ending", ["softmax", "sigmoid"])
def test_logits_are_recovered_from_what_an_ending_left(ending: str) -> None:
    logits = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32) * 3
    exponents = np.exp(logits)
    scores = exponents / exponents.sum(axis=1, keepdims=True) if ending == "softmax" else exponents / (1 + exponents)
    expected = logits - logits.mean(axis=1, keepdims=True) if ending == "softmax" else logits
    np.testing.assert_allclose(as_logits(scores, ending, "t"), expected, rtol=1e-3, atol=1e-4)  # type: ignore[arg-type]


def test_text_is_no_answer() -> None:
    with pytest.raises(BadModel, match="t: it answers <U1 of shape"):
        checked(np.array([["a", "b"]]), 1, None, "t")


def test_a_fixed_sum_that_half_precision_rounds_is_a_distribution() -> None:
    rounded = np.full((2, 3), 1 / 3).astype(np.float16).astype(np.float32)
    assert np.isfinite(as_logits(rounded, "softmax", "t")).all()
