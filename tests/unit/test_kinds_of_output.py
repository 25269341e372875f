"""Teachers of one label and of several, from distilling to the gate, with numpy for the outside truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from calling import Call
from records import agreements
from test_distill import SMALL, exported, interrupted, settings, weights
from tiny_teacher import classifier

from edgekd import onnx_file
from edgekd.bench.protocol import _faithfulness
from edgekd.distill import distill
from edgekd.errors import BadData, BadModel, BadRun, BadSetting
from edgekd.evaluate import evaluate, evaluate_run, task_of
from edgekd.gate import Budget, check
from edgekd.inference import open_session
from edgekd.inspect import inspect_model, rows
from edgekd.run_folder import HeldOut, RunFolder, read_json, write_json
from edgekd.teachers.session import SessionSource
from edgekd.teachers.source import SURE, LabelsOnly
from edgekd.teachers.spec import read_spec

SET = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


class Case(NamedTuple):
    """A teacher and what is told of it."""

    task: Any
    columns: int
    ending: str
    told: Any = None


CASES = {
    "one probability": Case("binary", 1, "Sigmoid"),
    "one logit": Case("binary", 1, ""),
    "probabilities": Case("multilabel", 3, "Sigmoid"),
    "logits, told": Case("multilabel", 3, "", "multilabel"),
}


class Done(NamedTuple):
    """A run that was distilled and exported."""

    case: Case
    teacher: Path
    run: RunFolder
    exported: dict[str, Any]


# Exporting takes seconds: the quick tests do it for probabilities alone, behind which the logits are to be found.
PARAMETERS = [pytest.param(name, marks=() if case.ending else pytest.mark.slow) for name, case in CASES.items()]


@pytest.fixture(scope="module", params=PARAMETERS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder, case = tmp_path_factory.mktemp("kind"), CASES[request.param]
    seed = {1: 1, 3: 2}[case.columns]  # random weights whose labels are on for some images and off for others
    onnx.save(classifier(seed, columns=case.columns, ending=case.ending), folder / "teacher.onnx")
    return Done(case, folder / "teacher.onnx", *exported(folder / "teacher.onnx", task=case.told))


def answered(path: Path, images: np.ndarray) -> np.ndarray:
    """What ONNX Runtime says, untouched."""
    return open_session(path).run(None, {"image": images})[0]


def on(case: Case, teacher: Path, images: np.ndarray) -> np.ndarray:
    """Which labels a teacher says are on."""
    return answered(teacher, images) > (0.5 if case.ending else 0.0)


def test_the_run_tells_its_task_and_learns_the_logits(done: Done) -> None:
    record, held = done.run.record(), done.run.held_out()
    assert (record["teacher"]["task"], record["teacher"]["classes"]) == (done.case.task, done.case.columns)
    assert (held.task, held.logits.shape) == (done.case.task, (60, done.case.columns))
    found = answered(done.teacher, held.images()).astype(np.float64)
    expected = np.log(found / (1 - found)) if done.case.ending else found
    np.testing.assert_allclose(held.logits, expected, rtol=1e-3, atol=1e-3)
    lines = [json.loads(line) for line in done.run.metrics_file.read_text().splitlines()]
    assert 0 < lines[-1]["class_entropy"] <= 1
    assert (done.run.samples / "final.png").is_file()


def test_the_student_answers_as_the_teacher_does_and_says_what(done: Done) -> None:
    images = done.run.held_out().images()
    for path in (done.run.student_onnx, done.run.student_int8_onnx):
        assert answered(path, images).shape == (60, done.case.columns)
        assert onnx_file.metadata(onnx_file.load(path))["edgekd.task"] == done.case.task
        assert (read_spec(path).task, task_of(path)) == (done.case.task, done.case.task)


def test_agreement_is_the_share_of_labels_of_the_same_sign(done: Done) -> None:
    images = done.run.held_out().images()
    theirs = on(done.case, done.teacher, images)
    student, int8 = (answered(p, images) > 0 for p in (done.run.student_onnx, done.run.student_int8_onnx))
    expected = agreements(theirs, student, int8)
    assert done.exported["agreement"] == expected
    assert 0.1 < theirs.mean() < 0.9  # so that agreement by always saying the same is far from one
    assert done.exported["agreement"]["student_teacher"] > 0.75
    assert _faithfulness(done.teacher, done.run.held_out()) == {"agreement": 1.0}
    (verdict,) = check(done.run, Budget({"min_agreement": 0.5}))
    assert verdict.actual == expected["student_int8_teacher"]


@pytest.fixture
def data(done: Done, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Random images whose labels are the teacher's, but for every third image."""
    images = np.random.default_rng(5).random((30, 1, 12, 12), dtype=np.float32)
    labels = on(done.case, done.teacher, images).astype(np.int64)
    labels[::3] = 1 - labels[::3]
    stored = labels if done.case.task == "multilabel" else labels[:, 0]
    np.savez(tmp_path / "data.npz", images=images, labels=stored)
    return tmp_path / "data.npz", images, labels


