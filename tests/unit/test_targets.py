"""Every shipped target: a network is exported for it, and the file is what its file promises."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from calling import Call
from onnx import TensorProto, helper, numpy_helper

from edgekd import onnx_file, shipped
from edgekd.compatibility import check
from edgekd.devices import Target, load_recipe, load_target
from edgekd.errors import BadSetting
from edgekd.inference import agreement, logits, open_session
from edgekd.quantize import Held, Order, Stored, deliver, require_precision
from edgekd.quantize.insertion import narrow

RECIPE = load_recipe("minmax")
INT8 = [name for name in shipped.names("targets") if not load_target(name).quantization.int8_refused]
CHANNELS = 4
WIDE = {"channels": CHANNELS, "dims": ("N", CHANNELS, 8, 8)}
"""A network of which no target leaves a layer in float for reading few channels."""
TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "uint16": TensorProto.UINT16}


def images(count=64, seed=0):
    return np.random.default_rng(seed).random((count, CHANNELS, 8, 8), dtype=np.float32)


def delivered(source, name, precision="int8"):
    target = load_target(name)
    out = source.with_name(f"{target.name}-{precision}.onnx")
    held = Held(Stored(images(40, 1)))
    order = Order(target, precision, held, recipe=RECIPE, calibration=Stored(images()))
    return out, deliver(source, out, order), target


def zero_points(model):
    fixed = {tensor.name: tensor for tensor in model.graph.initializer}
    return [fixed[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]


def test_the_targets_of_the_house_ship():
    assert set(shipped.names("targets")) >= {
        *["cpu", "x86-vnni", "x86-avx2", "arm-dotprod", "raspberry-pi-4", "raspberry-pi-5", "android-cpu", "xnnpack"],
        *["nnapi", "qnn-htp", "qnn-htp-a16", "coreml", "openvino", "tensorrt", "web-wasm", "web-webgpu"],
    }
    for name in shipped.names("targets"):
        assert (shipped.folder("targets") / f"{name}.toml").read_text().count("#") >= 3, f"{name} names no sources"


@pytest.mark.parametrize("name", INT8)
def test_int8_for_a_target_is_of_its_flavour_loads_and_agrees(make_classifier, name):
    source = make_classifier(filters=16, **WIDE)
    path, delivery, target = delivered(source, name)
    model, flavour = onnx_file.load(path), target.quantization
    zeros = zero_points(model)
    assert {tensor.data_type for tensor in zeros} == {TYPES[flavour.activation]}
    if flavour.activation_symmetric:
        assert not any(numpy_helper.to_array(tensor).any() for tensor in zeros)
    fixed = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert fixed["kernel_scale"].size == (16 if flavour.per_channel else 1)
    assert fixed["kernel_quantized"].dtype == np.dtype(flavour.weight)
    dense = fixed["dense_scale"].size
    assert dense == (4 if flavour.per_channel and not flavour.per_channel_operators else 1)
    assert ("bias_quantized" in fixed) == flavour.quantize_bias
    reduced = np.abs(fixed["kernel_quantized"].astype(int)).max() <= 64
    assert reduced == flavour.reduce_range
    assert onnx_file.dimensions(model.graph.input[0])[0] == (1 if target.model.static_shapes else None)
    assert onnx_file.opset(model) <= target.model.highest_opset
    assert model.ir_version <= target.model.ir_version
    assert agreement(logits(source, images(40, 2)), logits(path, images(40, 2))) >= 0.9
    assert (path.with_suffix(".ort").is_file()) == (target.model.ort_format != "none")
    assert delivery.warnings == []
    assert check(path, target).verdict == "yes"


@pytest.mark.parametrize("name", ["android-cpu", "nnapi"])
def test_the_ort_file_answers_as_the_onnx_file(make_classifier, name):
    path, delivery, _ = delivered(make_classifier(**WIDE), name)
    one = images(1, 5)
    found = [open_session(file).run(None, {"image": one})[0] for file in (path, path.with_suffix(".ort"))]
    np.testing.assert_allclose(found[0], found[1], atol=0.02 * np.abs(found[0]).max())
    assert delivery.files("m")["m_ort"]["sha256"] == onnx_file.sha256(path.with_suffix(".ort"))


@pytest.mark.parametrize("name", sorted(set(shipped.names("targets")) - set(INT8)))
def test_a_target_that_refuses_int8_says_why_and_takes_half_precision(make_classifier, name):
    with pytest.raises(BadSetting, match=rf"--int8: not for target {name}: .*; allowed: edgekd export --fp16"):
        delivered(make_classifier(**WIDE), name)
    path, _, target = delivered(make_classifier(**WIDE), name, "fp16")
    model = onnx_file.load(path)
    assert {t.data_type for t in model.graph.initializer} >= {TensorProto.FLOAT16}
    assert agreement(logits(make_classifier(**WIDE), images(40, 2)), logits(path, images(40, 2))) == 1.0
    assert check(path, target).verdict != "no"  # maybe: CoreML knows no Flatten


def test_a_raspberry_pi_4_is_none_for_half_precision():
    with pytest.raises(BadSetting, match="--fp16: not for target raspberry-pi-4: a Cortex-A72 has no half-precision"):
        require_precision(load_target("raspberry-pi-4"), "fp16")


@pytest.mark.parametrize(("name", "left"), [("cpu", True), ("x86-vnni", True), ("arm-dotprod", False)])
def test_a_first_layer_of_few_channels_stays_in_float_where_that_is_quicker(make_classifier, name, left):
    source = make_classifier(channels=3, dims=("N", 3, 8, 8))
    target = load_target(name)
    samples = Stored(np.random.default_rng(0).random((64, 3, 8, 8), dtype=np.float32))
    out = source.with_name("narrow.onnx")
    record = deliver(source, out, Order(target, "int8", Held(samples), recipe=RECIPE, calibration=samples)).quantization
    operators = {one["operator"]: one["reason"] for one in record["float_reasons"]}
    assert ("Conv" in operators) == left
    if left:
        assert operators["Conv"] == "quicker so: it reads fewer than 4 channels"
    assert "Gemm" not in operators


def test_a_network_of_nothing_else_is_quantized_all_the_same():
    """A lone convolution of one channel: left in float nothing would be INT8."""
    entry, leaving = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y"))
    weight = numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "only")
    model = helper.make_model(helper.make_graph([node], "g", [entry], [leaving], [weight]))
    assert narrow(model, load_target("cpu").quantization) == set()


def test_operators_that_a_target_leaves_in_float_stay_so(make_classifier, tmp_path):
    (tmp_path / "own.toml").write_text('schema = 1\ntitle = "Mine"\n[quantization]\nfloat_operators = ["Gemm"]\n')
    path, delivery, _ = delivered(make_classifier(**WIDE), str(tmp_path / "own.toml"))
    assert delivery.quantization["float_nodes"]["Gemm"] == 1
    told = {one["operator"]: one["reason"] for one in delivery.quantization["float_reasons"]}
    assert told["Gemm"] == "the target leaves it in float"
    assert "dense_quantized" not in {t.name for t in onnx.load(path).graph.initializer}


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ('[quantization]\nprecision = "int8"\nint8_refused = "no"', "precision is int8, which int8_refused says"),
        ("[model]\nopset = 18\nopset_ceiling = 17", "opset_ceiling must not be below opset"),
        ('[quantization]\nactivation = "float8"', "quantization.activation"),
        ('[quantization]\nper_channel = false\nper_channel_operators = ["Conv"]', "set only with per_channel"),
        ('[machine]\narchitecture = "vax"', "machine.architecture"),
    ],
)
def test_a_wrong_target_of_the_users_own_is_refused(tmp_path, lines, match):
    (tmp_path / "own.toml").write_text(f'schema = 1\ntitle = "Mine"\n{lines}\n')
    with pytest.raises(BadSetting, match=match):
        load_target(str(tmp_path / "own.toml"))


def test_the_schemas_describe_what_ships(call: Call):
    shown = call("targets", "schema")
    assert (shown.code, shown.err) == (0, "")
    schema = json.loads(shown.out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]) == {field.alias or name for name, field in Target.model_fields.items()}
    for name in shipped.names("targets"):
        assert shipped.read_toml(shipped.find("targets", name)).keys() <= schema["properties"].keys()
    recipe = json.loads(call("calibration", "schema").out)
    assert recipe["properties"]["method"]["enum"] == ["minmax", "moving-average", "percentile", "entropy", "mse"]
