from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static

from edgekd import onnx_file, shipped
from edgekd.devices import CalibrationRecipe, Quantization, load_recipe
from edgekd.errors import BadData, BadModel, EdgekdError
from edgekd.inference import agreement, logits
from edgekd.quantize import quantized

MINMAX = load_recipe("minmax")


@pytest.fixture
def samples():
    return np.random.default_rng(1).random((40, 1, 8, 8), dtype=np.float32)


def int8(source, samples, *, out="int8.onnx", quantization=None, recipe=MINMAX, metadata=None):
    path = source.parent / out
    flavour = quantization or Quantization()
    record = quantized(source, path, samples, quantization=flavour, recipe=recipe, metadata=metadata or {}).record
    return path, record


def weights(path):
    """Element type of every initializer that is a weight or a bias: those a DequantizeLinear reads."""
    model = onnx.load(path)
    fixed = {tensor.name: tensor for tensor in model.graph.initializer}
    read = [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    return {name: numpy_helper.to_array(fixed[name]) for name in read if name in fixed}


def entrance(path):
    """Scale and zero point with which the image is quantized."""
    model = onnx.load(path)
    fixed = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    return fixed[node.input[1]], fixed[node.input[2]]


@pytest.mark.parametrize("name", shipped.names("calibration"))
def test_every_shipped_recipe_keeps_the_answers(make_classifier, name):
    source = make_classifier()
    images = np.random.default_rng(2).random((64, 1, 8, 8), dtype=np.float32)
    path, record = int8(source, images, recipe=load_recipe(name))
    expected = logits(source, images)
    assert agreement(logits(path, images), expected) >= 0.9
    assert np.abs(logits(path, images) - expected).max() < 0.1 * np.abs(expected).max()
    assert record["recipe"]["method"] == name


def test_it_equals_quantize_static(make_classifier, samples, tmp_path):
    """ONNX Runtime's own one-call path, all samples at once, is the outside truth for nodes, ranges and weights."""

    class AtOnce(CalibrationDataReader):
        feeds = iter([{"image": samples}])

        def get_next(self):
            return next(self.feeds, None)

    source = make_classifier()
    quant_pre_process(source, tmp_path / "prepared.onnx", skip_symbolic_shape=True)
    quantize_static(
        tmp_path / "prepared.onnx",
        tmp_path / "expected.onnx",
        AtOnce(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    ours, theirs = onnx.load(int8(source, samples)[0]).graph, onnx.load(tmp_path / "expected.onnx").graph
    told = [[(n.op_type, list(n.input), list(n.output)) for n in graph.node] for graph in (ours, theirs)]
    assert told[0] == told[1]
    arrays = [{t.name: numpy_helper.to_array(t) for t in graph.initializer} for graph in (ours, theirs)]
    assert arrays[0].keys() == arrays[1].keys()
    for name, value in arrays[0].items():
        np.testing.assert_array_equal(value, arrays[1][name])


def test_the_default_flavour_is_u8s8_per_channel_with_int32_biases(make_classifier, samples):
    path, _ = int8(make_classifier(), samples)
    stored = weights(path)
    assert stored["kernel_quantized"].dtype == stored["dense_quantized"].dtype == np.int8
    assert stored["bias_quantized"].dtype == stored["offset_quantized"].dtype == np.int32
    fixed = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    assert entrance(path)[1].dtype == np.uint8
    assert fixed["kernel_scale"].shape == (8,)
    assert not fixed["kernel_zero_point"].any()
    assert "Relu" not in {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (Quantization(per_channel=False), {"scales": 1}),
        (Quantization(reduce_range=True), {"largest": 64}),
        (Quantization(activation="int8"), {"activation": np.int8}),
        (Quantization(activation="int8", activation_symmetric=True), {"activation": np.int8, "zero": 0}),
    ],
)
def test_the_flavour_comes_from_the_target(make_classifier, samples, quantization, expected):
    path, record = int8(make_classifier(), samples, quantization=quantization)
    fixed = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    found = {
        "scales": fixed["kernel_scale"].size,
        "largest": int(np.abs(fixed["kernel_quantized"].astype(int)).max()),
        "activation": entrance(path)[1].dtype,
        "zero": int(entrance(path)[1]),
    }
    assert {key: found[key] for key in expected} == expected
    told = quantization.model_dump(mode="json", exclude={"precision", "int8_refused", "fp16_refused"})
    assert record["flavour"] == {"format": "QDQ", **told}


def test_percentile_cuts_an_outlier_that_minmax_keeps(make_classifier):
    images = np.random.default_rng(3).random((64, 1, 8, 8), dtype=np.float32)
    images[5, 0, 0, 0] = 50
    scales = {}
    recipe = CalibrationRecipe(schema=1, name="cut", title="", method="percentile", percentile=99.0, bins=4096)
    for one in (MINMAX, recipe):
        path, _ = int8(make_classifier(), images, out=f"{one.name}.onnx", recipe=one)
        scales[one.name] = float(entrance(path)[0])
    assert scales["minmax"] == pytest.approx(50 / 255)
    assert scales["cut"] == pytest.approx(1 / 255, rel=0.05)


def test_equal_inputs_give_equal_bytes_in_any_process(make_classifier, samples, tmp_path):
    source = make_classifier()
    np.save(tmp_path / "samples.npy", samples)
    code = (
        "import sys, numpy; from pathlib import Path; from edgekd.devices import Quantization, load_recipe;"
        "from edgekd.quantize import quantized; source, samples, out = map(Path, sys.argv[1:]);"
        "options = dict(quantization=Quantization(), recipe=load_recipe('minmax'), metadata={});"
        "quantized(source, out, numpy.load(samples), **options)"
    )
    for seed in ("1", "2"):
        arguments = [str(source), str(tmp_path / "samples.npy"), str(tmp_path / f"{seed}.onnx")]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == done.stderr == ""
    here, _ = int8(source, samples)
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes() == here.read_bytes()


def test_the_file_says_what_it_was_made_from(make_classifier, samples):
    source = make_classifier()
    path, record = int8(source, samples, metadata={"edgekd.target": "cpu", "edgekd.teacher.sha256": "ab"})
    model = onnx.load(path)
    notes = onnx_file.metadata(model)
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    assert notes["edgekd.target"] == "cpu"
    assert notes["edgekd.teacher.sha256"] == "ab"
    assert notes["edgekd.float.sha256"] == onnx_file.sha256(source)
    assert notes["edgekd.calibration.samples"] == f"40 sha256:{digest}"
    assert json.loads(notes["edgekd.calibration"])["method"] == "minmax"
    assert json.loads(notes["edgekd.quantization"])["per_channel"] is True
    assert record["sha256"] == onnx_file.sha256(path)
    assert record["bytes"] == path.stat().st_size
    assert record["samples"] == {"count": 40, "sha256": digest}
    assert model.ir_version == 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_nodes_left_in_float_are_counted(tmp_path, samples):
    """ONNX Runtime has no INT8 Softplus; the Gemm's weights are quantized all the same."""
    nodes = [
        helper.make_node("Softplus", ["image"], ["s"]),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["logits"]),
    ]
    weight = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    source = save(tmp_path / "soft.onnx", nodes, {"w": weight})
    assert int8(source, samples)[1]["float_nodes"] == {"Flatten": 1, "Softplus": 1}


def test_nothing_is_printed_or_logged_and_logging_is_as_before(make_classifier, samples, capfd):
    before = logging.root.manager.disable, list(logging.root.handlers)
    percentile = load_recipe("percentile").model_copy(update={"minimum": 8})
    int8(make_classifier(), samples, recipe=percentile)
    assert capfd.readouterr() == ("", "")
    assert (logging.root.manager.disable, list(logging.root.handlers)) == before


def test_a_fixed_batch_is_fed_whole_batches(make_classifier, samples):
    path, record = int8(make_classifier(dims=(3, 1, 8, 8)), samples)
    assert record["samples"]["count"] == 40
    assert logits(path, samples).shape == (40, 4)


# ------------------------------------------------------------------------------------------------- refusals


def save(path, nodes, fixed, *, entries=("image",), leaving=("N", 4)):
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 8, 8]) for name in entries]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, leaving)
    tensors = [numpy_helper.from_array(value, name) for name, value in fixed.items()]
    graph = helper.make_graph(nodes, "g", inputs, [logits], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def refused(source, samples, error, match, **options):
    with pytest.raises(error, match=match) as caught:
        int8(source, samples, **options)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in source.parent.iterdir() if "int8" in path.name) == []


