"""Whether a layer once had batch normalization: its bias undoes what its filters answer."""

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from tiny_teacher import classifier

from edgekd.teachers import Moments, Signal
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.normalized import balance, shades
from edgekd.teachers.points import biases
from edgekd.teachers.spec import read_spec

CENTRED = np.array([-1.0, 2.0, -1.0])


@pytest.mark.parametrize(
    ("bias", "mean", "expected"),
    [
        (CENTRED, 0 * CENTRED, 0.5),  # undone altogether: the variance of the bias, in units of 4
        (CENTRED, 0.5 * CENTRED, 0.25),
        (CENTRED, 2 * CENTRED, -0.5),  # the bias adds to what was answered
        (np.zeros(1), CENTRED, 0.0),
        (np.zeros(3), CENTRED, 0.0),
        (100 * CENTRED, 0 * CENTRED, 1.0),  # one layer counts once
    ],
)
def test_balance_is_minus_the_covariance_of_bias_and_answer(bias, mean, expected):
    layer = Moments(torch.from_numpy(mean).float(), torch.full((3,), 4.0))
    assert balance([layer], [bias]) == pytest.approx(expected, abs=1e-6)
    assert balance([layer, layer], [bias, np.zeros(1)]) == pytest.approx(expected / 2, abs=1e-6)


def test_shades_are_always_the_same_and_cost_no_random_number():
    torch.manual_seed(0)
    images = shades((3, 12, 20), -1.0, 1.0)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(images, shades((3, 12, 20), -1.0, 1.0))
    assert images.shape == (16, 3, 12, 20)
    assert -1 <= images.min() < -0.5 < 0.5 < images.max() <= 1


def test_a_bias_that_was_never_batch_normalization_gives_no_prior(tmp_path):
    """The same network, folded, and with a small bias instead."""
    model = onnxsim.simplify(classifier(centred=True))[0]
    signals = []
    for name, factor in (("folded", 1.0), ("never", 0.01)):
        bias = next(entry for entry in model.graph.initializer if entry.name == model.graph.node[0].input[2])
        bias.CopyFrom(onnx.numpy_helper.from_array(factor * onnx.numpy_helper.to_array(bias), bias.name))
        onnx.save(model, tmp_path / f"{name}.onnx")
        signals.append(GraphTeacher(read_spec(tmp_path / f"{name}.onnx")).signals)
    assert signals[0] - signals[1] == {Signal.STATISTICS_PRIOR}
    assert not GraphTeacher(read_spec(tmp_path / "never.onnx"))(torch.rand(2, 1, 12, 12)).folded


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = Conv(x, w, b)  y = Relu(a)", [2, 3]),
        ("n = Conv(x, w)  a = Add(c, n)  y = Relu(a)", [5, 7]),
        ("n = Conv(x, w, b)  m = Mul(n, c)  a = Sub(c, m)  y = Relu(a)", [5 - 2 * 5, 7 - 3 * 7]),
        ("n = Conv(x, w, b)  m = Div(n, c)  a = Sub(m, c)  y = Relu(a)", [2 / 5 - 5, 3 / 7 - 7]),
        ("n = Conv(x, w)  t = Transpose<perm=[0,2,3,1]>(n)  a = Add(t, b)  y = Relu(a)", [2, 3]),
    ],
)
def test_biases_are_what_the_nodes_behind_a_layer_make_of_them(body, expected):
    text = f'<ir_version: 8, opset_import: ["" : 17]> graph (float[N,1,4,4] x) => (float y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    fixed = {"w": np.ones((2, 1, 1, 1)), "b": np.array([2.0, 3.0]), "c": np.array([5.0, 7.0]).reshape(1, 2, 1, 1)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in fixed.items())
    (found,) = biases(model, ["a"])
    assert found.tolist() == pytest.approx(expected)
