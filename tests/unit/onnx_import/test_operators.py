"""Operators of ordinary classifiers on tiny graphs, equal to ONNX Runtime at two batch sizes."""

# ruff: noqa: E501 - a table reads best with one graph a line
from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.onnx_import import import_onnx

from .graphs import as_tensors, images, parse, run, with_weights

CASES: dict[str, tuple[str, int, dict[str, tuple[int, ...]]]] = {
    "conv": ("y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b)", 13, {"w": (4, 3, 3, 3), "b": (4,)}),
    "conv, uneven pads": ("y = Conv<pads=[0,1,1,0]>(x, w)", 13, {"w": (4, 3, 3, 3)}),
    "conv, same upper": ('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', 13, {"w": (4, 3, 3, 3)}),
    "conv, same lower": ('y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)', 13, {"w": (4, 3, 3, 3)}),
    "conv, depthwise": ("y = Conv<group=3, dilations=[2,2]>(x, w)", 9, {"w": (3, 1, 3, 3)}),
    "conv transpose": (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w, b)",
        13,
        {"w": (3, 4, 3, 3), "b": (4,)},
    ),
    "conv transpose, same": ('y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', 13, {"w": (3, 4, 3, 3)}),
    "conv transpose, uneven": ("y = ConvTranspose<pads=[0,1,1,0]>(x, w, b)", 13, {"w": (3, 4, 3, 3), "b": (4,)}),
    "batch norm": ("v = Abs(s)  y = BatchNormalization(x, s, b, m, v)", 14, dict.fromkeys("sbm", (3,))),
    "instance norm": ("y = InstanceNormalization(x, s, b)", 13, dict.fromkeys("sb", (3,))),
    "clip, attributes": ("y = Clip<min=-0.5, max=0.5>(x)", 9, {}),
    "prelu": ("y = PRelu(x, s)", 13, {"s": (3, 1, 1)}),
    "max pool": ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)", 13, {}),
    "max pool, ceil": ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)", 13, {}),
    "max pool, uneven": ("y = MaxPool<kernel_shape=[3,3], pads=[0,1,1,0]>(x)", 13, {}),
    "average pool": ("y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)", 13, {}),
    "average pool, same": ('y = AveragePool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x)', 19, {}),
    "average pool, dilated": ("y = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x)", 19, {}),
    "head": (
        "p = GlobalAveragePool(x)  f = Flatten(p)  l = Gemm<transB=1>(f, w, b)  y = Softmax(l)",
        13,
        {"w": (5, 3), "b": (5,)},
    ),
    "gemm, plain": ("p = GlobalMaxPool(x)  f = Flatten(p)  y = Gemm(f, w, b)", 13, {"w": (3, 5), "b": (5,)}),
    "gemm, scaled": ("p = ReduceMax<axes=[2,3], keepdims=0>(x)  y = Gemm<alpha=0.5, beta=2.0>(p, w, b)", 13, {"w": (3, 5), "b": (1, 5)}),
    "softmax of rows": ("y = Softmax<axis=1>(x)", 11, {}),
    "log softmax": ("y = LogSoftmax<axis=1>(x)", 13, {}),
    "mean, axes as attribute": ("y = ReduceMean<axes=[2,3], keepdims=0>(x)", 13, {}),
    "mean, axes as input": ("a = Constant<value_ints=[2,3]>()  y = ReduceMean<keepdims=0>(x, a)", 18, {}),
    "sum, no axes": ("y = ReduceSum(x)", 13, {}),
    "reshape": ("s = Constant<value_ints=[0,-1]>()  y = Reshape(x, s)", 13, {}),
    "reshape from shape": (
        "s = Shape(x)  i = Constant<value_int=0>()  n = Gather(s, i)  a = Constant<value_ints=[0]>()"
        "  u = Unsqueeze(n, a)  m = Constant<value_ints=[-1]>()  t = Concat<axis=0>(u, m)  y = Reshape(x, t)",
        13,
        {},
    ),
    "transpose and squeeze": (
        "t = Transpose<perm=[0,2,3,1]>(x)  a = Constant<value_ints=[1]>()  u = Unsqueeze(t, a)  y = Squeeze(u, a)",
        13,
        {},
    ),
    "split and concat": ("a, b, c = Split<axis=1>(x)  y = Concat<axis=2>(c, a, b)", 11, {}),
    "split with remainder": ("a, b, c = Split<axis=2, num_outputs=3>(x)  y = Concat<axis=2>(c, a)", 18, {}),
    "slice": (
        "s = Constant<value_ints=[6, 1]>()  e = Constant<value_ints=[-9, 7]>()  a = Constant<value_ints=[2, 3]>()"
        "  t = Constant<value_ints=[-2, 3]>()  y = Slice(x, s, e, a, t)",
        13,
        {},
    ),
    "gather": ("i = Constant<value_ints=[2, -1, 0]>()  y = Gather<axis=1>(x, i)", 13, {}),
    "pad, reflect": ('p = Constant<value_ints=[0,0,1,2,0,0,2,1]>()  y = Pad<mode="reflect">(x, p)', 13, {}),
    "pad, constant": ("p = Constant<value_ints=[0,1,1,2,0,0,-2,1]>()  v = Constant<value_float=2.0>()  y = Pad(x, p, v)", 13, {}),
    "pad, attribute": ('y = Pad<mode="edge", pads=[0,0,1,1,0,0,1,1]>(x)', 10, {}),
    "expand": ("s = Shape(x)  o = ConstantOfShape(s)  c = Constant<value_float=3.0>()  e = Expand(c, s)  y = Add(e, o)", 13, {}),
    "where": ("z = Constant<value_float=0.0>()  c = Greater(x, z)  y = Where(c, x, z)", 13, {}),
    "cast": ("i = Cast<to=7>(x)  y = Cast<to=1>(i)", 13, {}),
    "power and root": ("t = Constant<value_float=2.0>()  p = Pow(x, t)  r = Sqrt(p)  n = Neg(r)  y = Exp(n)", 13, {}),
    "min and max": ("y = Max(x, s)", 13, {"s": (3, 1, 1)}),
    "lrn": ("y = LRN<size=3, alpha=0.1, beta=0.75, bias=1.0>(x)", 13, {}),
    "dropout": ("y = Dropout(x)", 13, {}),
    "resize, nearest": ("e = Constant<value_floats=[1.0,1.0,2.0,2.0]>()  y = Resize<mode=\"nearest\">(x, , e)", 13, {}),
    "resize, linear": ("e = Constant<value_floats=[1.0,1.0,1.5,2.0]>()  y = Resize<mode=\"linear\">(x, , e)", 13, {}),
    "resize, shrink, corners": (
        'e = Constant<value_floats=[1.0,1.0,0.6,0.6]>()  y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , e)',
        13,
        {},
    ),
    "resize, cubic": ('e = Constant<value_floats=[1.0,1.0,2.5,2.5]>()  y = Resize<mode="cubic">(x, , e)', 13, {}),
    "upsample": ("e = Constant<value_floats=[1.0,1.0,2.0,2.0]>()  y = Upsample(x, e)", 9, {}),
    "matmul": ("y = MatMul(x, w)", 13, {"w": (8, 5)}),
    **{
        f"{op}": (f"y = {op}(x)", 20, {})
        for op in (
            ["Relu", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "Softsign", "Gelu", "Erf", "Celu", "Mish", "Abs", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Identity", "ThresholdedRelu", "Shrink", "GlobalLpPool"]
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_equals_onnx_runtime(name: str) -> None:
    body, opset, shapes = CASES[name]
    model = with_weights(parse(body, opset=opset), **shapes)
    if opset < 12:
        model = _constants_as_initializers(model)
    module = import_onnx(model)
    for batch in (2, 5):
        x = images(batch)
        (expected,) = run(model, x)
        (result,) = module(*as_tensors(x))
        assert result.shape == expected.shape
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=2e-6)


def _constants_as_initializers(model):
    import onnx

    for node in [n for n in model.graph.node if n.op_type == "Constant"]:
        value = onnx.helper.get_attribute_value(node.attribute[0])
        kind = np.float32 if node.attribute[0].name.startswith("value_float") else np.int64
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, kind), node.output[0]))
        model.graph.node.remove(node)
    return model


def test_gradient_reaches_the_input_and_no_weight() -> None:
    model = with_weights(parse("c = Conv(x, w)  r = Relu(c)  y = ReduceMean(r)"), w=(4, 3, 3, 3))
    module = import_onnx(model)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    module(x)[0].backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not list(module.parameters())
    assert [b.requires_grad for b in module.buffers()] == [False]
