"""Teachers that take a uint8 image: the same answers as their float twins, at every access level and stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from calling import Call
from onnx import NodeProto, TensorProto, helper, numpy_helper
from test_distill import SMALL, settings
from tiny_teacher import CLASSES, SIDE, classifier

from edgekd import inference
from edgekd.bench.of_run import bench_run
from edgekd.devices import Protocol, load_recipe, load_target
from edgekd.distill import distill
from edgekd.errors import BadData, BadModel, BadSetting
from edgekd.evaluate import evaluate_run
from edgekd.export import export
from edgekd.inspect import inspect_model, rows
from edgekd.run_folder import RunFolder
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.session import SessionSource
from edgekd.teachers.spec import read_spec

N = helper.make_node
FLOAT = TensorProto.FLOAT
SCALED = [N("Cast", ["image"], ["floats"], to=FLOAT), N("Div", ["floats", "most"], ["s"])]
DEQUANTIZED = [N("DequantizeLinear", ["image", "step", "zero"], ["s"])]
LAST = N("Transpose", ["s"], ["x"], perm=[0, 3, 1, 2])
HEADS: dict[str, list[NodeProto]] = {
    "cast": [*SCALED, LAST],
    "dequantized": [*DEQUANTIZED, LAST],
    "dequantized without a zero point": [N("DequantizeLinear", ["image", "step"], ["s"]), LAST],
    "transposed before": [
        N("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
        N("Cast", ["t"], ["floats"], to=FLOAT),
        N("Div", ["floats", "most"], ["x"]),
    ],
    "moved before": [
        N("Shape", ["image"], ["size"]),
        N("Reshape", ["image", "size"], ["shaped"]),
        N("Pad", ["shaped", "around", "grey"], ["wide"], mode="constant"),
        N("Slice", ["wide", "from", "to", "axes"], ["cut"]),
        N("Concat", ["cut", "cut"], ["double"], axis=3),
        N("Gather", ["double", "one"], ["green"], axis=3),
        N("Cast", ["green"], ["floats"], to=FLOAT),
        N("Div", ["floats", "most"], ["s"]),
        LAST,
    ],
}
INTEGER: dict[str, tuple[list[NodeProto], str]] = {
    "halved": ([N("Div", ["image", "two"], ["half"]), N("Cast", ["half"], ["s"], to=FLOAT), LAST], "Div node"),
    "cast to int32": ([N("Cast", ["image"], ["i"], to=6), N("Cast", ["i"], ["s"], to=FLOAT), LAST], "Cast node"),
    "halved after a move": (
        [N("Identity", ["image"], ["i"]), N("Div", ["i", "two"], ["half"]), N("Cast", ["half"], ["s"], to=FLOAT), LAST],
        "Div node",
    ),
    "halved beside": (
        [
            *SCALED,
            N("Div", ["image", "two"], ["half"]),
            N("Cast", ["half"], ["less"], to=FLOAT),
            N("Add", ["less", "s"], ["both"]),
            N("Transpose", ["both"], ["x"], perm=[0, 3, 1, 2]),
        ],
        "Div node",
    ),
}
FIXED: dict[str, np.ndarray] = {
    "most": np.float32([255]),
    "step": np.float32(1 / 255),
    "zero": np.uint8(0),
    "grey": np.uint8(114),
    "two": np.uint8([2]),
    "around": np.int64([0, 2, 0, 0, 0, 1, 0, 0]),
    "from": np.int64([2]),
    "to": np.int64([SIDE + 2]),
    "axes": np.int64([1]),
    "one": np.int64([1]),
}


def with_head(head: list[NodeProto], dtype: int = TensorProto.UINT8, batch: int | str = "N") -> onnx.ModelProto:
    """The tiny teacher behind a head that takes `[N, 12, 12, 1]` from 0 to 255."""
    model = classifier(2)
    nodes = list(model.graph.node)
    nodes[0].input[0] = "x"
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend([*head, *nodes])
    model.graph.input.append(helper.make_tensor_value_info("image", dtype, [batch, SIDE, SIDE, 1]))
    model.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    used = {name for node in head for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in FIXED.items() if k in used)
    onnx.checker.check_model(model)
    return model


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(head: str = "cast", *, name: str = "bytes.onnx", **changes: int) -> Path:
        nodes = HEADS[head] if head in HEADS else INTEGER[head][0]
        onnx.save(with_head(nodes, **changes), tmp_path / name)
        return tmp_path / name

    return make


def codes(count: int = 9) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)


def own_answer(path: Path, images: np.ndarray) -> np.ndarray:
    """ONNX Runtime's, to uint8 `[N, C, H, W]`."""
    return inference.open_session(path).run(["logits"], {"image": images.transpose(0, 2, 3, 1)})[0]


