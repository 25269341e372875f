"""Teachers of classes per pixel, however they are reached, answer what ONNX Runtime does; what is none is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from inference_server import serving
from onnx import TensorProto, helper
from pixel_teacher import random_teacher

from edgekd.config import Reach
from edgekd.errors import BadModel, EdgekdError
from edgekd.inference import open_session
from edgekd.teachers.asked import AskedTeacher
from edgekd.teachers.estimate import Directions
from edgekd.teachers.function import FunctionSource
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.pixels import Stated
from edgekd.teachers.session import SessionSource
from edgekd.teachers.source import SURE, LabelsOnly
from edgekd.teachers.spec import read_spec

Make = Callable[..., Path]
COUNT = 5
SHAPES = [("NCHW", ""), ("NCHW", "Softmax"), ("NHWC", ""), ("NHWC", "Softmax"), ("NHWC", "LogSoftmax")]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(change: Callable[[onnx.ModelProto], None] = lambda _: None, **options: object) -> Path:
        model = random_teacher(**options)
        change(model)
        onnx.save(model, tmp_path / "teacher.onnx")
        return tmp_path / "teacher.onnx"

    return make


def images() -> np.ndarray:
    codes = np.random.default_rng(1).integers(0, 256, (COUNT, 2, 8, 12), dtype=np.uint8)
    return (codes / np.float32(255)).astype(np.float32)


def logits(layout: str) -> np.ndarray:
    """`[N, K, h, w]` as ONNX Runtime answers without an ending."""
    session = open_session(Path("plain"), graph=random_teacher(layout=layout).SerializeToString())
    fed = images().transpose(0, 2, 3, 1) if layout == "NHWC" else images()
    (answer,) = session.run(None, {"image": np.ascontiguousarray(fed)})
    return answer.transpose(0, 3, 1, 2) if layout == "NHWC" else answer


def centred(values: np.ndarray) -> np.ndarray:
    """Without what a softmax forgets."""
    return values - values.mean(axis=1, keepdims=True)


def nothing(_: int) -> None:
    raise AssertionError("nothing is asked twice")


# ------------------------------------------------------------------------------------------------------ what it does


@pytest.mark.parametrize(("layout", "ending"), SHAPES)
def test_a_file_tells_its_grid(make: Make, layout: str, ending: str) -> None:
    spec = read_spec(make(layout=layout, ending=ending))
    assert (spec.task, spec.classes, spec.grid, spec.layout) == ("segmentation", 4, (4, 6), layout)
    assert (spec.answer_shape, spec.logits_name, spec.sources["task"]) == ((4, 4, 6), "logits", "graph")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_grid_that_the_file_leaves_free_is_measured(make: Make, layout: str) -> None:
    def free(model: onnx.ModelProto) -> None:
        for axis in model.graph.output[0].type.tensor_type.shape.dim[1:]:
            axis.dim_param = "free"

    assert read_spec(make(free, layout=layout)).answer_shape == (4, 4, 6)


def test_the_grid_follows_from_a_stated_image(make: Make) -> None:
    def free(model: onnx.ModelProto) -> None:
        for value in (model.graph.input[0], model.graph.output[0]):
            for axis in value.type.tensor_type.shape.dim[2:]:
                axis.dim_param = "free"

    spec = read_spec(make(free), input_shape=(2, 20, 16))
    assert (spec.answer_shape, spec.height, spec.width) == ((4, 10, 8), 20, 16)
    answer = GraphTeacher(spec)(torch.zeros(3, 2, 20, 16))
    assert answer.logits.shape == (3, 4, 10, 8)
    source = SessionSource(spec)
    shown = np.zeros((3, 2, 20, 16), np.float32)
    np.testing.assert_allclose(source.ask(shown, nothing), answer.logits.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("layout", "ending"), SHAPES)
def test_the_graph_answers_the_logits_of_every_pixel(make: Make, layout: str, ending: str) -> None:
    shown = torch.from_numpy(images()).requires_grad_()
    answer = GraphTeacher(read_spec(make(layout=layout, ending=ending)))(shown)
    np.testing.assert_allclose(answer.logits.detach().numpy(), logits(layout), rtol=1e-4, atol=1e-4)
    assert len(answer.statistics) == 1
    answer.logits[:, 0, 0, 0].sum().backward()
    assert shown.grad is not None
    reached = shown.grad[0].abs().sum(dim=0) > 0  # the upper left cell sees the upper left pixels, and no others
    assert reached[:2, :2].all()
    assert not reached[3:].any()
    assert not reached[:, 3:].any()


@pytest.mark.parametrize(("layout", "ending"), SHAPES)
def test_a_session_answers_the_same(make: Make, layout: str, ending: str) -> None:
    source = SessionSource(read_spec(make(layout=layout, ending=ending)))
    np.testing.assert_allclose(source.ask(images(), nothing), logits(layout), rtol=1e-4, atol=1e-4)


def test_only_the_class_of_each_pixel_leaves_a_source_of_labels(make: Make) -> None:
    found = LabelsOnly(SessionSource(read_spec(make()))).ask(images(), nothing)
    likely = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(found.argmax(axis=1), logits("NCHW").argmax(axis=1))
    np.testing.assert_allclose(likely.max(axis=1), SURE, rtol=1e-5)


def test_the_ledger_keeps_the_grid_and_asks_once(make: Make, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    teacher = AskedTeacher(SessionSource(read_spec(make())), ledger)
    for _ in range(2):
        answer = teacher(torch.from_numpy(images())).logits.numpy()
        np.testing.assert_allclose(answer, logits("NCHW"), rtol=1e-4, atol=1e-4)
        assert ledger.asked == COUNT
    ledger.close()


def test_a_gradient_is_estimated_from_all_pixels(make: Make, tmp_path: Path) -> None:
    """In the mean over many directions it points where the exact one points."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    spec = read_spec(make())
    asked = AskedTeacher(SessionSource(spec), ledger, Directions(64, 4, spec.low, spec.high))
    found = []
    torch.manual_seed(0)
    for teacher in (asked, GraphTeacher(spec)):
        shown = torch.from_numpy(images()).clamp(0.1, 0.9).requires_grad_()
        teacher(shown).logits[:, 1].sum().backward()
        assert shown.grad is not None
        found.append(torch.nn.functional.avg_pool2d(shown.grad, 4).flatten())
    ledger.close()
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.8


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("sure", [True, False])
def test_a_function_answers_in_the_layout_of_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, sure: bool
) -> None:
    module = f"pixels_{layout.lower()}_{sure}"
    (tmp_path / f"{module}.py").write_text(
        "import numpy as np\nweights = np.random.default_rng(0).normal(size=(3, 2))\n"
        "def answer(images):\n"
        f"    planes = images.transpose(0, 3, 1, 2) if {layout == 'NHWC'} else images\n"
        "    out = np.einsum('kc,nchw->nkhw', weights, planes[:, :, ::2, ::2])\n"
        f"    out = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True) if {sure} else out\n"
        f"    return out.transpose(0, 2, 3, 1) if {layout == 'NHWC'} else out\n"
    )
    monkeypatch.chdir(tmp_path)
    stated, name, trust = Stated((2, 8, 12), layout=layout), f"python:{module}:answer", Reach(trust_callable=True)  # type: ignore[arg-type]
    source = FunctionSource(name, stated, trust, {})
    assert (source.spec.task, source.spec.answer_shape) == ("segmentation", (3, 4, 6))
    assert (source.spec.ending, source.probed) == ("softmax" if sure else "logits", 4)
    weights = np.random.default_rng(0).normal(size=(3, 2))
    expected = np.einsum("kc,nchw->nkhw", weights, images()[:, :, ::2, ::2])
    np.testing.assert_allclose(centred(source.ask(images(), nothing)), centred(expected), rtol=1e-4, atol=1e-5)
    known = {"classes": 3, "grid": [4, 6], "task": "segmentation", "ending": source.spec.ending}
    again = FunctionSource(name, stated, trust, known)
    assert (again.spec.answer_shape, again.probed) == ((3, 4, 6), 0)


