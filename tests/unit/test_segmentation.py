"""Teachers of classes per pixel from distilling to the gate, with numpy for the outside truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from calling import Call
from pixel_teacher import SIDE, random_teacher, scenes, trained
from records import agreements, run_record
from test_distill import SMALL, exported, interrupted, settings, weights

from edgekd import onnx_file, training
from edgekd.bench.protocol import _faithfulness
from edgekd.distill import distill
from edgekd.errors import BadData, BadModel, BadRun, BadSetting, EdgekdError
from edgekd.evaluate import evaluate, evaluate_run, headers, rows, task_of
from edgekd.gate import Budget, check
from edgekd.inference import open_session
from edgekd.inspect import inspect_model
from edgekd.inspect import rows as inspected
from edgekd.run_folder import HeldOut, RunFolder, read_json, write_json
from edgekd.teachers.spec import read_spec

SET = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


class Done(NamedTuple):
    """A run that was distilled and exported."""

    layout: str
    teacher: Path
    run: RunFolder
    exported: dict[str, Any]


# Exporting takes seconds: the quick tests do it for the case in which all axes are elsewhere.
@pytest.fixture(scope="module", params=[pytest.param("NCHW", marks=pytest.mark.slow), "NHWC"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder, layout = tmp_path_factory.mktemp("pixels"), request.param
    onnx.save(random_teacher(2, layout=layout, ending="Softmax"), folder / "teacher.onnx")
    told = {"layout": layout}  # two channels do not tell it at the head of a quantized file
    return Done(layout, folder / "teacher.onnx", *exported(folder / "teacher.onnx", **told))


def answered(path: Path, images: np.ndarray, layout: str) -> np.ndarray:
    """What ONNX Runtime says, as `[N, h, w, K]`."""
    fed = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if layout == "NHWC" else images
    (answer,) = open_session(path).run(None, {"image": fed})
    return answer if layout == "NHWC" else answer.transpose(0, 2, 3, 1)


def test_the_run_tells_its_grid_and_learns_the_logits(done: Done) -> None:
    record, held = done.run.record(), done.run.held_out()
    told = record["teacher"]
    assert (told["task"], told["classes"], told["grid"]) == ("segmentation", 4, [4, 6])
    assert (held.task, held.layout, held.logits.shape) == ("segmentation", done.layout, (60, 4, 4, 6))
    likely = answered(done.teacher, held.images(), done.layout).astype(np.float64)
    learned = np.exp(held.logits.transpose(0, 2, 3, 1).astype(np.float64))
    np.testing.assert_allclose(learned / learned.sum(axis=3, keepdims=True), likely, rtol=1e-3, atol=1e-5)
    assert record["student"]["name"] == "unet"
    lines = [json.loads(line) for line in done.run.metrics_file.read_text().splitlines()]
    assert 0 < lines[-1]["class_entropy"] <= 1
    assert (done.run.samples / "final.png").is_file()


def test_the_student_answers_as_the_teacher_does_and_says_what(done: Done) -> None:
    images = done.run.held_out().images()
    for path in (done.run.student_onnx, done.run.student_int8_onnx):
        assert answered(path, images, done.layout).shape == (60, 4, 6, 4)
        assert onnx_file.metadata(onnx_file.load(path))["edgekd.task"] == "segmentation"
        assert (read_spec(path, layout=done.layout).grid, task_of(path)) == ((4, 6), "segmentation")  # type: ignore[arg-type]


def test_agreement_is_the_share_of_pixels_of_the_same_class(done: Done) -> None:
    images = done.run.held_out().images()
    files = done.teacher, done.run.student_onnx, done.run.student_int8_onnx
    theirs, student, int8 = (answered(path, images, done.layout).argmax(axis=3) for path in files)
    expected = agreements(theirs, student, int8)
    assert done.exported["agreement"] == expected
    assert done.exported["agreement"]["student_teacher"] > np.bincount(theirs.ravel()).max() / theirs.size
    assert _faithfulness(done.teacher, done.run.held_out()) == {"agreement": 1.0}
    (verdict,) = check(done.run, Budget({"min_agreement": 0.1}))
    assert verdict.actual == expected["student_int8_teacher"]


@pytest.fixture
def data(done: Done, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Random images, the teacher's classes for labels; of every third image the next class, of the last row none."""
    images = np.random.default_rng(5).random((30, 2, 8, 12), dtype=np.float32)
    labels = answered(done.teacher, images, done.layout).argmax(axis=3)
    labels[::3] = (labels[::3] + 1) % 4
    labels[:, -1] = 255
    np.savez(tmp_path / "data.npz", images=images, labels=labels.astype(np.uint8))
    return tmp_path / "data.npz", images, labels


