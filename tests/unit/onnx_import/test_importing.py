"""The graph as a whole: cutting, buffers, free batches, precision; and graphs that mean harm."""

# ruff: noqa: E501 - text graphs
from __future__ import annotations

import copy
import random

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgekd.errors import BadModel, EdgekdError
from edgekd.onnx_import import import_onnx, unsupported

from .graphs import as_tensors, images, parse, run, with_weights

NET = "c = Conv<pads=[1,1,1,1]>(x, w, b)  n = BatchNormalization(c, s, t, m, v)  r = Relu(n)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Gemm<transB=1>(f, d, e)"
SHAPES = {"w": (4, 3, 3, 3), "b": (4,), "s": (4,), "t": (4,), "m": (4,), "d": (5, 4), "e": (5,)}


def net(signature: str = "(float[N,3,8,8] x) => (y)") -> onnx.ModelProto:
    model = with_weights(parse(NET, signature=signature), **SHAPES)
    variance = onnx.numpy_helper.from_array(np.linspace(0.5, 2, 4, dtype=np.float32), "v")
    model.graph.initializer.append(variance)
    return model


def test_any_tensor_can_be_asked_for_in_any_order() -> None:
    logits, features, before = import_onnx(net(), ["y", "f", "c"])(*as_tensors(images()))
    assert (logits.shape, features.shape, before.shape) == ((2, 5), (2, 4), (2, 4, 8, 8))


def test_an_input_and_an_initializer_can_be_asked_for() -> None:
    x = images()
    seen, weight = import_onnx(net(), ["x", "w"])(*as_tensors(x))
    assert np.array_equal(seen.numpy(), x)
    assert weight.shape == (4, 3, 3, 3)


def test_what_lies_behind_the_cut_does_not_matter() -> None:
    model = parse("a = Relu(x)  y = NonMaxSuppression(a, a)")
    assert [op for op, _ in unsupported(model)] == ["NonMaxSuppression"]
    assert unsupported(model, ["a"]) == []
    assert import_onnx(model, ["a"])(*as_tensors(images()))[0].min() >= 0


def test_all_unsupported_nodes_are_named_in_one_line() -> None:
    model = parse("a = Foo(x)  b = Bar(a)  c = Foo(b)  y = Relu(c)")
    for i, node in enumerate(model.graph.node):
        node.name = f"node_{i}"
    with pytest.raises(BadModel, match=r"Bar \(node_1\), Foo \(node_0, node_2\)") as caught:
        import_onnx(model)
    assert "\n" not in str(caught.value)


MOVED = "s = Shape(x)  e = Reshape(x, s)  p = Pad(e, around, grey)  m = MaxPool<kernel_shape=[2,2]>(p)  f = Cast<to=1>(m)  y = Conv(f, w)"


def test_an_input_of_integers_can_be_fed_as_floats() -> None:
    model = with_weights(parse(MOVED, signature="(uint8[N,3,8,8] x) => (y)"), w=(4, 3, 3, 3))
    for name, value in (("around", np.array([0, 0, 1, 0, 0, 0, 0, 2])), ("grey", np.array(114, np.uint8))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    (expected,) = run(model, x)
    shown = torch.from_numpy(x).float().requires_grad_()
    (found,) = import_onnx(model, as_floats=True)(shown)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-3)
    found.sum().backward()
    assert shown.grad is not None
    assert shown.grad.abs().max() > 0
    assert np.array_equal(import_onnx(model)(torch.from_numpy(x))[0].numpy(), found.detach().numpy())


def test_integers_that_are_computed_with_cannot_be_floats() -> None:
    model = parse("e = Identity(x)  a = Add(e, e)  y = Cast<to=1>(a)", signature="(uint8[N,3,8,8] x) => (y)")
    model.graph.node[1].name = "twice"
    with pytest.raises(
        BadModel, match=r"^Add node twice: cannot be imported: it computes with the uint8 input as it is"
    ):
        import_onnx(model, as_floats=True)
    assert import_onnx(model)(torch.full((2, 3, 8, 8), 200, dtype=torch.uint8))[0].unique().tolist() == [144]


def test_weights_are_buffers_and_the_module_is_plain_torch() -> None:
    module = import_onnx(net())
    assert not list(module.parameters())
    assert not any(b.requires_grad for b in module.buffers())
    targets = {node.target for node in module.graph.nodes if node.op == "call_function"}
    assert {torch.conv2d, torch.nn.functional.batch_norm, torch.relu} <= targets


def test_batch_normalization_uses_the_stored_statistics() -> None:
    module = import_onnx(net()).train()
    x = images(4)
    (expected,) = run(net(), x)
    np.testing.assert_allclose(module(*as_tensors(x))[0].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_and_channels_last() -> None:
    module = import_onnx(net()).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (y,) = module(x)
    y.float().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y.float(), module(x)[0], rtol=0.05, atol=0.05)


def test_initializers_listed_as_inputs_are_not_arguments() -> None:
    model = net()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    assert import_onnx(model)(*as_tensors(images()))[0].shape == (2, 5)


