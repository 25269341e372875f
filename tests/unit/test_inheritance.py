"""What a student begins with: its teacher's own layers, where the two line up."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from onnx import helper, numpy_helper
from tiny_teacher import classifier
from torch import Tensor, nn

from edgekd.config import DistillSettings
from edgekd.devices import ModelLimits
from edgekd.distill import distill
from edgekd.inference import logits
from edgekd.inheritance import Place, inherit
from edgekd.networks import build_student
from edgekd.networks.standardized import Standardized
from edgekd.objectives import find_method
from edgekd.run_folder import RunFolder
from edgekd.synthesis.supply import drawn
from edgekd.teachers.filters import Layer, layers
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.spec import TeacherSpec, read_spec
from edgekd.tracing import Port, trace

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/teacher.onnx"
SHAPE = (1, 28, 28)


class Depthwise(nn.Module):
    """What MobileNets are made of."""

    def __init__(self) -> None:
        super().__init__()
        widened = (nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        own = (nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.layers = nn.Sequential(*widened, *own, nn.Conv2d(8, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.classifier(self.layers(images).flatten(1))
        return answer


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LeNet-5": partial(build_student, "lenet5", 1.0, SHAPE, 10),
    "residual": partial(build_student, "cnn-small", 0.5, SHAPE, 10),
    "depthwise": Depthwise,
}


def exported(path: Path, net: nn.Module) -> Path:
    """A network as a teacher, with statistics of random images; its exporter folds those away."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.normal_(module.bias, 0, 0.3)
    images = drawn(64, SHAPE)
    net.train()(images)
    trace(net, Port("image", "logits", SHAPE), ModelLimits(), images.numpy()).write(path, {})
    return path


def beginner(name: str, width: float, spec: TeacherSpec) -> Standardized:
    torch.manual_seed(2)
    return Standardized(build_student(name, width, SHAPE, 10), spec.mean or [0.0], spec.std or [1.0])