def test_accuracy_and_iou_are_those_of_the_labelled_pixels(
    done: Done, data: tuple[Path, np.ndarray, np.ndarray]
) -> None:
    path, images, labels = data
    records = evaluate_run(done.run, path)
    seen = labels != 255
    for name, record in records.items():
        found = answered(done.run.path / name, images, done.layout).argmax(axis=3)
        right = (found == labels)[seen]
        assert (record["n"], record["correct"], record["accuracy"]) == (right.size, right.sum(), right.mean())
        both = [((found == k) & (labels == k)).sum() for k in range(4)]
        either = [(((found == k) | (labels == k)) & seen).sum() for k in range(4)]
        ious = [b / e if e else None for b, e in zip(both, either, strict=True)]
        assert [entry["iou"] for entry in record["per_class"]] == ious
        assert record["mean_iou"] == pytest.approx(np.mean([iou for iou in ious if iou is not None]))
        assert record["teacher"]["accuracy"] == pytest.approx(2 / 3)
        assert 0 < record["teacher"]["mean_iou"] < 1
        teacher = answered(done.teacher, images, done.layout).argmax(axis=3)
        assert record["teacher"]["agreement"] == (found == teacher).mean()
    table = [dict(zip(headers(records), row, strict=True)) for row in rows(records)]
    assert table[0]["mean IoU"] == f"{records['student.onnx']['mean_iou']:.2%}".replace("%", " %")
    assert (table[-1]["model"], table[-1]["images"]) == ("teacher.onnx (teacher)", "30")
    (verdict,) = check(done.run, Budget({"min_accuracy": 0.0}))
    assert verdict.actual == records["student.int8.onnx"]["accuracy"]


def test_files_alone_are_evaluated_by_what_they_tell(
    done: Done, data: tuple[Path, np.ndarray, np.ndarray], call: Call, tmp_path: Path
) -> None:
    (tmp_path / "teacher.onnx").write_bytes(done.teacher.read_bytes())
    shown = call("eval", "teacher.onnx", "--data", data[0], "--json")
    assert json.loads(shown.out)["models"]["teacher.onnx"]["accuracy"] == pytest.approx(2 / 3)
    text = call("eval", "teacher.onnx", "--data", data[0]).out.splitlines()
    assert "mean IoU" in text[0]
    assert text[2].split()[-1] == "30"


# -------------------------------------------------------------------------------------------------- a real teacher


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "ending"), [(1, "softmax"), (4, "")], ids=["6x6 pixels", "24x24 pixels"])
def test_a_trained_teacher_s_student_finds_what_was_drawn(scale: int, ending: str, call: Call, tmp_path: Path) -> None:
    """What is drawn was shown to the teacher alone; the student has seen procedural and generated images."""
    trained(tmp_path / "seg.onnx", scale=scale, ending=ending)
    grid = SIDE * scale // 4
    images, labels = scenes(100, 10**6, grid)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    small = {"prior": 1024, "bank": 2048, "generator_batch": 64, "student_batch": 64, "student_steps": 2}
    told = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    assert call("distill", "seg.onnx", "--steps", 100, "--threads", 1, "--out", "run", *told).code == 0
    assert call("export", "run", "--int8", "--force", "--no-measure").code == 0
    exported = read_json(tmp_path / "run" / "export.json")
    assert exported["agreement"]["student_int8_student"] > 0.95
    shown = call("eval", "run", "--data", "data.npz", "--json")
    models = json.loads(shown.out)["models"]
    majority = np.bincount(labels.ravel()).max() / labels.size
    for record in models.values():
        assert record["teacher"]["accuracy"] > 0.97
        assert record["accuracy"] > majority + 0.3 * (1 - majority)
        assert record["mean_iou"] > 0.5  # always saying the ground would have a quarter
    assert models["student.int8.onnx"]["model"]["bytes"] < onnx_file.size(tmp_path / "seg.onnx") / 4
    gated = call("gate", "run", "--min-agreement", "80%", "--min-accuracy", majority + 0.05)
    assert (gated.code, gated.out.splitlines()[-1]) == (0, "gate: ok, 2 limits held")


