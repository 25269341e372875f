"""Verdicts, each provoked by a model that deserves it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.compatibility import check
from edgekd.devices import Quantization, Target, load_recipe, load_target
from edgekd.errors import BadModel
from edgekd.quantize import quantized


def target(**parts):
    return Target.model_validate({"schema": 1, "name": "t", "title": "t", **parts})


def answers(path, device):
    verdict = check(path, device)
    return verdict.verdict, {one.about: (one.answer, one.reason) for one in verdict.findings}


def test_a_plain_model_is_taken_by_the_cpu(make_classifier):
    assert answers(make_classifier(), load_target("cpu"))[0] == "yes"


@pytest.mark.parametrize(
    ("limits", "about", "answer", "reason"),
    [
        ({"opset": 17}, "opset", "no", "it has opset 18, the target reads up to 17"),
        ({"ir_version": 9}, "IR version", "no", "it has IR version 10, the target reads up to 9"),
        ({"denied_operators": ["Gemm", "Loop"]}, "operators", "no", "the target does not run Gemm"),
        ({"static_shapes": True}, "shapes", "maybe", "has a free batch; edgekd export --target t fixes it to 1"),
        ({"max_rank": 3}, "rank", "maybe", "tensors have more than 3 dimensions"),
    ],
)
def test_limits_of_the_target(make_classifier, limits, about, answer, reason):
    verdict, found = answers(make_classifier(), target(model=limits))
    assert verdict == answer
    assert found[about][0] == answer
    assert reason in found[about][1]


def test_free_sizes_are_not_for_static_targets(make_classifier):
    path = make_classifier(dims=("N", 1, "h", "w"))
    verdict, found = answers(path, load_target("nnapi"))
    assert (verdict, found["shapes"][0]) == ("no", "no")


def test_coreml_runs_no_quantized_model(make_classifier, tmp_path):
    source = make_classifier()
    images = np.random.default_rng(0).random((64, 1, 8, 8), dtype=np.float32)
    options = {"recipe": load_recipe("minmax"), "metadata": {}}
    quantized(source, tmp_path / "q.onnx", images, quantization=Quantization(), **options)
    verdict, found = answers(tmp_path / "q.onnx", load_target("coreml"))
    assert verdict == "no"
    assert "QuantizeLinear" in found["quantization"][1]
    assert found["partitions"][0] == "no"
    assert "unsupported: " in found["partitions"][1]
    verdict, found = answers(tmp_path / "q.onnx", load_target("nnapi"))
    assert found["partitions"][0] == "yes"
    verdict, found = answers(tmp_path / "q.onnx", load_target("tensorrt"))
    assert (verdict, found["quantization"][1]) == ("no", "zero points other than 0, the target takes 0 alone")
    verdict, found = answers(tmp_path / "q.onnx", load_target("arm-dotprod"))
    assert (verdict, found["quantization"][1]) == ("maybe", "its activations are uint8, the target wants int8")


def test_what_no_runtime_knows_is_refused(tmp_path):
    node = helper.make_node("Wobble", ["image"], ["logits"], domain="my.own")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("image", "logits")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "w.onnx")
    verdict, found = answers(tmp_path / "w.onnx", load_target("cpu"))
    assert verdict == "no"
    assert found["operators"][1] == "no runtime knows my.own.Wobble"
    assert found["loading"][0] == "no"


def test_doubles_are_told(tmp_path):
    nodes = [helper.make_node("Cast", ["image"], ["d"], to=TensorProto.DOUBLE)]
    nodes += [helper.make_node("MatMul", ["d", "w"], ["e"]), helper.make_node("Cast", ["e"], ["logits"], to=1)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("image", "logits")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(np.eye(4), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "d.onnx")
    verdict, found = answers(tmp_path / "d.onnx", load_target("cpu"))
    assert (verdict, found["types"][0]) == ("maybe", "maybe")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(BadModel):
        check(tmp_path / "x.onnx", load_target("cpu"))


def test_the_command_answers_with_a_table_json_and_an_exit_code(call, make_classifier):
    path = make_classifier()
    shown = call("check", path, "--target", "nnapi")
    assert shown.code == 0
    assert shown.out.splitlines()[-1].split() == ["maybe", "verdict", "model.onnx", "on", "nnapi"]
    record = json.loads(call("check", path, "--target", "nnapi", "--json").out)
    assert (record["schema"], record["verdict"]) == ("edgekd.check/1", "maybe")
    assert record["partitions"]["suitability"] == "yes"
    (path.parent / "old.toml").write_text('schema = 1\ntitle = "Old"\n[model]\nopset = 13\n')
    assert call("check", path, "--target", path.parent / "old.toml").code == 1
