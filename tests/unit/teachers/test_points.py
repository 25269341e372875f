"""Which biased layers look like folded batch normalization: what follows them decides."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekd.teachers.points import folded_points

WEIGHTS = {"w": (4, 4, 3, 3), "one": (4, 4, 1, 1), "b": (4,), "c": (1, 4, 1, 1), "d": (4, 4), "half": (), "three": ()}
CONV = "a = Conv<pads=[1,1,1,1]>(x, w, b)"
POOLED = "p = GlobalAveragePool(a)"

GRAPHS = {
    "relu": (f"{CONV}  y = Relu(a)", ["a"]),
    "leaky": (f"{CONV}  y = LeakyRelu(a)", ["a"]),
    "clip": (f"{CONV}  y = Clip(a, half, three)", ["a"]),
    "parametric": (f"{CONV}  y = PRelu(a, c)", ["a"]),
    "silu": (f"{CONV}  s = Sigmoid(a)  y = Mul(a, s)", ["a"]),
    "quick gelu": (f"{CONV}  m = Mul(a, three)  s = Sigmoid(m)  y = Mul(s, a)", ["a"]),
    "gelu": (f"{CONV}  d0 = Div(a, three)  e = Erf(d0)  f = Add(e, half)  g = Mul(a, f)  y = Mul(g, half)", ["a"]),
    "gelu, halved first": (f"{CONV}  h = Mul(a, half)  d0 = Div(a, three)  e = Erf(d0)  y = Mul(h, e)", ["a"]),
    "hard swish": (f"{CONV}  s = Add(a, three)  r = Clip(s, half, three)  m = Mul(a, r)  y = Div(m, three)", ["a"]),
    "hard sigmoid": (f"{CONV}  s = HardSigmoid(a)  y = Mul(s, a)", ["a"]),
    "residual": (f"{CONV}  y = Add(x, a)", ["a"]),
    "pooled before": (f"{CONV}  m = MaxPool<kernel_shape=[2,2]>(a)  y = Relu(m)", ["a"]),
    "channels last": (f"{CONV}  t = Transpose<perm=[0,2,3,1]>(a)  y = Relu(t)", ["a"]),
    "next convolution": (f"{CONV}  y = Conv(a, one)", ["a"]),
    "scaled by its own pool": (f"{CONV}  {POOLED}  s = Sigmoid(p)  m = Mul(a, s)  y = Softmax(m)", ["a"]),
    "bias added behind": ("n = Conv(x, one)  a = Add(n, c)  y = Relu(a)", ["a"]),
    "affine behind": ("n = Conv(x, one)  m = Mul(n, c)  a = Add(c, m)  y = Relu(a)", ["a"]),
    "bias added channels last": (
        "n = Conv(x, one)  t = Transpose<perm=[0,2,3,1]>(n)  a = Add(t, b)  y = Relu(a)",
        ["a"],
    ),
    "channels last without a bias": ("n = Conv(x, one)  t = Transpose<perm=[0,2,3,1]>(n)  y = Relu(t)", []),
    "biased, then transposed and scaled": (
        f"{CONV}  t = Transpose<perm=[0,2,3,1]>(a)  m = Mul(t, b)  y = Relu(m)",
        [],
    ),
    "dense": ("f = GlobalAveragePool(x)  g = Flatten(f)  a = Gemm(g, d, b)  y = Relu(a)", ["a"]),
    "dense behind convolutions": (
        f"{CONV}  r = Relu(a)  {POOLED.replace('(a)', '(r)')}  f = Flatten(p)  e = Gemm(f, d, b)  y = Relu(e)",
        ["a"],
    ),
    "two in a row": (f"{CONV}  r = Relu(a)  e = ConvTranspose(r, one, b)  y = Relu(e)", ["a", "e"]),
    "quantized": (f"{CONV}  q = QuantizeLinear(a, half)  z = DequantizeLinear(q, half)  y = Relu(z)", ["a"]),
    "no bias": ("a = Conv(x, one)  y = Relu(a)", []),
    "a scale is no bias": ("n = Conv(x, one)  a = Mul(n, c)  y = Relu(a)", []),
    "a gate of another": (f"{CONV}  s = Sigmoid(a)  y = Mul(x, s)", []),
    "the end": (CONV.replace("a =", "y ="), []),
    "logits": (f"{CONV}  {POOLED}  f = Flatten(p)  y = Softmax(f)", []),
    "a norm": (f"{CONV}  m = ReduceMean<axes=[1]>(a)  s = Sub(a, m)  y = Softmax(s)", []),
    "squeeze and excite": (
        "p = GlobalAveragePool(x)  a = Conv(p, one, b)  r = Relu(a)  e = Conv(r, one, b)  s = HardSigmoid(e)  y = Mul(x, s)",  # noqa: E501
        [],
    ),
    "kept": (
        "a = Conv(x, one, b)  n = BatchNormalization(a, b, b, b, b)  r = Relu(n)  e = Conv(r, one, b)  y = Relu(e)",
        [],
    ),
    "kept where it cannot fold": ("n = BatchNormalization(x, b, b, b, b)  a = Conv(n, one, b)  y = Relu(a)", ["a"]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_points(name: str) -> None:
    body, expected = GRAPHS[name]
    text = f'<ir_version: 8, opset_import: ["" : 17]> graph (float[N,4,8,8] x) => (float y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    fixed = [onnx.numpy_helper.from_array(np.full(shape, 0.5, np.float32), k) for k, shape in WEIGHTS.items()]
    model.graph.initializer.extend(fixed)
    assert list(folded_points(model)) == expected