# ----------------------------------------------------------------------------------------------------- going on


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    onnx.save(random_teacher(), tmp_path / "teacher.onnx")
    return tmp_path / "teacher.onnx"


@pytest.mark.parametrize("access", ["gradient", "scores"])
def test_an_interrupted_run_of_pixels_resumes_to_the_same_bits(teacher, tmp_path, monkeypatch, access) -> None:
    more = {"access": access} | ({"gradient": "estimate", "directions": 2} if access == "scores" else {})
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(teacher, settings(steps=4, **more), whole)
    with monkeypatch.context() as patched:
        patched.setattr("test_distill.settings", lambda **changes: settings(**{"steps": 4} | more | changes))
        interrupted(teacher, parts, 3, patched)
    distill(teacher, settings(steps=4, **more), parts, resume=True)
    assert weights(parts) == weights(whole)


def test_a_run_recorded_before_there_were_grids_goes_on(teacher_file, tmp_path, monkeypatch) -> None:
    run = RunFolder(tmp_path / "run")
    interrupted(teacher_file, run, 3, monkeypatch)
    record = read_json(run.record_file)
    del record["teacher"]["grid"]
    write_json(run.record_file, record)
    distill(teacher_file, settings(), run, resume=True)
    assert run.record()["state"] == "finished"


def test_a_bank_counts_the_answers_of_pixels(teacher, tmp_path, monkeypatch) -> None:
    """An image has 2 x 8 x 12 bytes, its answer 4 x 4 x 6 numbers of 4 bytes: 576 in all."""
    monkeypatch.setattr(training, "BANK_BYTES", 576 * 100)
    seen: list[training.Training] = []

    def note(self: training.Training, most: float) -> bool:
        seen.append(self)
        raise EdgekdError("enough is known")

    monkeypatch.setattr(training.Training, "ask_about_prior", note)
    with pytest.raises(EdgekdError, match="enough is known"):
        distill(teacher, settings(), RunFolder(tmp_path / "run"))
    assert [len(bank.codes) for bank in (seen[0].bank, seen[0].prior, seen[0].held_out)] == [100, 64, 100]
    assert seen[0].bank.targets.shape == (100, 4, 4, 6)


def test_held_out_answers_come_back_with_their_layout(tmp_path) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_held_out(
        HeldOut(np.zeros((2, 1, 2, 2), np.uint8), np.zeros((2, 3, 2, 2), np.float32), 0, 1, "segmentation", "NHWC")
    )
    assert (run.held_out().task, run.held_out().layout) == ("segmentation", "NHWC")