def test_accuracy_is_the_share_of_right_labels(done: Done, data: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, images, labels = data
    records = evaluate_run(done.run, path)
    for name, record in records.items():
        right = (answered(done.run.path / name, images) > 0) == labels
        assert record["task"] == done.case.task
        assert (record["n"], record["correct"], record["accuracy"]) == (right.size, right.sum(), right.mean())
        assert record["data"]["images"] == 30
        assert record["teacher"]["accuracy"] == pytest.approx(2 / 3)
        per_class = [entry["accuracy"] for entry in record["per_class"]]
        if done.case.task == "multilabel":
            assert per_class == pytest.approx(right.mean(axis=0).tolist())
        else:
            assert per_class == [right[labels == k].mean() if (labels == k).any() else None for k in (0, 1)]
    (verdict,) = check(done.run, Budget({"min_accuracy": 0.0}))
    assert verdict.actual == records["student.int8.onnx"]["accuracy"]


def test_files_alone_are_evaluated_by_what_they_tell(
    done: Done, data: tuple[Path, np.ndarray, np.ndarray], call: Call, tmp_path: Path
) -> None:
    for source in (done.teacher, done.run.student_onnx):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    told = ["--task", done.case.told] if done.case.told else []
    shown = call("eval", "teacher.onnx", "--data", data[0], "--json", *told)
    assert json.loads(shown.out)["models"]["teacher.onnx"]["accuracy"] == pytest.approx(2 / 3)
    alone = json.loads(call("eval", "student.onnx", "--data", data[0], "--json").out)["models"]["student.onnx"]
    assert alone["accuracy"] == evaluate(done.run.student_onnx, data[0], task=done.case.task)["accuracy"]
    assert call("eval", "student.onnx", "--data", data[0]).out.splitlines()[2].split()[-1] == "30"


# ---------------------------------------------------------------------------------------------- recognised and told


@pytest.fixture
def make(tmp_path: Path):
    def make(columns: int = 4, ending: str = "", name: str = "teacher.onnx") -> Path:
        onnx.save(classifier(columns=columns, ending=ending), tmp_path / name)
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("columns", "ending", "told", "expected"),
    [
        (4, "", None, "classes (default)"),
        (4, "Softmax", None, "classes (graph)"),
        (4, "Sigmoid", None, "multilabel (graph)"),
        (4, "Sigmoid", "classes", "classes (flag)"),
        (4, "", "multilabel", "multilabel (flag)"),
        (1, "", None, "binary (graph)"),
        (1, "Sigmoid", "binary", "binary (flag)"),
    ],
)
def test_inspect_tells_the_task(make, columns, ending, told, expected) -> None:
    found = inspect_model(make(columns, ending), task=told)
    shown = dict(rows(found))
    assert (shown["task"], found.problems) == (expected, [])
    assert shown["classes" if expected.startswith("classes") else "label columns"] == str(columns)
    assert found.access["gradient"].possible


def test_inspect_says_what_does_not_fit(make) -> None:
    found = inspect_model(make(4), task="binary")
    assert found.teacher is None
    assert found.problems[0].startswith("--task binary: ")
    assert "tells nothing" in inspect_model(make(1, "Softmax")).problems[0]


def test_what_is_told_before_the_run_names_the_task(make, tmp_path) -> None:
    for (columns, ending), said in {
        (4, ""): "4 classes, ends in logits; task classes (a guess: say --task if it is wrong)",
        (1, "Sigmoid"): "one label, ends in sigmoid; task binary (the graph tells)",
        (4, "Sigmoid"): "4 labels, ends in sigmoid; task multilabel (the graph tells)",
    }.items():
        seen: list[Any] = []
        run = RunFolder(tmp_path / f"run{columns}{ending}")
        distill(make(columns, ending), settings(steps=1), run, watch=seen.append)
        assert said in "\n".join(progress.message or "" for progress in seen)


# ------------------------------------------------------------------------------------------------ going on


def test_an_interrupted_run_of_labels_resumes_to_the_same_bits(make, tmp_path, monkeypatch) -> None:
    teacher, whole, parts = make(3, "Sigmoid"), RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(teacher, settings(), whole)
    interrupted(teacher, parts, 3, monkeypatch)
    with pytest.raises(BadRun, match="as multilabel, now classes"):
        distill(teacher, settings(task="classes"), parts, resume=True)
    distill(teacher, settings(), parts, resume=True)
    assert weights(parts) == weights(whole)


def test_a_run_begun_before_labels_were_known_does_not_change_its_meaning(make, tmp_path, monkeypatch) -> None:
    teacher, run = make(3, "Sigmoid"), RunFolder(tmp_path / "run")
    interrupted(teacher, run, 3, monkeypatch)
    record = read_json(run.record_file)
    del record["teacher"]["task"], record["settings"]["task"]
    write_json(run.record_file, record)
    with pytest.raises(BadRun, match="as classes, now multilabel"):
        distill(teacher, settings(), run, resume=True)


