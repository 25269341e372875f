"""Files that edgekd did not distil, through the command line: what is written, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from calling import Call
from onnx import TensorProto, helper, numpy_helper

from edgekd import onnx_file
from edgekd.inference import agreement, logits


@pytest.fixture
def model(make_classifier):
    return make_classifier(filters=32)


@pytest.fixture
def samples(tmp_path):
    codes = np.random.default_rng(0).integers(0, 256, (400, 1, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "real.npz", images=codes, labels=np.zeros(400))
    return tmp_path / "real.npz"


QUICK = ("--no-measure", "--calibration", "minmax")


def test_any_model_is_quantized_on_real_samples(call: Call, model, samples):
    shown = call("export", model, "--int8", "--samples", samples, *QUICK, "--json")
    assert (shown.code, shown.err) == (0, "")
    record = json.loads(shown.out)
    out = model.with_name("model.int8.onnx")
    assert record["files"]["int8"]["sha256"] == onnx_file.sha256(out)
    assert record["quantization"]["samples"]["count"] == 300  # a quarter is kept to judge by
    assert record["quantization"]["judged_on"] == 100
    assert record == json.loads(out.with_suffix(".json").read_text())
    assert record["coverage"]["reference"] == "real samples"
    images = np.random.default_rng(3).random((50, 1, 8, 8), dtype=np.float32)
    assert agreement(logits(model, images), logits(out, images)) > 0.9
    assert str(model.parent) not in shown.out


def test_equal_inputs_give_equal_bytes(call: Call, model, samples):
    for name in ("a.onnx", "b.onnx"):
        options = ("--calibration", "auto", "--max-drop", "0.1%", "--force", "--no-measure")
        assert call("export", model, "--int8", "--samples", samples, "--out", name, *options).code == 0
    assert model.with_name("a.onnx").read_bytes() == model.with_name("b.onnx").read_bytes()


def test_a_file_in_the_way_is_replaced_only_when_told(call: Call, model, samples):
    model.with_name("model.int8.onnx").write_text("mine")
    refused = call("export", model, "--int8", "--samples", samples, *QUICK)
    assert refused.code == 2
    assert "is there already; name another file, or say --overwrite" in refused.err
    assert model.with_name("model.int8.onnx").read_text() == "mine"
    assert call("export", model, "--int8", "--samples", samples, *QUICK, "--overwrite").code == 0


def test_where_float_is_kept_a_file_of_before_stays_and_that_is_told(call: Call, model, samples, monkeypatch):
    out = model.with_name("model.int8.onnx")
    out.write_text("mine")
    monkeypatch.setattr("edgekd.quantize.delivery.objections", lambda *_: ["it is worse"])
    shown = call("export", model, "--int8", "--samples", samples, *QUICK, "--overwrite", "--json")
    assert shown.code == 0
    assert out.read_text() == "mine"
    record = json.loads(shown.out)
    assert record["files"].keys() == {"float"}
    kept = "int8 on target cpu: it is worse; float is kept; to have it all the same: --force"
    assert record["warnings"] == [kept, "model.int8.onnx is as it was before"]
    assert shown.err.splitlines() == [f"warning: {one}" for one in record["warnings"]]


def test_a_channels_last_model_takes_channels_first_samples(call: Call, make_classifier, samples):
    model = make_classifier("last.onnx", dims=("N", 8, 8, 1), channels_last=True)
    assert call("export", model, "--int8", "--samples", samples, *QUICK).code == 0


def test_a_model_of_uint8_images_is_quantized(call: Call, make_classifier, samples):
    model = make_classifier("bytes.onnx", dtype=TensorProto.UINT8)
    shown = call("export", model, "--int8", "--samples", samples, "--input-range", "0,255", *QUICK, "--json")
    assert shown.code == 0, shown.err
    assert onnx_file.load(model.with_name("bytes.int8.onnx")).graph.input[0].type.tensor_type.elem_type == 2


def test_a_model_that_chooses_nothing_is_judged_by_its_error(call: Call, tmp_path):
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["r"])]
    nodes += [helper.make_node("MatMul", ["r", "v"], ["y"])]
    fixed = {"w": rng.normal(size=(6, 32)), "v": rng.normal(size=(32, 1))}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 6), ("y", 1))]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in fixed.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "r.onnx")
    np.savez(tmp_path / "x.npz", images=rng.normal(size=(200, 6)).astype(np.float32))
    shown = call("export", "r.onnx", "--int8", "--samples", "x.npz", *QUICK, "--json")
    assert shown.code == 0, shown.err
    row = json.loads(shown.out)["proof"]["int8"][1]
    assert (row["agreement_float"], row["sqnr_db"] > 25) == (None, True)


def test_ranges_are_cached_and_refused_for_something_else(call: Call, model, make_classifier, samples):
    command = ("export", model, "--int8", "--samples", samples, "--no-measure", "--calibration-cache", "c.json")
    assert call(*command, "--calibration", "percentile").code == 0
    first = model.with_name("model.int8.onnx").read_bytes()
    assert call(*command, "--calibration", "percentile", "--overwrite").code == 0
    assert model.with_name("model.int8.onnx").read_bytes() == first
    other = call(*command, "--calibration", "mse", "--overwrite")
    assert (other.code, "c.json: it is of another recipe; name another file" in other.err) == (2, True)
    another = call("export", make_classifier("b.onnx", seed=4), *command[2:], "--calibration", "percentile")
    assert (another.code, "it is of another model" in another.err) == (2, True)
    np.savez(samples, images=np.zeros((400, 1, 8, 8), np.uint8))
    moved = call(*command, "--calibration", "percentile", "--overwrite")
    assert (moved.code, "it is of another samples" in moved.err) == (2, True)
    auto = call(*command, "--calibration", "auto", "--overwrite")
    assert (auto.code, "auto tries several recipes" in auto.err) == (2, True)
    model.with_name("c.json").write_text("{}")
    damaged = call(*command, "--calibration", "percentile", "--overwrite")
    assert (damaged.code, "not a calibration cache" in damaged.err) == (2, True)


# ------------------------------------------------------------------------------------------------------- refusals


def refused(call: Call, said: str, *arguments: object, code: int = 2) -> None:
    shown = call(*arguments)
    assert (shown.code, shown.out) == (code, "")
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1
    assert "this is a bug" not in shown.err


def test_samples_are_needed(call: Call, model):
    refused(call, "give --generator RUN, whose generator makes samples, or --samples", "export", model, "--int8")
    refused(call, "a MODEL is made one of them; allowed: --int8 or --fp16", "export", model)


def test_what_belongs_to_a_model_is_refused_of_a_run(call: Call, tmp_path):
    refused(call, "--out", "export", tmp_path, "--int8", "--no-measure", "--out", "x.onnx")


def test_a_quantized_model_given_again(call: Call, model, samples):
    call("export", model, "--int8", "--samples", samples, *QUICK)
    again = ("export", model.with_name("model.int8.onnx"), "--int8", "--samples", samples, *QUICK)
    refused(call, "already quantized (DequantizeLinear, QuantizeLinear)", *again)


def test_a_model_without_anything_to_quantize(call: Call, tmp_path, samples):
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1, 8, 8]) for n in ("image", "logits")]
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["logits"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "b.onnx")
    refused(call, "b.onnx: nothing to quantize", "export", "b.onnx", "--int8", "--samples", samples, *QUICK)


def test_external_data_is_read_and_missing_data_is_told(call: Call, model, samples):
    whole = onnx.load(model)
    onnx.save(whole, model.with_name("ext.onnx"), save_as_external_data=True, location="ext.bin", size_threshold=0)
    assert call("export", "ext.onnx", "--int8", "--samples", samples, *QUICK).code == 0
    assert model.with_name("ext.int8.onnx").stat().st_size > 1000
    model.with_name("ext.bin").unlink()
    refused(
        call, "external data cannot be read", "export", "ext.onnx", "--int8", "--samples", samples, "--out", "o.onnx"
    )


def test_more_than_two_gigabytes(call: Call, model, samples, monkeypatch):
    monkeypatch.setattr("edgekd.onnx_file.MAXIMUM_BYTES", 100)
    refused(call, "larger than 2 GiB", "export", model, "--int8", "--samples", samples, *QUICK)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.full((80, 1, 8, 8), np.nan, np.float32), "80 of 80 hold NaN or infinity; leave them out"),
        (np.zeros((80, 1, 8, 8), np.float64), "images are float64; allowed: uint8 or float32"),
        (np.zeros((80, 3, 9, 9), np.uint8), "images of shape [3, 9, 9] do not fit input 'image'"),
        (np.zeros((5, 1, 8, 8), np.uint8), "4 are too few for recipe minmax; allowed: at least 8"),
        (np.zeros((0, 1, 8, 8), np.uint8), "images have shape [0, 1, 8, 8]"),
        (np.array([None] * 3), "not an .npz, or it holds pickled objects"),
    ],
)
def test_samples_that_will_not_do(call: Call, model, tmp_path, images, said):
    np.savez(tmp_path / "bad.npz", images=images)
    refused(call, said, "export", model, "--int8", "--samples", "bad.npz", *QUICK)
    assert not model.with_name("model.int8.onnx").exists()


def test_no_such_samples(call: Call, model):
    refused(call, "none.npz: no such file", "export", model, "--int8", "--samples", "none.npz", *QUICK)


def test_a_target_that_forbids_int8(call: Call, model, samples):
    refused(
        call,
        "--int8: not for target coreml: CoreML runs no QuantizeLinear",
        *("export", model, "--int8", "--target", "coreml", "--samples", samples),
    )


def test_an_opset_above_the_ceiling(call: Call, model, samples, tmp_path):
    (tmp_path / "old.toml").write_text('schema = 1\ntitle = "Old"\n[model]\nopset = 13\n')
    command = ("export", model, "--int8", "--target", "old.toml", "--samples", samples, *QUICK)
    refused(call, "opset 18 is above the target's; allowed: up to 13; export it again with a lower opset", *command)


@pytest.mark.parametrize("value", ["much", "300%"])
def test_a_drop_that_is_none(call: Call, model, samples, value):
    refused(call, "--max-drop", "export", model, "--int8", "--samples", samples, "--max-drop", value)


def test_an_old_opset_is_raised_for_scales_per_channel(call: Call, tmp_path, samples):
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("Conv", ["image", "k"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["p"])]
    nodes += [helper.make_node("Flatten", ["p"], ["logits"])]
    ends = [
        helper.make_tensor_value_info("image", 1, ["N", 1, 8, 8]),
        helper.make_tensor_value_info("logits", 1, ["N", 4]),
    ]
    kernel = numpy_helper.from_array(rng.normal(size=(4, 1, 3, 3)).astype(np.float32), "k")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [kernel])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), tmp_path / "o.onnx")
    shown = call("export", "o.onnx", "--int8", "--samples", samples, *QUICK)
    assert shown.code == 0, shown.err
    assert onnx_file.opset(onnx_file.load(tmp_path / "o.int8.onnx")) >= 13