@pytest.mark.parametrize("change", [{"task": "segmentation"}, {"grid": [2, 2]}, {"task": "segmentation", "grid": [2]}])
def test_a_record_of_pixels_without_their_grid_is_damaged(tmp_path, change) -> None:
    run = RunFolder(tmp_path)
    write_json(run.record_file, run_record(change))
    with pytest.raises(BadRun, match=r"run\.json: damaged \(teacher"):
        run.record()
    write_json(run.record_file, run_record({"task": "segmentation", "grid": [2, 2]}))
    assert run.record()["teacher"]["grid"] == [2, 2]


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "arguments", "said"),
    [
        ({"columns": 1}, ["--task", "binary"], "--task binary: teacher.onnx answers 1 column per pixel; allowed: mask"),
        ({}, ["--task", "classes"], "--task classes: teacher.onnx answers 4 columns per pixel; allowed: segmentation"),
        (
            {},
            ["--student", "cnn-small"],
            "student cnn-small: it answers for the image as a whole",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call: Call, tmp_path, options, arguments, said) -> None:
    onnx.save(random_teacher(**options), tmp_path / "teacher.onnx")
    shown = call("distill", "teacher.onnx", "--steps", 1, "--out", "run", *SET, *arguments)
    assert said in shown.err
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (2, "", 1)
    assert not Path("run").exists()


def test_a_student_of_pixels_is_none_of_images(call: Call, teacher_file) -> None:
    shown = call("distill", teacher_file, "--steps", 1, "--out", "run", *SET, "--student", "unet")
    assert "student unet: it answers for every pixel, the teacher for the image as a whole; allowed: " in shown.err
    assert (shown.code, len(shown.err.splitlines())) == (2, 1)


def test_a_factory_of_one_s_own_is_tried_on_the_grid(teacher, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_pixels.py").write_text(
        "from torch import nn\n"
        "def fits(shape, classes, width):\n    return nn.Conv2d(shape[0], classes, 3, 2, 1)\n"
        "def large(shape, classes, width):\n    return nn.Conv2d(shape[0], classes, 3, 1, 1)\n"
    )
    with pytest.raises(BadSetting, match=r"it answers \[2, 4, 8, 12\] .*allowed: \[N, 2, 8, 12\] to \[N, 4, 4, 6\]"):
        distill(teacher, settings(student="own_pixels:large"), RunFolder(tmp_path / "run"))
    distill(teacher, settings(steps=1, student="own_pixels:fits"), RunFolder(tmp_path / "run"))


def test_teachers_of_different_grids_do_not_teach_together(teacher, tmp_path) -> None:
    other = random_teacher()
    next(node for node in other.graph.node if node.name == "classify").attribute.extend(
        [onnx.helper.make_attribute("strides", [2, 2])]
    )
    del other.graph.output[0].type.tensor_type.shape.dim[2:]
    other.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 4, 2, 3]))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(BadModel, match=r"other\.onnx: grid 2x3, but .*teacher\.onnx has 4x6"):
        distill([teacher, tmp_path / "other.onnx"], settings(), RunFolder(tmp_path / "run"))
    distill([teacher, teacher], settings(steps=1), RunFolder(tmp_path / "run"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros(5, int), r"labels are int64 of shape \[5\]; allowed: integers \[N, h, w\] for segmentation"),
        (np.zeros((5, 4, 6)), "labels are float64"),
        (np.zeros((5, 6, 4), int), r"6 x 4 labels for each image, teacher\.onnx answers 4 x 6; allowed: \[N, 4, 6\]"),
        (np.full((5, 4, 6), 4), "label 4 of image 0 is no class of teacher.onnx; allowed: 0 to 3, 255 is not counted"),
        (np.full((5, 4, 6), -1), "label -1 of image 0 is no class"),
        (np.full((5, 4, 6), 255), "every label is 255, which is not counted"),
    ],
)
def test_labels_that_do_not_fit(call: Call, teacher, tmp_path, labels, said) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((5, 2, 8, 12), np.uint8), labels=labels)
    with pytest.raises(BadData, match=said):
        evaluate(teacher, tmp_path / "data.npz", task="segmentation")
    shown = call("eval", "teacher.onnx", "--data", "data.npz")
    assert (shown.code, shown.out, len(shown.err.splitlines())) == (2, "", 1)


def test_models_of_other_answers_are_not_evaluated(teacher, teacher_file, tmp_path) -> None:
    onnx.save(random_teacher(), tmp_path / "pixels.onnx")
    np.savez(tmp_path / "data.npz", images=np.zeros((5, 2, 8, 12), np.uint8), labels=np.zeros(5, int))
    with pytest.raises(BadModel, match="4 columns per pixel are not for task classes; allowed: segmentation"):
        evaluate(tmp_path / "pixels.onnx", tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz", images=np.zeros((5, 1, 12, 12), np.uint8), labels=np.zeros((5, 2, 2), int))
    with pytest.raises(BadModel, match="4 columns are not for task segmentation; allowed: classes, multilabel"):
        evaluate(teacher_file, tmp_path / "data.npz", task="segmentation")


def test_what_is_told_of_a_teacher_of_pixels(teacher, tmp_path) -> None:
    found = inspect_model(teacher)
    shown = dict(inspected(found))
    assert (shown["task"], shown["classes"], shown["answers for"]) == ("segmentation (graph)", "4", "4x6 pixels")
    assert found.access["gradient"].possible
    seen: list[Any] = []
    distill(teacher, settings(steps=1), RunFolder(tmp_path / "run"), watch=seen.append)
    said = "\n".join(progress.message or "" for progress in seen)
    assert "4 classes for each of 4x6 pixels, ends in logits; task segmentation (the graph tells)" in said
