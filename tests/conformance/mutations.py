"""Small sound models of every kind, and ways to damage a file: its bytes, or the fields of the message it holds."""

# ruff: noqa: E501 - text graphs
from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekd.onnx_import.registry import claimed


def _text(body: str, signature: str = "(float[N,4,8,8] x) => (float y)", opset: int = 20) -> str:
    return f'<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]> graph {signature} {{ {body} }}'


MODELS = {
    "convolutions": _text(
        "c = Conv<pads=[1,1,1,1]>(x, w4433, v4)  n = BatchNormalization(c, v4, v4, v4, u4)  r = Relu(n)  p = MaxPool<kernel_shape=[2,2]>(r)"
        " t = ConvTranspose<strides=[2,2]>(p, w4433)  g = GlobalAveragePool(t)  f = Flatten(g)  y = Gemm<transB=1>(f, w44, v4)"
    ),
    "residual": _text(
        "a = Conv<pads=[1,1,1,1]>(x, w4433, v4)  b = LeakyRelu(a)  c = Conv<group=4, pads=[1,1,1,1]>(b, w4133)  s = Add(c, x)"
        " h = HardSwish(s)  z = Pad(h, pads)  v = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(z)  m = ReduceMean<keepdims=0>(v, axes23)  y = Softmax(m)"
    ),
    "attention": _text(
        "n = LayerNormalization(x, v4)  q = MatMul(n, w44)  k = MatMul(n, w44)  t = Transpose<perm=[0,2,1]>(k)  s = MatMul(q, t)"
        " a = Softmax(s)  o = MatMul(a, n)  e = Einsum<equation='nij,jk->nik'>(o, w44)  g = Gelu(e)  y = ReduceSum<keepdims=0>(g, axis1)".replace("'", '"'),
        "(float[N,6,4] x) => (float y)",
    ),
    "series": _text(
        "l, h, c = LSTM<hidden_size=4, direction=\"bidirectional\">(x, rw, rr)  s = Squeeze(h)  g, k = GRU<hidden_size=4>(x, gw, gr)  r = Reshape(g, flat)"
        " m = CumSum(r, axis0)  y = ReduceMax(m)",
        "(float[7,N,4] x) => (float y)",
    ),
    "shapes": _text(
        "s = Shape(x)  b = Gather(s, axis0)  u = Concat<axis=0>(b, minus1)  f = Reshape(x, u)  z = Slice(f, axis0, axis1, axis1)  e = Expand(z, one1)"
        " d = Unsqueeze(e, axis0)  q = Squeeze(d, axis0)  t = Tile(q, ones2)  c = ConstantOfShape(u0)  w = Where(c0, t, c)  i = Cast<to=7>(w)  j = Cast<to=1>(i)"
        " k, l = Split<axis=1, num_outputs=2>(j)  y = Concat<axis=1>(k, l)",
        "(float[2,4,8,8] x) => (float y)",
    ),
    "indices": _text(
        "v, i = TopK<axis=1>(x, axis1)  g = GatherElements<axis=1>(x, i)  o = OneHot(i, four, onoff)  a = ArgMax<axis=1>(x)  n = GatherND(x, index)"
        " s = ScatterElements<axis=1>(x, i, v)  e = Range(zero, four, step)  p = Resize<mode=\"linear\">(s, , scales)  c = Clip(p, , )  y = DepthToSpace<blocksize=2>(c)"
    ),
    "quantized": _text(
        "q = QuantizeLinear(x, half, byte)  d = DequantizeLinear(q, half, byte)  w = DequantizeLinear(qw, half)  c = Conv(d, w)  r = Relu(c)"
        " z = QuantizeLinear(r, half, byte)  e = DequantizeLinear(z, half, byte)  y = Flatten(e)"
    ),
    "functions": '<ir_version: 9, opset_import: ["" : 20, "local" : 1]> graph (float[N,4,8,8] x) => (float y) { a = local.twice(x)  y = local.twice(a) }'
    ' <domain: "local", opset_import: ["" : 20]> twice (v) => (w) { t = Relu(v)  w = Add(t, v) }',
}  # fmt: skip
_FLOATS = {
    "w4433": (4, 4, 3, 3), "w4133": (4, 1, 3, 3), "w44": (4, 4), "v4": (4,), "rw": (2, 16, 4), "rr": (2, 16, 4), "gw": (1, 12, 4), "gr": (1, 12, 4),
}  # fmt: skip
_VALUES: dict[str, Any] = {
    "u4": np.ones(4, np.float32), "pads": [0, 0, 1, 1, 0, 0, 1, 1], "axes23": [2, 3], "axis0": [0], "axis1": [1], "minus1": [-1], "flat": [7, -1],
    "one1": [1, 1], "ones2": [1, 1], "u0": [1, 256], "c0": np.array([True]), "four": np.array(4), "zero": np.array(0), "step": np.array(1),
    "onoff": np.array([0, 1], np.float32), "index": np.array([[0, 0]]), "scales": np.array([1, 1, 2, 2], np.float32), "half": np.array(0.5, np.float32),
    "byte": np.array(3, np.uint8), "qw": np.ones((4, 4, 1, 1), np.int8),
}  # fmt: skip
_SIZES = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 64, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1]
_OPERATORS = [
    *sorted({claim.op_type for claim in claimed()}),
    "If",
    "Loop",
    "Scan",
    "NonMaxSuppression",
    "Nonsense",
    "",
]
_PLACES = [
    "weights.bin",
    "../weights.bin",
    "/etc/hostname",
    "",
    ".",
    "a/../../b",
    "missing.bin",
    "weights.bin\x00x",
    "~/x",
    "/dev/zero",
    "model.onnx",
]