def test_the_file_tells_type_and_range(make: Make) -> None:
    spec = read_spec(make())
    assert (spec.dtype, spec.low, spec.high, spec.layout, spec.sources["range"]) == ("uint8", 0, 255, "NHWC", "graph")
    assert read_spec(make("dequantized")).layout == "NHWC"
    assert read_spec(make(), input_range=(0, 255)).sources["range"] == "graph"
    with pytest.raises(BadSetting, match=r"^--input-range: its input is uint8; allowed: 0,255$"):
        read_spec(make(), input_range=(0, 1))


def test_a_dequantization_tells_the_normalization(tmp_path: Path) -> None:
    model = with_head(HEADS["dequantized"])
    for tensor in model.graph.initializer:
        if tensor.name in ("step", "zero"):
            value = {"step": np.float32(1 / 64), "zero": np.uint8(128)}[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), tensor.name))
    onnx.save(model, tmp_path / "centred.onnx")
    spec = read_spec(tmp_path / "centred.onnx")
    assert (spec.mean, spec.std, spec.low, spec.high) == ((128,), (64,), 0, 255)


def test_integer_arithmetic_is_no_normalization(tmp_path: Path) -> None:
    """Less 2, over 2: of 0 that is 127."""
    head = [N("Sub", ["image", "two"], ["a"]), N("Div", ["a", "two"], ["d"]), N("Cast", ["d"], ["s"], to=FLOAT), LAST]
    onnx.save(with_head(head), tmp_path / "wrapped.onnx")
    spec = read_spec(tmp_path / "wrapped.onnx")
    assert (spec.mean, spec.sources["normalization"], spec.low, spec.high) == (None, "default", 0, 255)


@pytest.mark.parametrize("head", HEADS)
def test_the_exact_gradient_is_that_of_the_float_twin(make: Make, tmp_path: Path, head: str) -> None:
    teacher = GraphTeacher(read_spec(make(head)))
    onnx.save(with_head([*SCALED, LAST], TensorProto.FLOAT), tmp_path / "twin.onnx")
    twin = GraphTeacher(read_spec(tmp_path / "twin.onnx"))
    images = torch.from_numpy(codes().astype(np.float32))
    found, expected = (images.clone().requires_grad_() for _ in range(2))
    for one, shown in ((teacher, found), (twin, expected)):
        answer = one(shown)
        (answer.logits.square().sum() + answer.statistics[0].variance.sum()).backward()
    assert found.grad is not None
    assert found.grad.abs().max() > 0
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(teacher(images).logits.numpy(), own_answer(make(head), codes()), rtol=1e-4, atol=1e-5)


