"""The dense representation and the layer behind it, as the graph has them."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_teacher import classifier
from torch.nn import functional

from edgekd.errors import BadModel
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.last_layer import last_layer, with_representation
from edgekd.teachers.spec import read_spec


def opened(path, told=None):
    return GraphTeacher(with_representation(read_spec(path), told))


def built(path, nodes, weights, answer, shape=(2, 6, 6)):
    """A model of the nodes, `image` to `logits`."""
    graph = helper.make_graph(
        nodes,
        "built",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", *answer])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


RANDOM = np.random.default_rng(0)
IMAGES = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def floats(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def dense(path, after=(), **more):
    weights = {"w": floats(72, 5), "last": floats(5, 3), "bias": floats(3), **more}
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["rectified"]),
        helper.make_node("MatMul", ["rectified", "last"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits" if not after else "sum"]),
        *after,
    ]
    return built(path, nodes, weights, (3,))


def test_the_layer_makes_the_teacher_s_logits_of_its_features(tmp_path):
    onnx.save(classifier(), tmp_path / "t.onnx")
    teacher = opened(tmp_path / "t.onnx")
    layer, answer = last_layer(teacher), teacher(torch.rand(4, 1, 12, 12))
    assert layer.rectified  # pooled behind a ReLU
    torch.testing.assert_close(functional.linear(answer.features, layer.weight, layer.bias), answer.logits)


def test_all_that_is_affine_behind_the_product_belongs_to_the_layer(tmp_path):
    after = [helper.make_node("Mul", ["sum", "scale"], ["logits"])]
    teacher = opened(dense(tmp_path / "t.onnx", after, scale=floats(3)))
    assert teacher.spec.features_name == "rectified"
    layer, answer = last_layer(teacher), teacher(IMAGES)
    assert layer.rectified
    torch.testing.assert_close(functional.linear(answer.features, layer.weight, layer.bias), answer.logits)


def test_a_tensor_before_the_relu_may_be_named(tmp_path):
    teacher = opened(dense(tmp_path / "t.onnx"), "hidden")
    layer, answer = last_layer(teacher), teacher(IMAGES)
    assert layer.rectified
    assert answer.features.min() < 0
    found = functional.linear(answer.features.relu(), layer.weight, layer.bias)
    torch.testing.assert_close(found, answer.logits)


def test_the_order_of_classes_is_the_teacher_s(tmp_path):
    teacher = opened(dense(tmp_path / "t.onnx"))
    teacher.order = [2, 0, 1]
    layer, answer = last_layer(teacher), teacher(IMAGES)
    torch.testing.assert_close(functional.linear(answer.features, layer.weight, layer.bias), answer.logits)


def pixels(path, resized=False, kernel=3):
    weights = {"w": floats(4, 2, 3, 3), "last": floats(3, 4, kernel, kernel), "bias": floats(3)}
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["map"], pads=[1, 1, 1, 1], strides=[2, 2] if resized else [1, 1]),
        helper.make_node("Conv", ["map", "last", "bias"], ["small" if resized else "logits"], pads=pads),
    ]
    if resized:
        weights["sizes"] = np.array([1, 1, 2, 2], np.float32)
        nodes.append(helper.make_node("Resize", ["small", "", "sizes"], ["logits"], mode="linear"))
    return built(path, nodes, weights, (3, 6, 6))


@pytest.mark.parametrize(("resized", "kernel"), [(False, 1), (False, 3), (True, 3)])
def test_of_pixels_it_is_the_last_convolution(tmp_path, resized, kernel):
    teacher = opened(pixels(tmp_path / "t.onnx", resized, kernel))
    layer, answer = last_layer(teacher), teacher(IMAGES)
    side = 3 if resized else 6
    assert layer.grid == (side, side)
    assert not layer.rectified
    assert answer.features.shape == (3, 4, side, side)
    found = functional.conv2d(answer.features, layer.weight, layer.bias, padding=kernel // 2)
    found = functional.interpolate(found, size=(6, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, answer.logits, rtol=1e-4, atol=1e-4)


def test_what_is_more_than_a_layer_is_refused(tmp_path):
    teacher = opened(dense(tmp_path / "t.onnx"), "f")
    with pytest.raises(BadModel, match=r"t\.onnx: what lies behind 'f' is more than one layer .*--representation"):
        last_layer(teacher)


def test_a_tensor_that_is_not_all_is_refused(tmp_path):
    after = [
        helper.make_node("MatMul", ["f", "side"], ["beside"]),
        helper.make_node("Add", ["sum", "beside"], ["logits"]),
    ]
    teacher = opened(dense(tmp_path / "t.onnx", after, side=floats(72, 3)), "rectified")
    with pytest.raises(BadModel, match="does not depend on 'rectified' alone, but on 'image' as well"):
        last_layer(teacher)


def test_an_unknown_tensor_is_refused(tmp_path):
    with pytest.raises(BadModel, match="it has no tensor 'nothing'"):
        opened(dense(tmp_path / "t.onnx"), "nothing")


def test_a_graph_without_a_dense_layer_is_refused(tmp_path):
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    path = built(tmp_path / "t.onnx", nodes, {"w": floats(3, 2, 3, 3)}, (3,))
    with pytest.raises(BadModel, match=r"t\.onnx: no last dense layer found, .*--representation TENSOR"):
        opened(path)


def test_a_teacher_without_features_is_refused(tmp_path):
    teacher = GraphTeacher(replace(read_spec(dense(tmp_path / "t.onnx")), features_name=None))
    with pytest.raises(BadModel, match=r"it shows none; allowed: ONNX files with --access gradient"):
        last_layer(teacher)
