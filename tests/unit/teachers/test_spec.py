"""What a graph tells about a teacher: layout, range, normalization, ending, features, statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgekd import onnx_file
from edgekd.errors import BadModel, BadSetting
from edgekd.teachers.pixels import implied_range
from edgekd.teachers.spec import read_spec

Weights = dict[str, np.ndarray]
F32 = TensorProto.FLOAT
N = helper.make_node


class Graph:
    """Pixels, some head, Conv-BatchNormalization-pool-Gemm, some tail."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model.onnx"

    def write(
        self,
        head: Sequence[NodeProto] = (),
        tail: Sequence[NodeProto] = (),
        weights: Weights | None = None,
        *,
        dims: Sequence[int | str] = ("N", 3, 8, 8),
        dtype: int = F32,
        out: str = "dense",
        out_dims: Sequence[int | str] = ("N", 5),
        more_inputs: Sequence[str] = (),
        more_outputs: Sequence[str] = (),
        channels: int = 3,
    ) -> Path:
        start = head[-1].output[0] if head else "image"
        rng = np.random.default_rng(0)
        fixed = {
            "kernel": rng.normal(size=(4, channels, 3, 3)).astype(np.float32),
            **{name: np.ones(4, np.float32) for name in ("scale", "shift", "mean", "variance")},
            "classes": rng.normal(size=(4, 5)).astype(np.float32),
            **(weights or {}),
        }
        body = [
            N("Conv", [start, "kernel"], ["conv"]),
            N("BatchNormalization", ["conv", "scale", "shift", "mean", "variance"], ["norm"], name="norm_node"),
            N("GlobalAveragePool", ["norm"], ["pool"]),
            N("Flatten", ["pool"], ["flat"]),
            N("Gemm", ["flat", "classes"], ["dense"]),
        ]
        inputs = [helper.make_tensor_value_info("image", dtype, dims)]
        inputs += [helper.make_tensor_value_info(name, F32, [1]) for name in more_inputs]
        outputs = [helper.make_tensor_value_info(out, F32, out_dims)]
        outputs += [helper.make_tensor_value_info(name, F32, ["N", "M"]) for name in more_outputs]
        return self.save([*head, *body, *tail], inputs, outputs, fixed)

    def save(self, nodes: list[NodeProto], inputs: list[Any], outputs: list[Any], weights: Weights) -> Path:
        stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), self.path)
        return self.path


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return Graph(tmp_path)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def per_channel(*values: float) -> np.ndarray:
    return f32(*values).reshape(1, -1, 1, 1)


# --------------------------------------------------------------------------------------------------- what it tells