def test_a_quantized_model_is_refused(make_classifier, samples):
    path, _ = int8(make_classifier(), samples, out="once.onnx")
    refused(path, samples, BadModel, r"once.onnx: already quantized \(DequantizeLinear, QuantizeLinear\)")


def test_a_model_without_weights_is_refused(tmp_path, samples):
    source = save(tmp_path / "bare.onnx", [helper.make_node("Relu", ["image"], ["logits"])], {}, leaving=("N", 1, 8, 8))
    refused(source, samples, BadModel, r"bare.onnx: nothing to quantize; allowed: .*Conv, ConvTranspose, Gemm, MatMul")


def test_two_inputs_are_refused(tmp_path, samples):
    nodes = [helper.make_node("Add", ["image", "second"], ["a"]), helper.make_node("Conv", ["a", "k"], ["logits"])]
    fixed = {"k": np.ones((1, 1, 1, 1), np.float32)}
    source = save(tmp_path / "two.onnx", nodes, fixed, entries=("image", "second"), leaving=("N", 1, 8, 8))
    refused(source, samples, BadModel, "its inputs are image, second; allowed: one input, a float32 or uint8")


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(make_classifier, samples, poison):
    samples[[3, 7], 0, 1, 1] = poison
    refused(make_classifier(), samples, BadData, "2 of 40 hold NaN or infinity")


