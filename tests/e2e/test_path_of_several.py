"""Two real teachers to one INT8 student with a header for each: distill, attention, export, bench, gate."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
from commands import runner
from test_path import QUICK, SMALL

from edgekd.inference import logits
from edgekd.run_folder import RunFolder

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_whole_path_of_several_teachers(tmp_path: Path) -> None:
    """The example's teacher as it is, and with its batch normalization folded away."""
    teacher = onnx.load(EXAMPLES / "teacher.onnx")
    onnx.save(teacher, tmp_path / "a.onnx")
    onnx.save(onnxsim.simplify(teacher)[0], tmp_path / "b.onnx")
    (tmp_path / "quick.toml").write_text(QUICK)
    with np.load(EXAMPLES / "evaluation.npz") as data:
        np.savez(tmp_path / "real.npz", images=data["images"][:60], labels=data["labels"][:60])
        np.savez(tmp_path / "bare.npz", images=data["images"][:60])
        np.savez(tmp_path / "rest.npz", images=data["images"][60:260], labels=data["labels"][60:260])
    edgekd, run = runner(sys.executable, tmp_path), RunFolder(tmp_path / "run")
    recipe = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    told = edgekd(
        *("distill", "a.onnx", "b.onnx", "--method", "cdfkd-mfs", "--width", "0.125", "--steps", "3"),
        *("--threads", "1", "--out", "run", *recipe),
    )
    assert "not every teacher" not in told.stderr  # one has statistics, the other what folding has left of them
    weights = run.student_weights.read_bytes()

    joined = edgekd("aggregate", "run", "--samples", "real.npz")
    assert "headers are joined by attention" in joined.stdout
    assert "to their labels" in joined.stdout
    # After three rounds INT8 may answer otherwise than float, and would not be kept without --force.
    exported = json.loads(edgekd("export", "run", "--int8", "--force", "--json").stdout)
    assert exported["headers"] == {"kept": [0, 1], "joined": "attention", "outputs": False}
    assert exported["files"]["student"]["check"]["agreement"] == 1.0
    model = onnx.load(run.student_int8_onnx)
    assert [output.name for output in model.graph.output] == ["logits"]
    bench = json.loads(edgekd("bench", "run", "--target", "quick.toml", "--json").stdout)
    assert list(bench["models"]) == ["teacher", "student", "student.int8"]
    accuracy = json.loads(edgekd("eval", "run", "--data", "rest.npz", "--json").stdout)["models"]
    assert accuracy["student.int8.onnx"]["data"]["images"] == 200
    held = edgekd("gate", "run", "--max-size", "1MB", "--max-p50", "10 s", "--min-agreement", "0")
    assert held.stdout.splitlines()[-1] == "gate: ok, 3 limits held"

    unlabelled = json.loads(edgekd("aggregate", "run", "--samples", "bare.npz", "--json").stdout)
    assert unlabelled["loss"]["attention"] <= unlabelled["loss"]["mean"]
    edgekd("aggregate", "run")
    pruned = json.loads(edgekd("export", "run", "--keep-headers", "1", "--json").stdout)
    assert pruned["files"]["student"]["bytes"] < exported["files"]["student"]["bytes"]
    assert pruned["headers"] == {"kept": [1], "joined": "mean", "outputs": False}
    assert logits(run.student_onnx, np.zeros((2, 1, 28, 28), np.float32)).shape == (2, 10)
    assert run.student_weights.read_bytes() == weights