def test_a_plain_graph_leaves_range_and_normalization_to_the_defaults(graph: Graph) -> None:
    spec = read_spec(graph.write())
    assert (spec.input_name, spec.channels, spec.height, spec.width, spec.batch) == ("image", 3, 8, 8, None)
    assert (spec.classes, spec.ending, spec.output_name, spec.logits_name) == (5, "logits", "dense", "dense")
    assert (spec.low, spec.high, spec.mean, spec.std) == (0.0, 1.0, None, None)
    assert spec.sources == {"range": "default", "normalization": "default", "layout": "graph", "task": "default"}
    assert (spec.features_name, spec.statistics_points) == ("flat", ("norm_node",))
    assert spec.sha256 == onnx_file.sha256(graph.path)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HEADS: dict[str, tuple[list[NodeProto], Weights, tuple[float, float], Any, Any]] = {
    "mean and std, per channel": (
        [N("Sub", ["image", "m"], ["a"]), N("Div", ["a", "s"], ["b"])],
        {"m": per_channel(*IMAGENET[0]), "s": per_channel(*IMAGENET[1])},
        (0, 1),
        *IMAGENET,
    ),
    "bytes scaled, then mean and std": (
        [N("Div", ["image", "d"], ["a"]), N("Sub", ["a", "m"], ["b"]), N("Div", ["b", "s"], ["c"])],
        {"d": f32(255), "m": per_channel(*IMAGENET[0]), "s": per_channel(*IMAGENET[1])},
        (0, 255),
        tuple(255 * v for v in IMAGENET[0]),
        tuple(255 * v for v in IMAGENET[1]),
    ),
    "multiplied and shifted, constant on the left": (
        [N("Mul", ["two", "image"], ["a"]), N("Add", ["a", "minus"], ["b"])],
        {"two": f32(2), "minus": f32(-1)},
        (0, 1),
        (0.5,) * 3,
        (0.5,) * 3,
    ),
    "through Identity and Cast": (
        [
            N("Identity", ["image"], ["a"]),
            N("Sub", ["a", "m"], ["b"]),
            N("Cast", ["b"], ["c"], to=F32),
            N("Div", ["c", "s"], ["d"]),
        ],
        {"m": f32(127.5), "s": f32(127.5)},
        (0, 255),
        (127.5,) * 3,
        (127.5,) * 3,
    ),
    "scaling alone tells the range only": ([N("Div", ["image", "d"], ["a"])], {"d": f32(255)}, (0, 255), None, None),
    "subtraction alone tells the range only": (
        [N("Sub", ["image", "m"], ["a"])],
        {"m": per_channel(104, 117, 123)},
        (0, 255),
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_normalization_at_the_head_is_folded_into_the_units_of_the_input(graph: Graph, name: str) -> None:
    head, weights, bounds, mean, std = HEADS[name]
    spec = read_spec(graph.write(head, weights=weights))
    assert (spec.low, spec.high, spec.sources["range"]) == (*bounds, "graph")
    assert spec.sources["normalization"] == ("graph" if mean else "default")
    assert spec.mean == (pytest.approx(mean, rel=1e-5) if mean else None)
    assert spec.std == (pytest.approx(std, rel=1e-5) if std else None)


@pytest.mark.parametrize(
    ("head", "weights"),
    [
        ([N("Sub", ["one", "image"], ["a"])], {"one": f32(1)}),
        ([N("Mul", ["image", "map"], ["a"])], {"map": np.ones((1, 1, 8, 8), np.float32)}),
        ([N("Div", ["image", "zero"], ["a"])], {"zero": f32(0)}),
        ([N("Mul", ["image", "image"], ["a"])], {}),
    ],
    ids=["reversed", "per pixel", "by zero", "by itself"],
)
def test_arithmetic_that_is_no_normalization_tells_nothing(graph: Graph, head: list, weights: Weights) -> None:
    spec = read_spec(graph.write(head, weights=weights))
    assert (spec.low, spec.high, spec.mean, spec.sources["range"]) == (0.0, 1.0, None, "default")


def test_constants_of_constant_nodes_are_read(graph: Graph) -> None:
    head = [
        N("Constant", [], ["m"], value_float=0.5),
        N("Constant", [], ["s"], value=numpy_helper.from_array(f32(0.25))),
        N("Sub", ["image", "m"], ["a"]),
        N("Div", ["a", "s"], ["b"]),
    ]
    spec = read_spec(graph.write(head))
    assert (spec.mean, spec.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ((0.5,), (0.5,), (0, 1)),
        ((0.0,), (255.0,), (0, 255)),
        ((120.0, 0.5), (1.0, 1.0), (0, 255)),
        ((-0.5,), (0.5,), None),
        ((300.0,), (1.0,), None),
        ((0.5,), (3.0,), None),
    ],
)
def test_implied_range(mean: tuple[float, ...], std: tuple[float, ...], expected: tuple[float, float] | None) -> None:
    assert implied_range(mean, std) == expected


def test_channels_last_is_seen_by_the_transpose_even_when_the_sizes_tell_nothing(graph: Graph) -> None:
    head = [N("Sub", ["image", "m"], ["a"]), N("Transpose", ["a"], ["x"], perm=[0, 3, 1, 2])]
    weights = {"m": f32(0.1, 0.2, 0.3)}
    spec = read_spec(graph.write(head, weights=weights, dims=("N", 3, 9, 3)))
    assert (spec.layout, spec.channels, spec.height, spec.width) == ("NHWC", 3, 3, 9)
    assert spec.sources["layout"] == "graph"


def classifier_of_pixels(graph: Graph, dims: Sequence[int | str], size: int) -> Path:
    """A dense layer on the pixels, which does not care about layout."""
    nodes = [N("Flatten", ["image"], ["flat"]), N("MatMul", ["flat", "w"], ["y"])]
    image = helper.make_tensor_value_info("image", F32, dims)
    out = helper.make_tensor_value_info("y", F32, ["N", 3])
    return graph.save(nodes, [image], [out], {"w": np.ones((size, 3), np.float32)})


@pytest.mark.parametrize(
    ("dims", "layout", "source"),
    [
        (("N", 3, 8, 8), "NCHW", "graph"),
        (("N", 8, 8, 1), "NHWC", "graph"),
        (("N", 3, 8, 3), "NCHW", "default"),
        (("N", 4, 8, 8), "NCHW", "default"),
    ],
)
def test_layout_is_read_off_the_place_of_the_channels(graph: Graph, dims: Any, layout: str, source: str) -> None:
    spec = read_spec(classifier_of_pixels(graph, dims, int(np.prod(dims[1:]))))
    assert (spec.layout, spec.sources["layout"]) == (layout, source)


@pytest.mark.parametrize(
    ("operator", "ending"), [("Softmax", "softmax"), ("LogSoftmax", "log_softmax"), ("Sigmoid", "sigmoid")]
)
def test_the_logits_are_found_before_the_ending(graph: Graph, operator: str, ending: str) -> None:
    tail = [N(operator, ["dense"], ["p"]), N("Identity", ["p"], ["q"]), N("Flatten", ["q"], ["out"])]
    spec = read_spec(graph.write(tail=tail, out="out"))
    assert (spec.ending, spec.logits_name, spec.output_name, spec.features_name) == (ending, "dense", "out", "flat")


def test_features_are_found_before_a_bias_and_a_temperature(graph: Graph) -> None:
    tail = [N("Add", ["bias", "dense"], ["b"]), N("Div", ["b", "t"], ["out"])]
    spec = read_spec(graph.write(tail=tail, out="out", weights={"bias": f32(1, 2, 3, 4, 5), "t": f32(2)}))
    assert spec.features_name == "flat"


def test_a_network_that_ends_in_pooling_has_no_features(graph: Graph) -> None:
    nodes = [
        N("Conv", ["image", "k"], ["c"]),
        N("GlobalAveragePool", ["c"], ["p"]),
        N("Flatten", ["p"], ["y"]),
    ]
    image = helper.make_tensor_value_info("image", F32, (1, 3, 8, 8))
    out = helper.make_tensor_value_info("y", F32, (1, 6))
    spec = read_spec(graph.save(nodes, [image], [out], {"k": np.ones((6, 3, 3, 3), np.float32)}))
    assert (spec.features_name, spec.batch, spec.statistics_points) == (None, 1, ())


def test_an_unnamed_batch_normalization_goes_by_its_output(graph: Graph) -> None:
    model = onnx.load(graph.write())
    next(node for node in model.graph.node if node.op_type == "BatchNormalization").name = ""
    onnx.save(model, graph.path)
    assert read_spec(graph.path).statistics_points == ("norm",)


def test_classes_are_counted_by_one_run_where_the_file_is_silent(graph: Graph) -> None:
    assert read_spec(graph.write(out_dims=("N", "K"))).classes == 5


# --------------------------------------------------------------------------------------------------- what is stated


def test_flags_win_over_the_graph(graph: Graph) -> None:
    head, weights, *_ = HEADS["mean and std, per channel"]
    path = graph.write(head, weights=weights, dims=("N", 3, "H", "W"))
    spec = read_spec(
        path, input_shape=(3, 16, 8), input_range=(-1, 2), mean=[0.5], std=[1, 2, 3], layout="NCHW", task="multilabel"
    )
    assert (spec.height, spec.width, spec.low, spec.high) == (16, 8, -1, 2)
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (1, 2, 3))
    assert set(spec.sources.values()) == {"flag"}


