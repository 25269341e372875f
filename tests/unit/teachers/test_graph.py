"""What a graph teacher answers beside logits: moments of its layers, with and without batch normalization kept."""

import onnx
import onnxsim
import pytest
import torch
from tiny_teacher import SIDE, classifier

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
    kept, folded = classifier(), onnxsim.simplify(classifier())[0]
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