@pytest.mark.parametrize("dims", [[-1, 4, 4, 6], [-1, -1, -1, -1]])
@pytest.mark.parametrize("binary", [True, False])
def test_a_server_answers_pixels(monkeypatch: pytest.MonkeyPatch, dims: list[int], binary: bool) -> None:
    pytest.importorskip("httpx")
    from edgekd.teachers.endpoint import EndpointSource

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    session = open_session(Path("plain"), graph=random_teacher().SerializeToString())
    with serving() as server:
        server.answer = lambda shown: session.run(None, {"image": shown.astype(np.float32)})[0]
        server.input = {"name": "image", "datatype": "FP32", "shape": [-1, 2, 8, 12]}
        server.outputs = [{"name": "logits", "datatype": "FP32", "shape": dims}]
        server.extensions, server.takes_binary = (["binary_tensor_data"], True) if binary else ([], False)
        source = EndpointSource(server.url, Stated(), Reach(patience=1.0), {})
        assert (source.spec.task, source.spec.answer_shape) == ("segmentation", (4, 4, 6))
        np.testing.assert_allclose(source.ask(images(), nothing), logits("NCHW"), rtol=1e-4, atol=1e-4)
        server.answer = lambda shown: np.zeros((len(shown), 4, 6, 4), np.float32)
        with pytest.raises(EdgekdError, match=r"of shape \[5, 4, 6, 4\].*allowed: scores of shape \[5, 4, 4, 6\]"):
            source.ask(images(), nothing)
        source.close()