def test_held_out_images_of_an_older_run_are_of_classes(tmp_path) -> None:
    run = RunFolder(tmp_path / "run")
    codes, logits = np.zeros((2, 1, 2, 2), np.uint8), np.zeros((2, 3), np.float32)
    run.write_held_out(HeldOut(codes, logits, 0, 1, "multilabel"))
    assert run.held_out().task == "multilabel"
    np.savez(run.held_out_file, images=codes, logits=logits, range=np.array([0.0, 1.0]))
    assert run.held_out().task == "classes"
    np.savez(run.held_out_file, images=codes, logits=logits, range=np.array([0.0, 1.0]), task="poems")
    with pytest.raises(BadRun, match="no usable held-out samples"):
        run.held_out()


# ---------------------------------------------------------------------------------------------- only asked


def nothing(_: int) -> None:
    raise AssertionError("a file is never asked twice")


@pytest.mark.parametrize(("columns", "ending"), [(1, "Sigmoid"), (3, "Sigmoid"), (1, "")])
def test_of_labels_only_the_sign_leaves_the_source(make, columns, ending) -> None:
    images = np.random.default_rng(1).random((9, 1, 12, 12), dtype=np.float32)
    path = make(columns, ending)
    found = LabelsOnly(SessionSource(read_spec(path))).ask(images, nothing)
    expected = on(Case("", columns, ending), path, images)
    np.testing.assert_allclose(found, np.where(expected, 1, -1) * np.log(SURE / (1 - SURE)), rtol=1e-5)


def test_teachers_of_different_tasks_do_not_teach_together(make, tmp_path) -> None:
    files = [make(3), make(3, "Sigmoid", "other.onnx")]
    with pytest.raises(BadModel, match=r"other\.onnx: task multilabel, but .*teacher\.onnx has classes; .*--task"):
        distill(files, settings(), RunFolder(tmp_path / "run"))
    distill(files, settings(steps=1, task="multilabel"), RunFolder(tmp_path / "run"))


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("columns", "ending", "arguments", "said"),
    [
        (4, "", ["--task", "binary"], "--task binary: teacher.onnx answers 4 columns; allowed: classes, multilabel"),
        (1, "", ["--task", "classes"], "--task classes: teacher.onnx answers 1 column; allowed: binary"),
        (4, "Softmax", ["--task", "multilabel"], "answers 4 columns behind a softmax; allowed: classes"),
        (1, "Softmax", [], "it answers 1 column behind a softmax, which tells nothing"),
        (4, "", ["--task", "pixels"], "--task"),
    ],
)
def test_a_task_that_does_not_fit_is_one_line(make, call: Call, columns, ending, arguments, said) -> None:
    make(columns, ending)
    shown = call("distill", "teacher.onnx", "--steps", 1, "--out", "run", *SET, *arguments)
    assert said in shown.err
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (2, "", 1)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("task", "columns", "labels", "said"),
    [
        ("multilabel", 3, np.zeros(5, int), r"labels are int64 of shape \[5\]; allowed: integers \[N, K\] for multil"),
        ("multilabel", 3, np.zeros((5, 2), int), r"2 labels for each image, .* answers 3; allowed: \[N, 3\]"),
        ("multilabel", 3, np.full((5, 3), 2), "label 2 of image 0 is no class of .*; allowed: 0 to 1"),
        ("binary", 1, np.zeros((5, 1), int), r"labels are int64 of shape \[5, 1\]; allowed: integers \[N\] for binary"),
        ("binary", 1, np.array([0, 1, -1, 0, 0]), "label -1 of image 2 is no class"),
    ],
)
def test_labels_that_do_not_fit(make, tmp_path, task, columns, labels, said) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((5, 1, 12, 12), np.uint8), labels=labels)
    with pytest.raises(BadData, match=said):
        evaluate(make(columns, "Sigmoid"), tmp_path / "data.npz", task=task)


def test_a_model_of_another_task_is_not_evaluated(make, tmp_path) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((5, 1, 12, 12), np.uint8), labels=np.zeros(5, int))
    with pytest.raises(BadModel, match="4 columns are not for task binary; allowed: classes, multilabel"):
        evaluate(make(4), tmp_path / "data.npz", task="binary")


def test_the_task_of_a_run_is_not_for_a_flag(done: Done, call: Call, data: tuple[Path, np.ndarray, np.ndarray]) -> None:
    shown = call("eval", done.run.path, "--data", data[0], "--task", "classes")
    assert (shown.code, shown.err.count("\n")) == (2, 1)
    assert "--task: the run's record tells it" in shown.err


def test_settings_know_no_other_task() -> None:
    with pytest.raises(BadSetting, match="task: "):
        settings(task="pixels")