def test_a_stated_normalization_implies_the_range(graph: Graph) -> None:
    spec = read_spec(graph.write(), mean=[120], std=[60])
    assert (spec.low, spec.high, spec.sources["range"]) == (0, 255, "flag")


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"input_shape": (3, 9, 8)}, "height 9 does not fit the file's 8"),
        ({"mean": [0.5, 0.5], "std": [1.0]}, "--mean: 2 values for 3 channels"),
        ({"mean": [0.5]}, "give both or neither"),
        ({"mean": [0.5], "std": [0.0]}, "--std: a deviation must be above 0"),
        ({"input_range": (1, 1)}, "--input-range: 1,1 is empty"),
    ],
)
def test_what_is_stated_must_fit(graph: Graph, stated: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        read_spec(graph.write(), **stated)


# -------------------------------------------------------------------------------------------------- what is refused

Write = Callable[[Graph], Path]
REFUSED: dict[str, tuple[Write, str]] = {
    "two inputs": (lambda g: g.write(more_inputs=["size"]), r"2 inputs \(image, size\)"),
    "no float input": (
        lambda g: g.write([N("Cast", ["image"], ["x"], to=F32)], dtype=TensorProto.INT8),
        "'image' is int8; allowed: float32 or uint8 images",
    ),
    "half precision": (
        lambda g: g.write([N("Cast", ["image"], ["x"], to=F32)], dtype=TensorProto.FLOAT16),
        "'image' is float16",
    ),
    "a sequence": (
        lambda g: g.write(
            [N("Reshape", ["image", "shape"], ["x"])], weights={"shape": np.array([-1, 3, 8, 8])}, dims=("N", 3, 64)
        ),
        r"'image' is \[\?,3,64\], not an image; allowed: .* or \[N,F\] of a table",
    ),
    "free height": (
        lambda g: g.write(dims=("N", 3, "H", 8)),
        "leaves the height free; say it with --input-shape C,H,W",
    ),
    "two outputs": (lambda g: g.write(more_outputs=["flat"]), "outputs dense, flat look like more than a classifier"),
    "boxes": (
        lambda g: g.write(tail=[N("Identity", ["flat"], ["boxes"])], more_outputs=["boxes"]),
        "outputs dense, boxes look like object detection",
    ),
    "a map": (
        lambda g: g.write(out="norm", out_dims=("N", 4, 36)),
        r"output 'norm' is \[\?,4,36\]; allowed: one output",
    ),
    "one class": (
        lambda g: g.write(tail=[N("Softmax", ["dense"], ["out"])], out="out", out_dims=("N", 1)),
        "it answers 1 column behind a softmax, which tells nothing",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_teacher_is_refused_in_one_line(graph: Graph, name: str) -> None:
    write, said = REFUSED[name]
    with pytest.raises(BadModel, match=said) as raised:
        read_spec(write(graph))
    assert "\n" not in str(raised.value)


def test_a_sequence_is_no_answer(graph: Graph) -> None:
    graph.write(tail=[N("SequenceConstruct", ["dense"], ["list"])])
    model = onnx.load(graph.path)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_sequence_value_info("list", F32, ["N", 5]))
    onnx.save(model, graph.path)
    with pytest.raises(BadModel, match="an output is a sequence or a map"):
        read_spec(graph.path)


def test_the_example_teacher_tells_everything() -> None:
    example = Path(__file__).parents[3] / "examples" / "teacher.onnx"
    spec = asdict(read_spec(example))
    assert (spec["channels"], spec["height"], spec["width"], spec["classes"]) == (1, 28, 28, 10)
    assert spec["sources"] == {"range": "graph", "normalization": "graph", "layout": "graph", "task": "default"}
    assert len(spec["statistics_points"]) == 7
