"""Token ids in place of images: what is read of a teacher of them, what its students take, and what is refused."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from test_distill import settings, weights
from test_teacher_class import DIET
from text_teacher import IDS, LENGTH, by_hand, random_teacher

from edgekd import codes, networks, split
from edgekd.bench.inputs import describe
from edgekd.config import DistillSettings
from edgekd.devices import load_recipe, load_target
from edgekd.distill import distill
from edgekd.errors import BadData, BadModel, BadRun, BadSetting
from edgekd.evaluate import evaluate, evaluate_run, input_range, task_of
from edgekd.export import export
from edgekd.fidelity import fidelity
from edgekd.inference import logits, open_session
from edgekd.inspect import inspect_model
from edgekd.inspect import rows as inspected
from edgekd.networks.joined import Parts, contiguous
from edgekd.part_files import exported_parts
from edgekd.quantize import Terms
from edgekd.quantize.any_model import export_model
from edgekd.report import report
from edgekd.run_folder import RunFolder, write_json
from edgekd.sweep import planned
from edgekd.synthesis.bank import Bank
from edgekd.teachers import Signal
from edgekd.teachers.codes import from_codes, to_codes
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.spec import read_spec
from edgekd.training import Training
from edgekd.transfer import transfer


def tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, IDS, (count, LENGTH))


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    onnx.save(random_teacher(), tmp_path / "text.onnx")
    return tmp_path / "text.onnx"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    np.savez(tmp_path / "real.npz", tokens=tokens(300))
    return tmp_path / "real.npz"


def chosen(real: Path, **changes: Any) -> DistillSettings:
    return settings(**({"samples": str(real), "method": "teacher-class", "students": 2} | changes))


def quantized(run: RunFolder) -> dict[str, Any]:
    recipe = load_recipe("minmax").model_copy(update={"samples": 48})
    return export(run, int8=True, target=load_target("cpu"), recipe=recipe, terms=Terms(force=True))


# ---------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(("kind", "name"), [(TensorProto.INT64, "int64"), (TensorProto.INT32, "int32")])
def test_ids_their_length_and_their_number_are_read_from_the_graph(tmp_path: Path, kind: int, name: str) -> None:
    onnx.save(random_teacher(dtype=kind), tmp_path / "text.onnx")
    spec = read_spec(tmp_path / "text.onnx")
    assert (spec.layout, spec.channels, spec.height, spec.width, spec.dtype) == ("NT", LENGTH, 1, 1, name)
    assert (spec.low, spec.high, spec.vocabulary, spec.classes, spec.sources["range"]) == (0, 19, 20, 3, "graph")
    assert (input_range(spec.path), task_of(spec.path)) == ((0.0, 19.0), "classes")


def test_inspect_tells_them(teacher: Path) -> None:
    found = inspect_model(teacher)
    assert found.teacher is not None
    assert (found.teacher.layout, found.teacher.range, found.teacher.dtype) == ("NT", (0.0, 19.0), "int64")
    table = dict(inspected(found))
    assert table["token ids"] == "[0, 19] (graph)"
    assert table["batch norm"] == "none: they are of no use where ids have no gradient"
    assert table["gradient"] == "yes: its graph runs in torch, though ids have no gradient"


def test_the_length_may_be_told(tmp_path: Path) -> None:
    onnx.save(random_teacher(length="T"), tmp_path / "text.onnx")
    with pytest.raises(BadModel, match=r"leaves the length of its sequences free; say .* --input-shape T"):
        read_spec(tmp_path / "text.onnx")
    assert read_spec(tmp_path / "text.onnx", input_shape=(9, 1, 1)).channels == 9


def test_the_number_of_ids_may_be_told(tmp_path: Path) -> None:
    onnx.save(random_teacher(onehot=True), tmp_path / "text.onnx")
    with pytest.raises(BadModel, match=r"no table in it tells how many token ids there are; .*--input-range 0,LAST"):
        read_spec(tmp_path / "text.onnx")
    spec = read_spec(tmp_path / "text.onnx", input_range=(0, 19))
    assert (spec.vocabulary, spec.sources["range"]) == (20, "flag")


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"input_shape": (1, 2, 3)}, r"--input-shape: input 'tokens' takes token ids \[N,T\]; allowed: T, .*, 6"),
        ({"input_shape": (7, 1, 1)}, r"--input-shape: input 'tokens' takes token ids"),
        ({"input_range": (0, 20)}, "--input-range: 0,20 are no ids of it; allowed: 0,LAST with LAST up to 19"),
        ({"input_range": (0.0, 0.5)}, "--input-range: 0,0.5 are no ids of it"),
        ({"mean": (0.5,), "std": (0.2,)}, "--mean/--std: its input is token ids"),
        ({"layout": "NHWC"}, "--layout: its input is token ids; allowed: without"),
    ],
)
def test_what_does_not_fit_ids_is_refused(teacher: Path, stated: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        read_spec(teacher, **stated)


def test_a_teacher_of_ids_and_a_mask_is_refused_with_its_cure(tmp_path: Path) -> None:
    model = random_teacher()
    model.graph.input.append(onnx.helper.make_tensor_value_info("mask", TensorProto.INT64, ["N", LENGTH]))
    onnx.save(model, tmp_path / "text.onnx")
    with pytest.raises(BadModel, match=r"2 inputs \(tokens, mask\).*masks and kinds computed from them"):
        read_spec(tmp_path / "text.onnx")


def test_the_graph_in_torch_answers_as_by_hand(teacher: Path) -> None:
    graph, ids = GraphTeacher(read_spec(teacher)), tokens(40)
    assert Signal.GRADIENT not in graph.signals
    assert Signal.FEATURES in graph.signals
    answer, (dense, expected) = graph(torch.from_numpy(ids.astype(np.float32))[:, :, None, None]), by_hand(ids)
    np.testing.assert_allclose(answer.features, dense, atol=1e-5)
    np.testing.assert_allclose(answer.logits, expected, atol=1e-5)
    np.testing.assert_allclose(logits(teacher, ids.astype(np.float32)[:, :, None, None]), expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------ how they are stored


def test_ids_are_stored_as_they_are() -> None:
    ids = np.array([0, 1, 255, 256, 70_000, codes.MOST_IDS - 1], np.float32).reshape(1, -1, 1, 1)
    stored = codes.to_codes(ids, 0.0, codes.MOST_IDS - 1.0, "int32")
    assert stored.dtype == np.int32
    np.testing.assert_array_equal(codes.from_codes(stored, 0.0, codes.MOST_IDS - 1.0), ids)
    bank = Bank(4, (6, 1, 1), (2,), 0.0, codes.MOST_IDS - 1.0, kind="int32")
    bank.add(torch.from_numpy(ids), torch.zeros(1, 2))
    kept, _ = bank.newest(1)
    np.testing.assert_array_equal(kept.numpy(), stored)
    assert torch.equal(from_codes(kept, 0.0, 1.0), torch.from_numpy(ids))
    assert to_codes(torch.tensor([[-3.0, 4.6, 99.0]]), 0.0, 19.0, "int32").tolist() == [[0, 5, 19]]


def test_a_model_is_measured_on_ids_that_it_has(teacher: Path) -> None:
    (entry,) = describe(onnx.load(teacher), teacher, None, 0.0, 1.0)
    assert (entry.shape, entry.dtype, entry.low, entry.high) == ((1, LENGTH), "int64", 0.0, 19.0)


# ------------------------------------------------------------------------------------------------------ students


def test_a_text_cnn_is_an_embedding_a_convolution_and_its_greatest_and_mean_values() -> None:
    torch.manual_seed(0)
    student = networks.build_student("text-cnn", 0.125, (LENGTH, 1, 1), 3, ids=IDS)
    ids = torch.from_numpy(tokens(5))
    own = {name: value.detach().numpy() for name, value in student.named_parameters()}
    embedded = np.pad(own["embedding.weight"][ids], ((0, 0), (1, 1), (0, 0)))
    found = sum(embedded[:, step : step + LENGTH] @ own["filters.weight"][:, :, step].T for step in range(3))
    found = np.maximum(found + own["filters.bias"], 0)
    both = np.concatenate([found.max(axis=1), found.mean(axis=1)], axis=1)
    expected = both @ own["classifier.weight"].T + own["classifier.bias"]
    np.testing.assert_allclose(student(ids).detach(), expected, atol=1e-5)


def test_auto_is_a_text_cnn_of_a_twentieth_of_the_teacher() -> None:
    parts = Parts(contiguous(128, 4))
    name, width = networks.choose_student("auto", None, (48, 1, 1), 2, 3_000_000, parts=parts, ids=9000)
    size = networks.parameters(networks.build_student(name, width, (48, 1, 1), 2, parts=parts, ids=9000))
    assert name == "text-cnn"
    assert 100_000 < size <= 0.05 * 3_000_000 * 1.01


@pytest.mark.parametrize("name", ["mlp", "lenet5"])
def test_students_of_something_else_are_refused(teacher: Path, real: Path, run: RunFolder, name: str) -> None:
    with pytest.raises(BadSetting, match=r"the teacher token ids; allowed: auto, text-cnn, module:factory"):
        distill(teacher, chosen(real, student=name), run)
    with pytest.raises(BadSetting, match="student text-cnn: it takes token ids, the teacher images"):
        networks.build_student("text-cnn", 1.0, (1, 8, 8), 3)
    assert not run.path.exists()


# ----------------------------------------------------------------------------------------------------- distilling


@pytest.mark.slow
def test_students_side_by_side_come_as_files_that_take_ids(teacher: Path, real: Path, run: RunFolder) -> None:
    seen: list[Any] = []
    distill(teacher, chosen(real, steps=40), run, watch=seen.append)
    told = "\n".join(one.message for one in seen if one.message)
    assert "teacher: sequences of 6 token ids, 3 classes" in told
    assert "ids in [0, 19] (the graph tells)" in told
    record, held = run.record(), run.held_out()
    assert (record["student"]["name"], len(record["student"]["parts"]["chunks"])) == ("text-cnn", 2)
    assert (held.codes.dtype, held.codes.shape[1:]) == (np.int32, (LENGTH, 1, 1))
    np.testing.assert_allclose(held.logits, by_hand(held.codes[:, :, 0, 0])[1], atol=1e-4)
    assert not list(run.samples.glob("*.png"))
    written = export(run, int8=False, target=load_target("cpu"), recipe=load_recipe("minmax"), apart=True)
    assert written["files"]["student"]["check"]["agreement"] == 1.0
    (entry,) = open_session(run.student_onnx).get_inputs()
    assert (entry.name, entry.type, entry.shape[1:]) == ("tokens", "tensor(int64)", [LENGTH])
    ids = tokens(50, seed=1)
    (joined,) = open_session(run.student_onnx).run(None, {"tokens": ids})
    student = networks.load_student(record, run.student_weights)
    with torch.no_grad():
        np.testing.assert_allclose(joined, student(torch.from_numpy(ids)), atol=1e-4)
    apart = split.joined_answer(list(exported_parts(run, record, "").values()), ids.astype(np.float32))
    np.testing.assert_allclose(apart, joined, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_run_of_ids_is_evaluated_shown_and_given_another_head(
    teacher: Path, real: Path, run: RunFolder, tmp_path: Path
) -> None:
    distill(teacher, chosen(real, steps=40), run)
    proof = quantized(run)["proof"]["int8"]
    assert "Gather" not in proof[1]["float_nodes"]
    ids = tokens(100, seed=2)
    labels = by_hand(ids)[1].argmax(axis=1)
    np.savez(tmp_path / "rest.npz", tokens=ids, labels=labels)
    both = evaluate_run(run, tmp_path / "rest.npz")
    assert list(both) == ["student.onnx", "student.int8.onnx"]
    found = both["student.onnx"]
    own = open_session(run.student_onnx).run(None, {"tokens": ids})[0].argmax(axis=1)
    assert found["accuracy"] == (own == labels).mean()
    by_class = [2 * ((own == k) & (labels == k)).sum() / ((own == k).sum() + (labels == k).sum()) for k in range(3)]
    assert found["f1"] == pytest.approx(np.mean(by_class))
    assert (found["teacher"]["accuracy"], found["teacher"]["f1"]) == (1.0, 1.0)
    alone = evaluate(run.student_onnx, tmp_path / "rest.npz", high=19.0)
    assert alone["accuracy"] == found["accuracy"]
    assert list(fidelity(run)["student.onnx"]["probes"]) == ["held_out"]
    report(run)
    assert "token ids, which are no pictures" in (run.path / "report.html").read_text()
    record = transfer(run, tmp_path / "rest.npz", tmp_path / "head.onnx", target=load_target("cpu"))
    assert record["samples"]["classes"] == 3
    assert evaluate(tmp_path / "head.onnx", tmp_path / "rest.npz", high=19.0)["n"] == 100


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bits(
    teacher: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(teacher, chosen(real), whole)
    step = Training.student_step

    def stopped(self: Training, *batch: torch.Tensor) -> object:
        if self.images_seen == 2 * 2 * 32:
            signal.raise_signal(signal.SIGINT)
        return step(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "student_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher, chosen(real), parts)
    assert parts.record()["progress"]["step"] == 3
    early = export(parts, int8=False, target=load_target("cpu"), recipe=load_recipe("minmax"))
    assert early["files"]["student"]["check"]["agreement"] == 1.0  # on ids, which noise is none of
    distill(teacher, chosen(real), parts, resume=True)
    assert weights(parts) == weights(whole)


def test_a_student_is_added_to_those_of_text(teacher: Path, real: Path, run: RunFolder, tmp_path: Path) -> None:
    distill(teacher, chosen(real, width=0.25), run)
    more = RunFolder(tmp_path / "more")
    distill(teacher, settings(added_to=str(run.path), samples=str(real)), more)
    student = more.record()["student"]
    assert (student["name"], student["width"], len(student["parts"]["added"])) == ("text-cnn", 0.25, 1)


def test_a_file_of_ids_is_quantized_on_ids(teacher: Path, real: Path) -> None:
    recipe = load_recipe("minmax").model_copy(update={"samples": 48})
    told = {"target": load_target("cpu"), "precision": "int8", "recipe": recipe}
    record = export_model(teacher, **told, terms=Terms(force=True, real=real))
    assert record["proof"]["int8"][1]["agreement_float"] > 0.8
    (entry,) = open_session(teacher.with_name("text.int8.onnx")).get_inputs()
    assert entry.type == "tensor(int64)"
    assert read_spec(teacher.with_name("text.int8.onnx")).vocabulary == IDS  # of a table that is stored as bytes
    np.savez(real, tokens=tokens(60) + 1)
    with pytest.raises(BadData, match="id 20 at place"):
        export_model(teacher, **told, terms=Terms(force=True, real=real), overwrite=True)


@pytest.mark.parametrize("access", ["gradient", "scores", "labels"])
def test_one_student_learns_ids_too_by_whatever_is_answered(
    teacher: Path, real: Path, run: RunFolder, access: str
) -> None:
    learned = settings(
        samples=str(real), access=access, steps=150, recipe={"student_optimizer": "adam", "student_rate": 1e-2}
    )
    distill(teacher, learned, run)
    assert run.record()["settings"]["method"] == "edgekd"
    student, ids = networks.load_student(run.record(), run.student_weights), tokens(400, seed=3)
    with torch.no_grad():
        own = student(torch.from_numpy(ids)).argmax(dim=1).numpy()
    theirs = by_hand(ids)[1].argmax(axis=1)
    assert (own == theirs).mean() > max(np.bincount(theirs)) / len(theirs) + 0.05


@pytest.mark.slow
def test_without_samples_random_sequences_are_asked_about_and_bred(teacher: Path, run: RunFolder) -> None:
    seen: list[Any] = []
    learned = settings(
        **{"method": "teacher-class", "students": 2, "steps": 200, "width": 0.25, "recipe": {"bank": 2048}}
    )
    distill(teacher, learned, run, watch=seen.append)
    told = [one.message for one in seen if one.message]
    assert "no samples: random sequences of ids are asked about, and bred by the answers" in told
    assert run.record()["samples"] == {"count": 0, "sha256": None, "alone": True}
    kept = torch.load(run.checkpoint_file, weights_only=True)["parts"]["bank"]
    asked = kept["codes"].flatten(1).numpy()
    assert (asked.dtype, asked.shape, kept["written"]) == (np.int32, (2048, LENGTH), 2048)
    assert set(np.unique(asked)) == set(range(IDS))
    answers = by_hand(asked)[1].argmax(axis=1)
    np.testing.assert_array_equal(kept["targets"][:, -3:].argmax(dim=1), answers)
    drawn, bred = (np.bincount(answers[part], minlength=3) for part in (slice(0, 500), slice(1500, None)))
    assert bred.min() / bred.sum() > drawn.min() / drawn.sum()  # every class is wanted equally often
    student, ids = networks.load_student(run.record(), run.student_weights), tokens(400, seed=3)
    with torch.no_grad():
        own = student(torch.from_numpy(ids)).argmax(dim=1).numpy()
    assert (own == by_hand(ids)[1].argmax(axis=1)).mean() > 0.7
    assert export(run, int8=False, target=load_target("cpu"), recipe=load_recipe("minmax"))["files"].keys() == {
        "student"
    }


def test_ids_are_learned_alike_whatever_is_said_of_procedural_images(teacher: Path, tmp_path: Path) -> None:
    runs = [RunFolder(tmp_path / name) for name in ("one", "other")]
    for run, told in zip(runs, ({}, DIET), strict=True):
        chosen = settings(method="teacher-class", students=2, steps=3, width=0.25, recipe={"bank": 256} | told)
        distill(teacher, chosen, run)
    assert weights(runs[0]) == weights(runs[1])


# ------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"method": "dafl"},
            "without a generator no batch is generated; .* --method edgekd and --method teacher-class",
        ),
        ({"method": "student-guided"}, "without a generator no batch is generated"),
        ({"method": "nayer-style", "recipe": {"noisy": False}}, "token ids are no pixels to move"),
    ],
)
def test_methods_that_need_a_generator_are_refused(
    teacher: Path, run: RunFolder, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadSetting, match=said):
        distill(teacher, settings(**changes), run)
    assert not run.path.exists()


def test_a_sweep_is_refused(teacher: Path) -> None:
    with pytest.raises(BadSetting, match="it takes token ids, which no generator makes"):
        planned([teacher], settings(), ["text-cnn"], None, load_target("cpu"))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"tokens": np.zeros((99, LENGTH))}, r"tokens are float64 of shape \[99, 6\]; allowed: whole numbers"),
        ({"images": np.zeros((99, 1, 8, 8), np.uint8)}, "the teacher takes no images"),
        ({"tokens": np.zeros((99, 5), int)}, r"shape \[99, 5\]; allowed: \[N, 6\]; pad or cut each to 6 ids"),
        (
            {"tokens": np.full((99, LENGTH), 20)},
            "id 20 at place 0 of sequence 0 is not in the vocabulary; allowed: 0 to 19",
        ),
        ({"tokens": np.full((99, LENGTH), -1)}, "id -1 at place 0"),
        ({"tokens": np.zeros((0, LENGTH), int)}, "it holds no sequences"),
        ({"tokens": np.zeros((10, LENGTH), int)}, "it holds 10 images; allowed: 64 and more"),
        ({"labels": np.zeros(99, int)}, "no tokens in it"),
    ],
)
def test_samples_that_are_no_such_ids_are_refused(
    teacher: Path, run: RunFolder, tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(BadData, match=said):
        distill(teacher, chosen(tmp_path / "bad.npz"), run)
    assert not run.path.exists()


@pytest.mark.parametrize("changed", [{"dtype": "float32"}, {"layout": "NF"}, {"high": [19.0] * LENGTH}])
def test_a_record_whose_ids_are_none_is_damaged(
    teacher: Path, real: Path, run: RunFolder, changed: dict[str, Any]
) -> None:
    distill(teacher, chosen(real, steps=1), run)
    record = run.record()
    write_json(run.record_file, record | {"teacher": record["teacher"] | changed})
    with pytest.raises(BadRun, match="do not belong together"):
        run.record()


def test_a_model_of_images_takes_no_ids(teacher_file: Path, real: Path, run: RunFolder) -> None:
    with pytest.raises(BadData, match="no images; it holds tokens"):
        distill(teacher_file, chosen(real), run)