@pytest.mark.parametrize(
    "body",
    [
        "s = Constant<value_ints=[1,-1]>()  y = Reshape(x, s)",
        "s = Constant<value_ints=[1,192]>()  y = Reshape(x, s)",
        "s = Constant<value_ints=[3,64]>()  t = Constant<value_ints=[1,3,8,8]>()  a = Reshape(x, s)  y = Reshape(a, t)",
        "t = Transpose<perm=[1,0,2,3]>(x)  s = Constant<value_ints=[3,64]>()  y = Reshape(t, s)",
        "s = Constant<value_ints=[1,3,8,8]>()  c = Constant<value_floats=[1.0]>()  e = Expand(c, s)  y = Concat<axis=1>(x, e)",
        "s = Constant<value_ints=[1,3,16,16]>()  y = Resize(x, , , s)",
        "s = Shape(x)  c = ConstantOfShape(s)  y = Add(x, c)",
    ],
)
def test_a_fixed_batch_becomes_free(body: str) -> None:
    module = import_onnx(parse(body, signature="(float[1,3,8,8] x) => (y)"))
    assert module.meta["batch_free"]
    x = torch.randn(5, 3, 8, 8)
    together = module(x)[0]
    alone = [module(x[i : i + 1])[0] for i in range(5)]
    axis = next(a for a, (n, m) in enumerate(zip(together.shape, alone[0].shape, strict=True)) if n == 5 * m)
    if together.ndim == 2 and axis == 1:  # the batch is merged with the axis behind it
        together, alone = together.reshape(3, 5, -1), [a.reshape(3, 1, -1) for a in alone]
    torch.testing.assert_close(together, torch.cat(alone, axis))


@pytest.mark.parametrize(
    "body",
    [
        "i = Constant<value_int=0>()  g = Gather<axis=0>(x, i)  y = Add(x, g)",
        "m = ReduceMean<axes=[0], keepdims=1>(x)  y = Sub(x, m)",
        "a = Constant<value_ints=[0]>()  y = Squeeze(x, a)",
    ],
)
def test_a_batch_that_cannot_be_free_stays_fixed(body: str) -> None:
    model = parse(body, signature="(float[1,3,8,8] x) => (y)", opset=13)
    module = import_onnx(model)
    assert not module.meta["batch_free"]
    x = images(1)
    np.testing.assert_allclose(module(*as_tensors(x))[0].numpy(), run(model, x)[0], rtol=1e-5, atol=1e-6)


def test_nodes_may_be_unsorted() -> None:
    model = net()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert import_onnx(model)(*as_tensors(images()))[0].shape == (2, 5)


def test_a_deep_graph_does_not_exhaust_the_stack() -> None:
    body = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(3000)).replace("(t0)", "(x)")
    model = parse(f"{body} y = Identity(t3000)")
    x = images(1, 1, 2)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 2, 2]))
    assert np.array_equal(import_onnx(model)(*as_tensors(x))[0].numpy(), x)


def test_a_free_size_that_works_for_one_value_can_be_stated() -> None:
    model = parse("p = AveragePool<kernel_shape=[8,2]>(x)  y = Squeeze(p, two)", signature="(float[N,3,h,w] x) => (y)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "two"))
    with pytest.raises(BadModel, match="Squeeze"):
        import_onnx(model)
    module = import_onnx(model, shape=(None, 3, 8, None))
    x = torch.randn(2, 3, 8, 6)
    np.testing.assert_allclose(module(x)[0].numpy(), run(model, x.numpy())[0], rtol=1e-5, atol=1e-6)
    for wrong in ((None, 4, 8, 8), (None, 3, 8)):
        with pytest.raises(BadModel, match="input x"):
            import_onnx(model, shape=wrong)


def test_minus_one_is_a_free_size() -> None:
    """As PaddlePaddle's converter writes it."""
    model = net()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    module = import_onnx(model)
    assert module.meta["batch_free"]
    np.testing.assert_allclose(
        module(*as_tensors(images(5)))[0].numpy(), run(model, images(5))[0], rtol=1e-4, atol=1e-5
    )


def test_a_long_series_is_not_tried_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_weights(
        parse("s, h = LSTM<hidden_size=4>(x, w, r)  y = Identity(s)", signature="(float[time,N,3] x) => (y)"),
        w=(1, 16, 3), r=(1, 16, 4),
    )  # fmt: skip
    steps: list[int] = []
    kernel = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda x, *others: steps.append(len(x)) or kernel(x, *others))
    module = import_onnx(model)
    assert set(steps) == {1}
    x = torch.randn(9, 2, 3)
    np.testing.assert_allclose(module(x)[0].numpy(), run(model, x.numpy())[0], rtol=1e-4, atol=1e-5)


