"""A class of students as a user makes one: without data and from samples, one more added, exported whole and split."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import runner
from pixel_teacher import random_teacher
from test_path import QUICK, SMALL

from edgekd import split
from edgekd.inference import logits, open_session
from edgekd.part_files import exported_parts
from edgekd.run_folder import RunFolder

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_whole_path_of_a_class_of_students(tmp_path: Path) -> None:
    """Of the example's teacher; three students share its representation unevenly, and a fourth is added to them."""
    (tmp_path / "teacher.onnx").write_bytes((EXAMPLES / "teacher.onnx").read_bytes())
    (tmp_path / "quick.toml").write_text(QUICK)
    with np.load(EXAMPLES / "evaluation.npz") as labelled:
        np.savez(tmp_path / "rest.npz", images=labelled["images"][:100], labels=labelled["labels"][:100])
    edgekd, recipe = runner(sys.executable, tmp_path), [w for k, v in SMALL.items() for w in ("--set", f"{k}={v}")]
    clock = ["--steps", "3", "--threads", "1", *recipe]
    asked = ["--method", "teacher-class", "--students", "3", "--chunks", "balanced"]
    told = edgekd("distill", "teacher.onnx", *asked, "--out", "run", *clock)
    assert "3 students for 128 numbers, which does not divide evenly: 43 and 42 each" in told.stderr
    edgekd("distill", "teacher.onnx", "--add-student", "run", "--out", "more", *clock)
    record = json.loads(edgekd("export", "more", "--int8", "--split", "--force", "--json").stdout)
    assert record["files"]["student"]["check"]["agreement"] == 1.0
    run = RunFolder(tmp_path / "more")
    images = run.held_out().images()
    for suffix in ("", ".int8"):
        files = list(exported_parts(run, run.record(), suffix).values())
        assert len(files) == 5
        joined = split.joined_answer(files, images)
        if not suffix:
            np.testing.assert_allclose(joined, logits(run.student_onnx, images), rtol=1e-3, atol=1e-3)
    bench = json.loads(edgekd("bench", "more", "--target", "quick.toml", "--json").stdout)
    assert list(bench["models"]) == ["teacher", "student", "student.int8"]
    alone = json.loads(edgekd("bench", run.parts / "head.onnx", "--target", "quick.toml", "--json").stdout)
    assert list(alone["models"]) == ["head"]
    edgekd("gate", "more", "--max-size", "10MB")
    found = json.loads(edgekd("eval", "more", "--data", "rest.npz", "--json").stdout)["models"]
    assert found["student.int8.onnx"]["data"]["images"] == 100


def test_the_adversarial_form_learns_from_samples(tmp_path: Path) -> None:
    (tmp_path / "teacher.onnx").write_bytes((EXAMPLES / "teacher.onnx").read_bytes())
    with np.load(EXAMPLES / "evaluation.npz") as labelled:
        np.savez(tmp_path / "real.npz", images=labelled["images"][:200])
    edgekd, recipe = runner(sys.executable, tmp_path), [w for k, v in SMALL.items() for w in ("--set", f"{k}={v}")]
    asked = ["--method", "teacher-class-gan", "--students", "2", "--samples", "real.npz"]
    edgekd("distill", "teacher.onnx", *asked, "--out", "run", "--steps", "3", "--threads", "1", *recipe)
    record = json.loads(edgekd("export", "run", "--int8", "--force", "--json").stdout)
    assert record["files"].keys() == {"student", "student_int8"}
    assert record["coverage"]["reference"] == "real samples"
    with np.load(EXAMPLES / "evaluation.npz") as labelled:
        np.savez(tmp_path / "other.npz", images=labelled["images"][:200], labels=labelled["labels"][:200] % 2)
    record = json.loads(edgekd("distill", "run", "--head-only", "--samples", "other.npz", "--json").stdout)
    assert (record["file"]["path"], record["samples"]["classes"]) == ("other.onnx", 2)
    found = json.loads(edgekd("eval", "other.onnx", "--data", "other.npz", "--json").stdout)["models"]
    assert found["other.onnx"]["data"]["images"] == 200


def test_a_class_of_students_of_pixels(tmp_path: Path) -> None:
    """Chunks are of the last map's channels, axes are the other way round, and images are real ones."""
    onnx.save(random_teacher(2, layout="NHWC"), tmp_path / "teacher.onnx")
    images = np.random.default_rng(0).integers(0, 256, (96, 8, 12, 2), dtype=np.uint8)
    (answer,) = open_session(tmp_path / "teacher.onnx").run(None, {"image": images.astype(np.float32) / 255})
    np.savez(tmp_path / "real.npz", images=images)
    np.savez(tmp_path / "rest.npz", images=images[:20], labels=answer[:20].argmax(axis=3))
    edgekd, recipe = runner(sys.executable, tmp_path), [w for k, v in SMALL.items() for w in ("--set", f"{k}={v}")]
    asked = ["--method", "teacher-class", "--students", "3", "--samples", "real.npz", "--steps", "3", *recipe]
    told = edgekd("distill", "teacher.onnx", "--out", "run", "--input-range", "0,1", "--threads", "1", *asked)
    assert "3 students for 8 channels, which does not divide evenly: 3 and 2 each" in told.stderr
    edgekd("export", "run", "--int8", "--split", "--force")
    run = RunFolder(tmp_path / "run")
    held = run.held_out().images().transpose(0, 2, 3, 1)
    for suffix in ("", ".int8"):
        files = list(exported_parts(run, run.record(), suffix).values())
        joined = split.joined_answer(files, np.ascontiguousarray(held), "NHWC")
        assert joined.shape[1:] == (4, 6, 4)
        if not suffix:
            (whole,) = open_session(run.student_onnx).run(None, {"image": np.ascontiguousarray(held)})
            np.testing.assert_allclose(joined, whole, rtol=1e-3, atol=1e-3)
    found = json.loads(edgekd("eval", "run", "--data", "rest.npz", "--json").stdout)["models"]
    assert 0 <= found["student.onnx"]["mean_iou"] <= 1


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "teacher.onnx").write_bytes((EXAMPLES / "teacher.onnx").read_bytes())
    edgekd = runner(sys.executable, tmp_path)
    for words, said in (
        (["--method", "teacher-class", "--students", "60000"], "students"),
        (["--method", "teacher-class", "--students", "4", "--samples", "nowhere.npz"], "no such file"),
        (["--students", "4"], "has one student and cuts nothing"),
        (["--add-student", "nowhere"], "not a run folder"),
        (["--head-only"], "an .npz with images and labels"),
        (["--head-only", "--samples", "real.npz", "--students", "4"], "students say how students learn"),
    ):
        done = edgekd("distill", "teacher.onnx", "--out", "run", *words, check=False)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists()