def with_weights(model: ModelProto) -> ModelProto:
    """A copy with the initializers that its nodes name."""
    model, rng = copy.deepcopy(model), np.random.default_rng(0)
    named = {name for node in model.graph.node for name in node.input}
    for name, shape in _FLOATS.items():
        if name in named:
            model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape, np.float32), name))
    for name, value in _VALUES.items():
        if name in named:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


# ---------------------------------------------------------------------------------------------------- bytes


def flipped(model: ModelProto, rng: random.Random) -> bytes:
    """A few bits are turned."""
    data = bytearray(with_weights(model).SerializeToString())
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(model: ModelProto, rng: random.Random) -> bytes:
    """The end is missing."""
    data = with_weights(model).SerializeToString()
    return data[: rng.randrange(len(data))]


def spliced(model: ModelProto, rng: random.Random) -> bytes:
    """A piece is left out, doubled, or overwritten by noise."""
    data = with_weights(model).SerializeToString()
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randrange(1, 40))
    piece = rng.choice([b"", data[start:end] * 2, rng.randbytes(end - start)])
    return data[:start] + piece + data[end:]


def deep(model: ModelProto, rng: random.Random) -> bytes:
    """Graphs within graphs, deeper than protobuf's own library would write them."""
    graph = b""
    for _ in range(rng.choice([10, 33, 34, 100, 5000])):
        held = _field(1, b"then_branch") + _field(6, graph) + bytes([20 << 3 & 127 | 128, 1, AttributeProto.GRAPH])
        graph = _field(1, _field(4, b"If") + _field(1, b"x") + _field(2, b"z") + _field(5, held))
    return with_weights(model).SerializeToString() + _field(7, graph)


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf's wire format that holds bytes, a string or a message."""
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


# --------------------------------------------------------------------------------------------------- fields


def _fields(change: Callable[[ModelProto, random.Random], object]) -> Callable[[ModelProto, random.Random], bytes]:
    """A mutation of the message, once or a few times, as one of the bytes."""

    def mutate(model: ModelProto, rng: random.Random) -> bytes:
        model = with_weights(model)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            change(model, rng)
        return bytes(model.SerializeToString())

    return mutate