@pytest.mark.parametrize(("count", "recipe", "least"), [(7, "minmax", 8), (40, "percentile", 64), (0, "minmax", 8)])
def test_too_few_samples_are_refused(make_classifier, samples, count, recipe, least):
    match = f"{count} are too few for recipe {recipe}; allowed: at least {least}"
    refused(make_classifier(), samples[:count], BadData, match, recipe=load_recipe(recipe))


def test_fewer_samples_than_a_fixed_batch_are_refused(make_classifier, samples):
    refused(make_classifier(dims=(64, 1, 8, 8)), samples, BadData, "40 are too few .* at least 64")


@pytest.mark.parametrize(
    ("change", "match"),
    [(lambda s: s[:, :, :7], r"shape \[1, 7, 8\] does not fit"), (lambda s: s.astype(np.float64), "dtype float64")],
)
def test_samples_that_do_not_fit_are_refused(make_classifier, samples, change, match):
    refused(make_classifier(), change(samples), BadData, match)


def test_a_failure_inside_onnx_runtime_is_one_line_and_leaves_nothing(make_classifier, samples, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("edgekd.quantize.search.inserted", failing)
    refused(make_classifier(), samples, EdgekdError, "ONNX Runtime cannot quantize it: first$")


def test_a_full_disk_is_one_line(make_classifier, samples, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    refused(make_classifier(), samples, EdgekdError, "temporary files cannot be written: No such file")


def test_an_older_result_survives_a_failure(make_classifier, samples):
    source = make_classifier()
    path, _ = int8(source, samples)
    before = path.read_bytes()
    with pytest.raises(BadData):
        int8(source, samples[:1])
    assert path.read_bytes() == before
    assert Counter(p.name for p in source.parent.iterdir()) == Counter(["model.onnx", "int8.onnx"])