def agreement(student: nn.Module, path: Path) -> float:
    """The share of images it was not made by, of the same kind, that it answers as ONNX Runtime does of the teacher."""
    torch.manual_seed(3)
    images = drawn(512, SHAPE)
    with torch.no_grad():
        own = student.eval()(images).argmax(dim=1)
    return float((own.numpy() == logits(path, images.numpy()).argmax(axis=1)).mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_one_as_wide_as_its_teacher_answers_as_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = exported(tmp_path / "teacher.onnx", NETWORKS[name]())
    student = Standardized(NETWORKS[name](), [0.0], [1.0])
    images = drawn(64, SHAPE)
    theirs = logits(path, images.numpy())
    spread = np.abs(theirs - theirs.mean(axis=0)).max()
    with torch.no_grad():
        assert np.abs(student.eval()(images).numpy() - theirs).max() > 0.5 * spread
        assert inherit(student, [GraphTeacher(read_spec(path, input_range=(0.0, 1.0)))])
        assert np.abs(student.eval()(images).numpy() - theirs).max() < 0.05 * spread


@pytest.mark.parametrize("folded", [False, True])
def test_a_narrower_one_answers_much_as_its_teacher_before_it_learned_anything(folded: bool, tmp_path: Path) -> None:
    path = EXAMPLE
    if folded:
        path = tmp_path / "folded.onnx"
        onnx.save(onnxsim.simplify(onnx.load(EXAMPLE))[0], path)
    spec = read_spec(path)
    student = beginner("cnn-small", 0.5, spec)
    before = agreement(student, path)
    assert inherit(student, [GraphTeacher(spec)]) == 8
    assert before < 0.3
    assert agreement(student, path) > 0.6


def test_it_comes_to_the_same_each_time_and_draws_nothing_from_the_run() -> None:
    spec = read_spec(EXAMPLE)
    found = []
    for seed in (0, 1):
        student = beginner("cnn-small", 0.25, spec)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        inherit(student, [GraphTeacher(spec)])
        assert torch.equal(torch.get_rng_state(), state)
        found.append(student.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


class Wrapped(nn.Module):
    """A network with one number more than its layers have."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.scale = network, nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.scale * self.network(images)
        return answer


def test_others_are_left_as_they_are() -> None:
    spec = read_spec(EXAMPLE)
    teacher = GraphTeacher(spec)
    others = {
        "of another kind": (beginner("lenet5-half", 0.5, spec), [teacher]),
        "wider": (beginner("cnn-small", 1.25, spec), [teacher]),
        "with more weights": (
            Standardized(Wrapped(build_student("cnn-small", 0.5, SHAPE, 10)), [0.0], [1.0]),
            [teacher],
        ),
        "of several teachers": (beginner("cnn-small", 0.5, spec), [teacher, teacher]),
        "of a teacher that is only asked": (beginner("cnn-small", 0.5, spec), [object()]),
    }
    for what, (student, teachers) in others.items():
        before = {name: value.clone() for name, value in student.state_dict().items()}
        assert inherit(student, teachers) == 0, what
        assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items()), what


def test_a_dense_layer_of_sequences_is_none_whose_channels_are_known() -> None:
    layer = Layer((), False, 4, "entry", "answer", None, 0, torch.ones(4))
    assert Place(nn.Linear(4, 4), None, torch.Size([4])).like(layer, torch.zeros(2, 4))
    assert not Place(nn.Linear(4, 4), None, torch.Size([3, 4])).like(layer, torch.zeros(2, 3, 4))


# ------------------------------------------------------------------------------------------------- layers of a graph


def test_channels_that_are_added_belong_together() -> None:
    found = layers(onnx.load(EXAMPLE), read_spec(EXAMPLE).logits_name)
    assert [layer.channels for layer in found] == [32, 64, 64, 64, 128, 128, 128, 10]
    stem, first, second, shortcut, third, fourth, last, dense = (layer.group for layer in found)
    assert second == shortcut
    assert fourth == last
    assert len({stem, first, second, third, fourth, dense}) == 6
    assert [layer.reads for layer in found] == [None, stem, first, stem, second, third, second, fourth]


def test_what_a_layer_makes_of_a_channel_counts_its_batch_normalization() -> None:
    model = classifier()
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    convolution, dense = layers(model, "logits")
    scale = weights["scale"] / np.sqrt(weights["variance"] + 1e-5)
    squares = np.square(weights["kernel"] * scale[:, None, None, None]).sum()
    np.testing.assert_allclose(convolution.matters.numpy(), [squares], rtol=1e-5)
    np.testing.assert_allclose(dense.matters.numpy(), np.square(weights["dense"]).sum(axis=1), rtol=1e-5)
    assert (convolution.answer, dense.answer) == ("b", "logits")


def test_what_is_done_behind_the_logits_is_not_the_last_layers() -> None:
    model = classifier()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(3), "warmth"))
    model.graph.node.append(helper.make_node("Div", ["logits", "warmth"], ["cool"]))
    assert [layer.answer for layer in layers(model, "logits")] == ["b", "logits"]
    assert [layer.answer for layer in layers(model, "cool")] == ["b", "cool"]


def test_a_dense_layer_that_reads_nothing_known_is_none() -> None:
    model = classifier()
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 8), np.float32), "ones"))
    dense = model.graph.node[-1]
    dense.input[0], dense.input[2] = "ones", "more"
    model.graph.node.insert(5, helper.make_node("Gemm", ["f", "dense", "bias"], ["more"]))
    assert layers(model, "logits") == ()


def test_of_a_graph_that_joins_channels_side_by_side_nothing_is_told() -> None:
    model = classifier(columns=4)
    nodes = {node.name: node for node in model.graph.node}
    nodes["pool"].input[0] = "twice"
    model.graph.node.insert(3, helper.make_node("Concat", ["r", "r"], ["twice"], axis=1))
    assert layers(model, "logits") == ()


# ------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_tells_how_many_layers_it_began_with_and_learns_slower(tmp_path: Path) -> None:
    told: list[str] = []
    recipe = find_method("edgekd").recipe.model_copy(update={"prior": 256, "bank": 512, "generator_batch": 16})
    settings = DistillSettings(recipe=recipe, student="cnn-small", width=0.125, steps=1)
    run = RunFolder(tmp_path / "run")
    distill(EXAMPLE, settings, run, watch=lambda progress: told.append(progress.message or ""))
    assert run.record()["student"]["inherited"] == 8
    assert any("begins with the teacher's 8 layers" in line for line in told)
    other = RunFolder(tmp_path / "other")
    distill(EXAMPLE, settings.model_copy(update={"student": "lenet5-half", "width": 0.5}), other)
    assert other.record()["student"]["inherited"] == 0
    random = RunFolder(tmp_path / "random")
    distill(EXAMPLE, settings.model_copy(update={"recipe": recipe.model_copy(update={"inherit": 0.0})}), random)
    assert "inherited" not in random.record()["student"]
