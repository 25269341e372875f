"""What `inspect` says of files, teachers or not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_teacher import classifier

from edgekd import inspect as inspection
from edgekd.errors import BadModel
from edgekd.inspect import inspect_model, rows
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.spec import read_spec

Make = Callable[..., Path]
EXAMPLE = Path(__file__).parents[2] / "examples" / "teacher.onnx"


def test_the_example_teacher(make_classifier: Make) -> None:
    found = inspect_model(EXAMPLE)
    assert found.teacher is not None
    assert (found.teacher.classes, found.teacher.batch, found.teacher.range) == (10, None, (0.0, 1.0))
    assert (found.statistics.survive, found.statistics.layers, found.endings) == (True, 7, {"logits": "logits"})
    assert found.macs is not None
    assert found.macs > 10**7
    assert found.inputs[0].shape == ["N", 1, 28, 28]
    assert found.problems == []


def test_folded_statistics_are_told_with_their_cure(make_classifier: Make) -> None:
    found = inspect_model(make_classifier())
    assert (found.statistics.survive, found.statistics.layers, found.statistics.folded) == (False, 0, 1)
    assert "1 layer output looks like folded" in found.statistics.note
    assert "dynamo=True, optimize=False" in found.statistics.note
    assert found.parameters == 8 * 9 + 8 + 8 * 4 + 4


def test_a_file_that_is_no_teacher_is_described_with_the_reason(make_classifier: Make) -> None:
    path = make_classifier(dtype=TensorProto.INT32)
    found = inspect_model(path)
    assert found.teacher is None
    assert found.inputs[0].type == "int32"
    assert found.problems == [
        "input 'image' is int32; allowed: float32 or uint8 images, int64 or int32 token ids [N,T]; "
        "export it with a float32 input"
    ]
    assert {access.possible for access in found.access.values()} == {False}


def test_a_free_size_is_a_problem_until_it_is_stated(make_classifier: Make) -> None:
    path = make_classifier(dims=("N", 1, "H", "W"))
    assert "--input-shape" in inspect_model(path).problems[0]
    found = inspect_model(path, input_shape=(1, 12, 12))
    assert found.teacher is not None
    assert (found.teacher.height, found.problems, found.macs) == (12, [], 8 * 9 * 144 + 32)


def test_a_sequence_is_shown_as_one(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 4, 4])
    out = helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("SequenceConstruct", ["image"], ["list"])], "g", [image], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "s.onnx")
    found = inspect_model(tmp_path / "s.onnx")
    assert found.outputs[0].type == "sequence"
    assert found.problems[0].startswith("an output is a sequence or a map")


def test_without_torch_the_gradient_is_unknown(make_classifier: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "find_spec", lambda name: None)
    found = inspect_model(make_classifier())
    assert found.access["gradient"].possible is None
    assert "edgekd[distill]" in found.access["gradient"].why
    assert found.access["scores"].possible


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="asks the importer")
def test_operators_without_a_gradient_are_listed(tmp_path: Path, make_classifier: Make) -> None:
    model = onnx.load(make_classifier())
    model.graph.node[0].op_type, model.graph.node[0].name = "NonZeroish", "odd"
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "odd.onnx")
    found = inspect_model(tmp_path / "odd.onnx")
    assert found.access["gradient"].possible is False
    assert "NonZeroish (odd)" in found.access["gradient"].why
    assert found.access["scores"].possible is False


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="imports the graph")
def test_a_gradient_is_promised_only_where_the_import_works(tmp_path: Path, make_classifier: Make) -> None:
    """Every operator is known, but the graph works on its fixed batch only."""
    model = onnx.load(make_classifier(dims=(2, 1, 8, 8)))
    model.graph.node[-1].input[0] = "swapped"
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Gather", ["f", "order"], ["swapped"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0]), "order"))
    onnx.save(model, tmp_path / "fixed.onnx")
    found = inspect_model(tmp_path / "fixed.onnx")
    with pytest.raises(BadModel) as raised:
        GraphTeacher(read_spec(tmp_path / "fixed.onnx"))
    assert found.access["gradient"].possible is False
    assert str(raised.value).endswith(found.access["gradient"].why)
    assert found.access["scores"].possible


def test_statistics_are_counted_as_distilling_counts_them(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node[1].input[4] = "computed"
    model.graph.node.insert(1, helper.make_node("Abs", ["variance"], ["computed"]))
    onnx.save(model, tmp_path / "computed.onnx")
    found = inspect_model(tmp_path / "computed.onnx").statistics
    assert (found.layers, found.survive) == (1, False)
    assert "not stored as plain tensors" in found.note
    onnx.save(classifier(), tmp_path / "kept.onnx")
    assert inspect_model(tmp_path / "kept.onnx").statistics.survive
    assert read_spec(tmp_path / "computed.onnx").statistics_points == ()


def test_a_network_that_never_had_batch_normalization(make_picker: Make) -> None:
    found = inspect_model(make_picker()).statistics
    assert (found.survive, found.folded) == (False, 0)
    assert found.note.endswith("nothing looks like a folded one")


def test_the_table_has_every_fact(make_classifier: Make) -> None:
    shown: dict[str, Any] = dict(rows(inspect_model(EXAMPLE)))
    assert shown["range"] == "[0, 1] (graph)"
    assert shown["input"] == "image float32 [N,1,28,28]"
    assert shown["gradient"].startswith("yes")
    assert dict(rows(inspect_model(make_classifier(dtype=TensorProto.INT32))))["scores"].startswith("no: input 'image'")


def test_no_onnx_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a model at all")
    with pytest.raises(BadModel, match="not an ONNX file"):
        inspect_model(tmp_path / "x.onnx")