HUGE = 2**40
HOSTILE = {
    "cycle": "a = Add(x, b)  b = Relu(a)  y = Relu(b)",
    "own output": "y = Relu(y)",
    "missing input": "y = Add(x, nowhere)",
    "constant": f"s = Constant<value_ints=[{HUGE}]>()  y = ConstantOfShape(s)",
    "constant, negative": "s = Constant<value_ints=[-5]>()  y = ConstantOfShape(s)",
    "expand": f"s = Constant<value_ints=[{HUGE},1,1,1]>()  y = Expand(x, s)",
    "expand a constant": f"s = Constant<value_ints=[{HUGE}]>()  c = Constant<value_float=1.0>()  e = Expand(c, s)  y = Mul(e, e)",
    "tile": f"s = Constant<value_ints=[1,1,{HUGE},{HUGE}]>()  y = Tile(x, s)",
    "range": f"a = Constant<value_int=0>()  b = Constant<value_int={HUGE}>()  c = Constant<value_int=1>()  y = Range(a, b, c)",
    "range without end": "a = Constant<value_int=0>()  b = Constant<value_int=9>()  y = Range(a, b, a)",
    "pad": f"p = Constant<value_ints=[0,0,{HUGE},0,0,0,0,0]>()  y = Pad(x, p)",
    "pad, mirrored": f'p = Constant<value_ints=[0,{HUGE},0,0,0,0,0,0]>()  y = Pad<mode="reflect">(x, p)',
    "one hot": f"d = Constant<value_int={HUGE}>()  v = Constant<value_floats=[0.0,1.0]>()  i = Cast<to=7>(x)  y = OneHot(i, d, v)",
    "resize": "s = Constant<value_floats=[1.0,1.0,1000000.0,1000000.0]>()  y = Resize(x, , s)",
    "resize to nothing": "s = Constant<value_floats=[1.0,1.0,0.0,-1.0]>()  y = Resize(x, , s)",
    "pool": f"y = MaxPool<kernel_shape=[3,3], pads=[{HUGE},0,{HUGE},0]>(x)",
    "pool, uneven": f"y = AveragePool<kernel_shape=[3,3], pads=[0,0,{HUGE},{HUGE}]>(x)",
    "pool, no stride": "y = MaxPool<kernel_shape=[3,3], strides=[0,0]>(x)",
    "reshape": "s = Constant<value_ints=[7,-1,-1]>()  y = Reshape(x, s)",
    "gather": "i = Constant<value_ints=[99]>()  y = Gather<axis=1>(x, i)",
    "axis": "y = Softmax<axis=9>(x)",
    "permutation": "y = Transpose<perm=[0,0,1,1]>(x)",
    "split": "a, b = Split<axis=1, split=[2,2]>(x)  y = Add(a, b)",
    "type": "y = Cast<to=99>(x)",
    "doubling": "c0 = Constant<value_floats=[1.0,2.0]>() " + " ".join(f"c{i + 1} = Concat<axis=0>(c{i}, c{i})" for i in range(60)) + " y = Identity(c60)",
    "no heads": "s = Constant<value_ints=[0,0,8,8]>()  e = ConstantOfShape(s)  y = Attention(x, e, e)",
    "unsqueeze": "a = Constant<value_ints=[" + ",".join(str(i) for i in range(200)) + "]>()  y = Unsqueeze(x, a)",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_graphs_are_refused_in_one_line(name: str) -> None:
    opset = {"split": 11, "no heads": 23}.get(name, 18)
    with pytest.raises(BadModel) as caught:
        import_onnx(parse(HOSTILE[name], opset=opset))
    assert "\n" not in str(caught.value)


def test_a_failing_node_is_named() -> None:
    model = net()
    model.graph.node[0].name = "first"
    model.graph.node[0].attribute[0].ints[:] = [-9, -9, -9, -9]
    with pytest.raises(BadModel, match="Conv node first"):
        import_onnx(model)


def test_mutated_graphs_become_a_module_or_an_error() -> None:
    rng = random.Random(0)
    refusals = [refusal for _ in range(150) if (refusal := _refusal(_mutated(net(), rng)))]
    assert 50 < len(refusals) < 150
    assert not [refusal for refusal in refusals if "\n" in refusal]


def _refusal(model: onnx.ModelProto) -> str:
    """The importer's one line, empty when it makes a module; anything but an EdgekdError passes through."""
    try:
        import_onnx(model)
    except EdgekdError as error:
        return str(error)
    return ""


def _mutated(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    model = copy.deepcopy(model)
    node = rng.choice(model.graph.node)
    tensor = rng.choice(model.graph.initializer)
    kind = rng.randrange(7)
    if kind == 0:
        node.input[rng.randrange(len(node.input))] = rng.choice(["x", "y", "w", "nowhere", "", "p"])
    elif kind == 1:
        node.op_type = rng.choice(["Conv", "Gemm", "Reshape", "Concat", "Expand", "Gather", "MatMul", "LSTM", "Resize"])
    elif kind == 2:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice([0, 1, 7, -1, 2**40])
    elif kind == 3:
        tensor.data_type = rng.randrange(25)
    elif kind == 4:
        tensor.raw_data = tensor.raw_data[: rng.randrange(8)]
    elif kind == 5:
        model.graph.input[0].type.tensor_type.shape.dim[rng.randrange(4)].dim_value = rng.choice([0, 1, 5, -1, 2**40])
    else:
        node.attribute.append(helper.make_attribute(rng.choice(["axis", "group", "pads"]), rng.choice([-3, 0, 2**40])))
    return model