# ------------------------------------------------------------------------------------------------- what is no teacher


def ends(
    *nodes: onnx.NodeProto, sizes: tuple[int, ...] = (4, 4, 6), kind: int = TensorProto.FLOAT
) -> Callable[[onnx.ModelProto], None]:
    """Put nodes behind the logits; the last one's output, of these sizes, becomes the model's."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node.extend(nodes)
        answer = helper.make_tensor_value_info(nodes[-1].output[0], kind, ["N", *sizes])
        model.graph.output[0].CopyFrom(answer)

    return change


def opset_12(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


AXIS = "over the classes alone, axis"
REFUSED = {
    "masks": ({"ending": "Sigmoid"}, None, "it answers 4 columns per pixel that do not exclude each other"),
    "one pixel": (
        {},
        ends(helper.make_node("AveragePool", ["logits"], ["pooled"], kernel_shape=[4, 6]), sizes=(4, 1, 1)),
        r"it answers \[\?,4,1,1\], once per image; flatten the output to \[N,K\]",
    ),
    "softmax over columns of pixels": ({"ending": "Softmax", "axis": 3}, None, f"Softmax runs over axis 3; .*{AXIS} 1"),
    "softmax over rows": ({"ending": "LogSoftmax", "axis": -3, "layout": "NHWC"}, None, f"over axis 1; .*{AXIS} 3"),
    "an old softmax": ({"ending": "Softmax"}, opset_12, f"runs over axis 1 and those behind it; .*{AXIS} 1 of NCHW"),
    "softmax, then turned": (
        {},
        ends(
            helper.make_node("Transpose", ["logits"], ["t"], perm=[0, 2, 3, 1]),
            helper.make_node("Softmax", ["t"], ["s"], axis=3),
            helper.make_node("Transpose", ["s"], ["u"], perm=[0, 3, 1, 2]),
        ),
        "a Transpose comes behind its Softmax; allowed: logits, or a Softmax at the very end",
    ),
    "the class itself": (
        {},
        ends(helper.make_node("ArgMax", ["logits"], ["class"], axis=1), kind=TensorProto.INT64, sizes=(1, 4, 6)),
        "output 'class' tells the choice alone; allowed: one output .*; export it with the scores for output, without",
    ),
    "classes last": (
        {},
        ends(helper.make_node("Transpose", ["logits"], ["t"], perm=[0, 2, 3, 1]), sizes=(4, 6, 4)),
        r"it answers \[\?,4,6,4\] to NCHW images; allowed: \[N,K,h,w\] for images",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_answers_pixels_otherwise_is_refused_in_one_line(make: Make, name: str) -> None:
    options, change, said = REFUSED[name]
    path = make(change or (lambda _: None), **options)
    with pytest.raises(BadModel, match=said) as raised:
        read_spec(path)
    assert "\n" not in str(raised.value)


def test_a_function_of_the_wrong_axes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "turned_pixels.py").write_text(
        "import numpy as np\n"
        "def last(images):\n    return np.repeat(images[:, 0, ::2, ::2, None], 3, axis=3)\n"
        "def cube(images):\n    return images[:, 0]\n"
    )
    monkeypatch.chdir(tmp_path)
    stated, trust = Stated((2, 8, 12)), Reach(trust_callable=True)
    with pytest.raises(BadModel, match=r"it answers \[\?,4,6,3\] to NCHW images"):
        FunctionSource("python:turned_pixels:last", stated, trust, {})
    with pytest.raises(BadModel, match=r"float32 of shape \[4, 8, 12\] to 4 images; allowed: .*\[4, K\]"):
        FunctionSource("python:turned_pixels:cube", stated, trust, {})