def weight(model: ModelProto, rng: random.Random) -> None:
    """A stored tensor gets another shape, type or content."""
    tensor = rng.choice(model.graph.initializer or [model.graph.node[0].attribute.add(name="t").t])
    what = rng.randrange(6)
    if what == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_SIZES)
    elif what == 1:
        tensor.dims.extend([rng.choice(_SIZES)] * rng.choice([1, 1, 70]))
    elif what == 2:
        tensor.data_type = rng.choice([*range(30), -1, 2**31 - 1])
    elif what == 3:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif what == 4:
        values = np.array([rng.choice([*_SIZES, *range(-3, 9)]) for _ in range(max(1, len(tensor.raw_data) // 8))])
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    else:
        noise = np.frombuffer(rng.randbytes(4 * max(1, len(tensor.raw_data) // 4)), np.float32)
        tensor.raw_data = noise.tobytes()


def attributes(model: ModelProto, rng: random.Random) -> None:
    """An attribute gets another value, type or name, is added or lost."""
    node = rng.choice(model.graph.node)
    name = rng.choice([a.name for a in node.attribute] or ["axis"])
    value: Any = rng.choice(
        [rng.choice(_SIZES), [rng.choice(_SIZES) for _ in range(rng.randrange(6))], 1e30, "linear", [float("nan")] * 4]
    )
    if rng.random() < 0.3:
        name = rng.choice(
            [
                "axis",
                "axes",
                "kernel_shape",
                "group",
                "strides",
                "pads",
                "perm",
                "to",
                "mode",
                "keepdims",
                "blocksize",
                "equation",
                "hidden_size",
            ]
        )
    kept = [a for a in node.attribute if a.name != name or rng.random() < 0.05]
    del node.attribute[:]
    node.attribute.extend(kept)
    if isinstance(value, list) and not value:
        node.attribute.append(AttributeProto(name=name, type=AttributeProto.INTS))
    else:
        node.attribute.append(helper.make_attribute(name, value))
    if rng.random() < 0.1:
        node.attribute[-1].type = rng.randrange(15)  # type: ignore[assignment]


def wiring(model: ModelProto, rng: random.Random) -> None:
    """Nodes take and make other tensors: cycles, strangers, too few, too many, two makers."""
    nodes = model.graph.node
    names = [*(n for node in nodes for n in (*node.input, *node.output)), "x", "y", "", "nowhere"]
    node, what = rng.choice(nodes), rng.randrange(6)
    if what <= 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif what == 2:
        node.input.extend(rng.choices(names, k=rng.choice([1, 2, 300])))
    elif what == 3:
        del node.input[rng.randrange(len(node.input) + 1) :]
    elif what == 4 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    else:
        nodes.add().CopyFrom(rng.choice(nodes))


def operators(model: ModelProto, rng: random.Random) -> None:
    """A node becomes another operator, or the opset another."""
    node = rng.choice(model.graph.node)
    if rng.random() < 0.8:
        node.op_type = rng.choice(_OPERATORS)
    else:
        node.domain = rng.choice(["", "ai.onnx", "com.microsoft", "ai.onnx.ml", "nowhere", "local"])
    if rng.random() < 0.2:
        model.opset_import[0].version = rng.choice([*range(1, 27), 0, -1, 10**6, 2**62])


def external(model: ModelProto, rng: random.Random) -> None:
    """A tensor says that its values are in another file, inside the folder or out."""
    tensor = rng.choice(model.graph.initializer or [helper_tensor(model)])
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", rng.choice(_PLACES)),
        ("offset", str(rng.choice(_SIZES))),
        ("length", str(rng.choice(_SIZES))),
    ):
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=value if rng.random() < 0.95 else "x" * 5000)


def helper_tensor(model: ModelProto) -> TensorProto:
    """A new Constant's tensor, in a model that stores none."""
    node = model.graph.node.add(op_type="Constant", output=["stored"])
    node.attribute.append(
        helper.make_attribute("value", helper.make_tensor("stored", TensorProto.FLOAT, [2], [1.0, 2.0]))
    )
    tensor: TensorProto = node.attribute[0].t
    return tensor


def inputs(model: ModelProto, rng: random.Random) -> None:
    """The graph's inputs and outputs change shape, rank and type."""
    value = rng.choice([*model.graph.input, *model.graph.input, *model.graph.output])
    tensor, what = value.type.tensor_type, rng.randrange(4)
    if what == 0 and tensor.shape.dim:
        rng.choice(tensor.shape.dim).dim_value = rng.choice(_SIZES)
    elif what == 1:
        for _ in range(rng.choice([1, 2, 80])):
            tensor.shape.dim.add(dim_value=rng.choice([1, 1, *_SIZES]))
    elif what == 2:
        tensor.elem_type = rng.choice([*range(30), -1])
    else:
        value.type.Clear()


def nested(model: ModelProto, rng: random.Random) -> None:
    """Graphs within graphs, functions that call themselves or each other, chains that double what they hold."""
    what, depth = rng.randrange(4), rng.choice([1, 3, 30, 90, 200])
    if what == 0:
        graph = GraphProto(name="inner")
        graph.node.add(op_type="Identity", input=["x"], output=["inner"])
        graph.output.add(name="inner")
        for _ in range(min(depth, 25)):
            outer = GraphProto(name="outer")
            node = outer.node.add(op_type="If", input=["x"], output=["inner"])
            node.attribute.append(helper.make_attribute("then_branch", graph))
            outer.output.add(name="inner")
            graph = outer
        model.graph.node.add(op_type="Loop", input=["x"], output=["z"]).attribute.append(
            helper.make_attribute("body", graph)
        )
        model.graph.node[0].input[0] = rng.choice(["x", "z"])
    elif what == 1:
        _calling_itself(model, rng)
    elif what == 2:
        last = model.graph.input[0].name
        for i in range(depth):
            kind, extra = rng.choice([("Concat", {"axis": 0}), ("Add", {}), ("Mul", {}), ("MatMul", {})])
            model.graph.node.insert(i, helper.make_node(kind, [last, last], [f"grown{i}"], **extra))
            last = f"grown{i}"
        model.graph.node[-1].input[0] = last
    else:
        tensor = numpy_helper.from_array(np.ones(64, np.float32), "seed")
        model.graph.initializer.append(tensor)
        for i in range(depth):
            model.graph.node.insert(
                i, helper.make_node("Concat", [f"seed{i - 1}" if i else "seed"] * 8, [f"seed{i}"], axis=0)
            )
        model.graph.node[-1].input[0] = f"seed{depth - 1}"


def _calling_itself(model: ModelProto, rng: random.Random) -> None:
    width = rng.choice([1, 2, 8])
    names = [f"f{i}" for i in range(rng.choice([1, 2, 20]))]
    for i, name in enumerate(names):
        called = names[(i + 1) % len(names)] if rng.random() < 0.7 or i + 1 < len(names) else ""
        body = [
            NodeProto(
                op_type=called or "Relu",
                domain="own" if called else "",
                input=["a" if k == 0 else f"t{k - 1}"],
                output=[f"t{k}"],
            )
            for k in range(width)
        ]
        body.append(helper.make_node("Identity", [f"t{width - 1}"], ["b"]))
        made = helper.make_function(
            "own", name, ["a"], ["b"], body, [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        )
        model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("own", 1))
    node = rng.choice(model.graph.node)
    node.op_type, node.domain = names[0], "own"
    del node.input[1:], node.output[1:], node.attribute[:]


KINDS: dict[str, Callable[[ModelProto, random.Random], bytes]] = {
    "flipped": flipped,
    "cut": cut,
    "spliced": spliced,
    "deep": deep,
    **{
        change.__name__: _fields(change) for change in (weight, attributes, wiring, operators, external, inputs, nested)
    },
}