def test_between_whole_numbers_it_answers_for_the_nearest_and_its_gradient_passes(make: Make) -> None:
    teacher, images = GraphTeacher(read_spec(make())), torch.from_numpy(codes().astype(np.float32))
    moved = (images + torch.empty_like(images).uniform_(-0.4, 0.4)).requires_grad_()
    answer = teacher(moved).logits
    assert torch.equal(answer, teacher(images).logits)
    answer.sum().backward()
    exact = images.clone().requires_grad_()
    teacher(exact).logits.sum().backward()
    assert torch.equal(moved.grad, exact.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", [*HEADS, *INTEGER])
def test_answers_by_file_are_onnx_runtime_s_own(make: Make, head: str) -> None:
    source = SessionSource(read_spec(make(head)))
    close = codes().astype(np.float32) + np.random.default_rng(0).uniform(-0.4, 0.4, codes().shape).astype(np.float32)
    for images in (codes().astype(np.float32), close):
        np.testing.assert_array_equal(source.ask(images, lambda _: None), own_answer(make(head), codes()))


@pytest.mark.parametrize("head", INTEGER)
def test_integer_arithmetic_has_no_gradient_and_says_so(make: Make, head: str) -> None:
    said = f"{INTEGER[head][1]} .*computes with the uint8 input as it is, not as floats"
    with pytest.raises(BadModel, match=said) as raised:
        GraphTeacher(read_spec(make(head)))
    assert "\n" not in str(raised.value)
    found = inspect_model(make(head)).access
    assert [found[level].possible for level in ("gradient", "scores", "labels")] == [False, True, True]


def test_distilling_falls_to_scores_and_says_why(call: Call, make: Make) -> None:
    small = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    flags = ["--steps", 1, "--gradient", "estimate", "--directions", 1, "--out", "run", *small]
    shown = call("distill", make("halved"), *flags)
    assert shown.code == 0
    assert "values in [0, 255] (the graph tells), as uint8; its students take the same numbers as float32" in shown.err
    refused = call("distill", make("halved"), "--steps", 1, "--access", "gradient")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "computes with the uint8 input" in refused.err
    auto = call("distill", make("halved"), "--steps", 1, "--method", "edgekd")
    assert (auto.code, len(auto.err.splitlines())) == (2, 1)
    assert "computes with the uint8 input" in auto.err


def test_a_fixed_batch_and_a_free_number_of_classes(make: Make) -> None:
    path = make(batch=2)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "K"
    onnx.save(model, path)
    spec = read_spec(path)
    assert (spec.batch, spec.classes) == (2, CLASSES)
    images = torch.from_numpy(codes(3).astype(np.float32))
    np.testing.assert_allclose(GraphTeacher(spec)(images).logits, inference.logits(path, images.numpy()), atol=1e-4)


def test_inspect_tells_it(make: Make) -> None:
    shown = dict(rows(inspect_model(make())))
    assert shown["input"] == "image uint8 [N,12,12,1]"
    assert shown["range"] == "[0, 255] (graph), as uint8; its students take the same numbers as float32"
    assert [shown[level][:3] for level in ("gradient", "scores", "labels")] == ["yes"] * 3


def test_images_of_another_range_are_refused_and_not_rounded_away(make: Make) -> None:
    for images in (codes() / np.float32(255), codes() + np.float32(0.5), codes() + np.float32(255)):
        with pytest.raises(BadData, match="not whole numbers from 0 to 255, as its uint8 input 'image' takes them"):
            inference.logits(make(), images)
    almost = codes().astype(np.float32) - np.float32(1e-4)
    np.testing.assert_array_equal(inference.logits(make(), almost), own_answer(make(), codes()))


def test_a_run_and_its_evaluation(call: Call, make: Make, tmp_path: Path) -> None:
    teacher, run = make(), RunFolder(tmp_path / "run")
    distill(teacher, settings(), run)
    told, held = run.record()["teacher"], run.held_out()
    assert (told["dtype"], told["low"], told["high"], told["access"]) == ("uint8", 0, 255, "gradient")
    np.testing.assert_allclose(held.logits, own_answer(teacher, held.codes), rtol=1e-2, atol=1e-2)
    labelled(teacher, tmp_path)
    alone = call("eval", teacher, "--data", "data.npz", "--json")
    assert json.loads(alone.out)["models"]["bytes.onnx"]["accuracy"] == 1.0
    wrong = call("eval", teacher, "--data", "data.npz", "--input-range", "0,1")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)
    assert "not whole numbers from 0 to 255" in wrong.err


def labelled(teacher: Path, folder: Path) -> Path:
    """Images with the teacher's own choices for labels."""
    np.savez(folder / "data.npz", images=codes(40), labels=own_answer(teacher, codes(40)).argmax(axis=1))
    return folder / "data.npz"


@pytest.mark.slow
def test_from_teacher_to_measured_student(make: Make, tmp_path: Path) -> None:
    teacher, run = make(), RunFolder(tmp_path / "run")
    distill(teacher, settings(), run)
    recipe, target = load_recipe("minmax").model_copy(update={"samples": 64}), load_target("cpu")
    export(run, int8=True, target=target, recipe=recipe)
    for path in (run.student_onnx, run.student_int8_onnx):
        found = inspect_model(path)
        assert (found.inputs[0].type, found.inputs[0].shape) == ("float32", ["batch", 12, 12, 1])
    for record in evaluate_run(run, labelled(teacher, tmp_path)).values():
        assert record["teacher"]["accuracy"] == 1.0
        assert record["accuracy"] == record["teacher"]["agreement"]
    quick = Protocol(runs=10, seconds=0.001, warmup_runs=1, warmup_seconds=0, processes=1)
    measured = bench_run(run, target.model_copy(update={"bench": quick}))
    assert measured["models"]["teacher"]["agreement"] == 1.0
    assert measured["models"]["teacher"]["inputs"][0]["dtype"] == "uint8"
