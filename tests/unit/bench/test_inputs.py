from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from edgekd.bench.inputs import InputSpec, describe
from edgekd.errors import BadModel


def described(path, input_shape=None):
    return describe(onnx.load(path), path, input_shape, -1, 1)


def identity(path, value, kind=None):
    """One Identity node from `value` to an output of the same type."""
    output = onnx.ValueInfoProto(name="out", type=value.type)
    node = helper.make_node("Identity", [value.name], ["out"])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [value], [output])), path)
    return path


def test_a_free_batch_is_one(make_classifier):
    assert described(make_classifier()) == [InputSpec("image", (1, 1, 8, 8), "float32", -1, 1)]


def test_a_fixed_batch_is_kept(make_classifier):
    assert described(make_classifier(dims=(3, 1, 8, 8)))[0].shape == (3, 1, 8, 8)


@pytest.mark.parametrize("dims", [("N", 1, "H", "W"), ("N", 1, 0, 0)])
def test_free_or_zero_sides_need_a_shape(make_classifier, dims):
    path = make_classifier(dims=dims)
    with pytest.raises(BadModel, match=r"leaves dimensions free: .*give --input-shape"):
        described(path)
    assert described(path, (1, 9, 7))[0].shape == (1, 1, 9, 7)


def test_one_shape_serves_both_layouts(make_classifier):
    last = make_classifier("last.onnx", dims=("N", "H", "W", 3), channels=3, channels_last=True)
    first = make_classifier("first.onnx", dims=("N", 3, "H", "W"), channels=3)
    for shape in ((3, 9, 7), (9, 7, 3)):
        assert described(last, shape)[0].shape == (1, 9, 7, 3)
        assert described(first, shape)[0].shape == (1, 3, 9, 7)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8), (8, 8, 8)])
def test_a_shape_that_contradicts_the_file(make_classifier, shape):
    with pytest.raises(BadModel, match="contradicts input 'image'"):
        described(make_classifier(), shape)


def test_an_input_without_a_shape(tmp_path):
    path = identity(tmp_path / "m.onnx", helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
    with pytest.raises(BadModel, match="does not tell its shape"):
        described(path)
    assert described(path, (3, 4, 4))[0].shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1]), "is not a tensor"),
        (helper.make_tensor_value_info("x", TensorProto.STRING, [1, 2]), "cannot be fed; allowed: float32"),
        (helper.make_tensor_value_info("x", TensorProto.COMPLEX64, [1, 2]), "complex64 cannot be fed"),
    ],
)
def test_inputs_that_cannot_be_fed(tmp_path, value, message):
    with pytest.raises(BadModel, match=message):
        described(identity(tmp_path / "m.onnx", value))
