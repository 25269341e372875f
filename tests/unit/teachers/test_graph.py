"""What a graph teacher answers beside logits: moments of its layers, with and without batch normalization kept."""

from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_teacher import SIDE, classifier

from edgekd.inference import logits
from edgekd.onnx_import.graph import size
from edgekd.teachers import Signal
from edgekd.teachers.graph import GraphTeacher, channel_moments
from edgekd.teachers.spec import read_spec


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (7, 3), (2, 3, 4)])
def test_moments_are_those_of_var_mean(dtype, shape):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    inputs[:, 1] = 0.25  # a constant channel
    if len(shape) == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    mean, variance = channel_moments(inputs)
    wide = inputs.to(torch.promote_types(dtype, torch.float32))
    expected = torch.var_mean(wide, dim=[axis for axis in range(len(shape)) if axis != 1], correction=0)
    torch.testing.assert_close((variance, mean), expected, atol=1e-6, rtol=1e-5)


def test_moments_have_the_gradient_of_their_definition():
    inputs = torch.randn(5, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(channel_moments, inputs)


def test_what_folding_leaves_is_the_normalized_batch(tmp_path):
    kept = classifier(centred=True)
    folded = onnxsim.simplify(kept)[0]
    assert not any(node.op_type == "BatchNormalization" for node in folded.graph.node)
    images = torch.rand(16, 1, SIDE, SIDE)
    answers = []
    for name, model in (("kept", kept), ("folded", folded)):
        onnx.save(model, tmp_path / f"{name}.onnx")
        teacher = GraphTeacher(read_spec(tmp_path / f"{name}.onnx"))
        assert (Signal.STATISTICS in teacher.signals) == (name == "kept")
        assert (Signal.STATISTICS_PRIOR in teacher.signals) == (name == "folded")
        answers.append(teacher(images))
    fixed = {entry.name: torch.tensor(onnx.numpy_helper.to_array(entry)) for entry in kept.graph.initializer}
    (layer,), (left,) = answers[0].statistics, answers[1].folded
    assert answers[0].folded == answers[1].statistics == ()
    scale = fixed["scale"] / (layer.running_variance + 1e-5).sqrt()
    torch.testing.assert_close(left.mean, scale * (layer.mean - layer.running_mean) + fixed["shift"], atol=1e-4, rtol=0)
    torch.testing.assert_close(left.variance, scale**2 * layer.variance, atol=1e-4, rtol=1e-4)


def saved(path: Path, nodes: list[onnx.NodeProto], dims: list[int | str], **weights: np.ndarray) -> Path:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)
    scores = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [image], [scores], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


DENSE = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)


def test_stated_sizes_fold_the_arithmetic_of_free_ones(tmp_path: Path) -> None:
    """Its dense layer fits one size alone, which the file leaves free."""
    nodes = [
        helper.make_node("Shape", ["image"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "places"], ["sides"]),
        helper.make_node("Slice", ["image", "ones", "sides", "axes"], ["part"]),
        helper.make_node("Reshape", ["part", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["y"]),
    ]
    integers = {"places": [2, 3], "ones": [1, 1], "axes": [2, 3], "flat": [0, -1]}
    weights = {name: np.array(value, np.int64) for name, value in integers.items()}
    path = saved(tmp_path / "free.onnx", nodes, ["N", 2, "H", "W"], dense=DENSE, **weights)
    teacher = GraphTeacher(read_spec(path, input_shape=(2, 5, 4)))
    assert {node.args[1] for node in teacher.module.graph.nodes if node.target is size} <= {0}  # the batch alone
    images = torch.rand(3, 2, 5, 4)
    np.testing.assert_allclose(teacher(images).logits, logits(path, images.numpy()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("features", [24, "features"])
def test_a_row_of_pixels_is_made_of_the_image(tmp_path: Path, features: int | str) -> None:
    path = saved(
        tmp_path / "row.onnx", [helper.make_node("MatMul", ["image", "dense"], ["y"])], ["N", features], dense=DENSE
    )
    images = torch.rand(3, 2, 4, 3).requires_grad_()
    for layout in ("NCHW", "NHWC"):
        answer = GraphTeacher(read_spec(path, input_shape=(2, 4, 3), layout=layout))(images)
        fed = images.detach() if layout == "NCHW" else images.detach().permute(0, 2, 3, 1)
        torch.testing.assert_close(answer.logits, fed.flatten(1) @ torch.from_numpy(DENSE))
        answer.logits.sum().backward()


def test_channels_are_found_where_the_bias_is_added_channels_last(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(1).normal(size=(5, 2, 3, 3)), "b": np.arange(5)}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    ends = [helper.make_node("GlobalAveragePool", ["r"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    plain = [helper.make_node("Conv", ["image", "w", "b"], ["a"]), helper.make_node("Relu", ["a"], ["r"])]
    moved = [
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["b", "t"], ["a"]),
        helper.make_node("Relu", ["a"], ["s"]),
        helper.make_node("Transpose", ["s"], ["r"], perm=[0, 3, 1, 2]),
    ]
    images = torch.rand(6, 2, 7, 6)
    answers = []
    for name, nodes in (("plain", plain), ("moved", moved)):
        path = saved(tmp_path / f"{name}.onnx", [*nodes, *ends], ["N", 2, 7, 6], **weights)
        answers.append(GraphTeacher(read_spec(path))(images))
    (expected,), (found,) = answers[0].folded, answers[1].folded
    assert len(found.mean) == 5
    torch.testing.assert_close((found.mean, found.variance), (expected.mean, expected.variance))
