"""Teachers of one label per pixel, from distilling to the gate, with numpy for the outside truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from pixel_teacher import random_teacher
from test_distill import settings

from edgekd.bench.protocol import _faithfulness
from edgekd.devices import load_recipe, load_target
from edgekd.distill import distill
from edgekd.evaluate import evaluate, evaluate_run
from edgekd.export import export
from edgekd.gate import Budget, check
from edgekd.inference import open_session
from edgekd.inspect import inspect_model
from edgekd.run_folder import RunFolder
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.session import SessionSource
from edgekd.teachers.source import LabelsOnly
from edgekd.teachers.spec import read_spec


@pytest.fixture(params=[("NCHW", ""), ("NHWC", "Sigmoid")])
def teacher(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    layout, ending = request.param
    onnx.save(random_teacher(7, columns=1, layout=layout, ending=ending), tmp_path / "teacher.onnx")
    return tmp_path / "teacher.onnx"


def images(count: int = 20) -> np.ndarray:
    return (np.random.default_rng(4).integers(0, 256, (count, 2, 8, 12)) / 255).astype(np.float32)


def answered(path: Path, shown: np.ndarray) -> np.ndarray:
    """What ONNX Runtime says, `[N, h, w]`."""
    session = open_session(path)
    last = session.get_inputs()[0].shape[3] == 2
    (answer,) = session.run(None, {"image": shown.transpose(0, 2, 3, 1) if last else shown})
    return answer[..., 0] if last else answer[:, 0]


def logits(path: Path) -> np.ndarray:
    found = answered(path, images()).astype(np.float64)
    return np.log(found / (1 - found)) if read_spec(path).ending == "sigmoid" else found


def on(path: Path, shown: np.ndarray) -> np.ndarray:
    return answered(path, shown) > (0.5 if read_spec(path).ending == "sigmoid" else 0)


def test_every_access_level_has_its_logits(teacher: Path) -> None:
    spec, expected = read_spec(teacher), logits(teacher)
    assert (spec.task, spec.answer_shape, spec.sources["task"]) == ("mask", (1, 4, 6), "graph")
    found = inspect_model(teacher)
    assert found.teacher is not None
    assert (found.teacher.task, found.teacher.grid, found.problems) == ("mask", (4, 6), [])
    exact = GraphTeacher(spec)(torch.from_numpy(images())).logits
    np.testing.assert_allclose(exact[:, 0], expected, rtol=1e-3, atol=1e-3)
    source = SessionSource(spec)
    np.testing.assert_allclose(source.ask(images(), lambda _: None)[:, 0], expected, rtol=1e-3, atol=1e-3)
    labels = LabelsOnly(source).ask(images(), lambda _: None)
    np.testing.assert_array_equal(labels[:, 0] > 0, expected > 0)


def labelled(teacher: Path, folder: Path) -> tuple[Path, np.ndarray]:
    """The teacher's own labels, wrong for every third image, and none for the last row."""
    labels = on(teacher, images()).astype(np.int64)
    labels[::3] = 1 - labels[::3]
    labels[:, -1] = 255
    np.savez(folder / "data.npz", images=images(), labels=labels)
    return folder / "data.npz", labels


def test_accuracy_and_iou_are_those_of_labelled_pixels(teacher: Path, tmp_path: Path) -> None:
    data, labels = labelled(teacher, tmp_path)
    record = evaluate(teacher, data, task="mask")
    found, seen = on(teacher, images()).astype(int), labels != 255
    assert (record["n"], record["accuracy"]) == (seen.sum(), (found == labels)[seen].mean())
    assert [entry["class"] for entry in record["per_class"]] == [0, 1]
    for k, entry in enumerate(record["per_class"]):
        both, either = (found == k) & (labels == k), ((found == k) | (labels == k)) & seen
        assert entry["iou"] == both.sum() / either.sum()
    assert record["mean_iou"] == pytest.approx(np.mean([entry["iou"] for entry in record["per_class"]]))


def test_a_run_learns_it(teacher: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    distill(teacher, settings(), run)
    told, held = run.record()["teacher"], run.held_out()
    assert (told["task"], told["classes"], told["grid"]) == ("mask", 1, [4, 6])
    assert run.record()["student"]["name"] == "unet"
    np.testing.assert_array_equal(held.logits[:, 0] > 0, on(teacher, held.images()))
    assert _faithfulness(teacher, held) == {"agreement": 1.0}


@pytest.mark.slow
def test_the_student_is_exported_and_judged(teacher: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    distill(teacher, settings(steps=240, recipe={"statistics": 0.0}), run)
    recipe = load_recipe("minmax").model_copy(update={"samples": 64})
    exported = export(run, int8=True, target=load_target("cpu"), recipe=recipe)
    held = run.held_out().images()
    theirs, student, int8 = (on(path, held) for path in (teacher, run.student_onnx, run.student_int8_onnx))
    assert exported["agreement"]["student_teacher"] == (student == theirs).mean()
    assert exported["agreement"]["student_teacher"] > max(theirs.mean(), 1 - theirs.mean())
    assert read_spec(run.student_onnx).task == "mask"
    data, labels = labelled(teacher, tmp_path)
    record = evaluate_run(run, data)["student.int8.onnx"]
    seen = labels != 255
    assert record["accuracy"] == (on(run.student_int8_onnx, images()) == labels)[seen].mean()
    (verdict,) = check(run, Budget({"min_agreement": 0.1}))
    assert verdict.actual == (int8 == theirs).mean()
