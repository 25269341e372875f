from __future__ import annotations

import numpy as np
import pytest
from records import run_record

from edgekd import inference, onnx_file
from edgekd.bench.of_run import bench_run
from edgekd.devices import Protocol, Target
from edgekd.errors import BadRun
from edgekd.evaluate import evaluate_run
from edgekd.gate import check, read_budget
from edgekd.run_folder import HeldOut, RunFolder, read_json, write_json

TARGET = Target(
    schema=1, name="here", title="Here", bench=Protocol(processes=1, warmup_runs=1, warmup_seconds=0, seconds=0.001)
)


@pytest.fixture
def teacher(make_classifier):
    return make_classifier("teacher.onnx", dims=("N", "H", "W", 3), channels=3, channels_last=True, filters=32)


@pytest.fixture
def run(make_classifier, teacher, tmp_path):
    """An exported run of a channels-last teacher with free sides; its students have channels first."""
    (tmp_path / "run").mkdir()
    run = RunFolder(tmp_path / "run")
    for name in ("student.onnx", "student.int8.onnx"):
        make_classifier(f"run/{name}", dims=("N", 3, 8, 6), channels=3, filters=32)
    shape = {"channels": 3, "height": 8, "width": 6, "layout": "NHWC", "low": -1.0, "high": 1.0}
    facts = {
        "path": str(teacher),
        "sha256": onnx_file.sha256(teacher),
        "bytes": onnx_file.size(teacher),
        "parameters": 9,
    }
    write_json(run.record_file, run_record(shape | facts))
    codes = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 6), np.uint8)
    images = HeldOut(codes, np.zeros((0, 4), np.float32), -1, 1).images()
    run.write_held_out(HeldOut(codes, inference.logits(teacher, images), -1, 1))
    return run


def test_a_run_is_measured_beside_a_teacher_of_another_layout(run):
    record = bench_run(run, TARGET)
    assert list(record["models"]) == ["teacher", "student", "student.int8"]
    assert [entry["inputs"][0]["shape"] for entry in record["models"].values()] == [
        [1, 8, 6, 3],
        [1, 3, 8, 6],
        [1, 3, 8, 6],
    ]
    assert [entry["agreement"] for entry in record["models"].values()] == [1, 1, 1]  # one network in three files
    assert read_json(run.bench_file)["ratios"]["student.int8/teacher"]["macs"] == 1


def test_what_bench_and_evaluate_write_the_gate_reads(run, tmp_path):
    np.savez(tmp_path / "data.npz", images=run.held_out().codes, labels=run.held_out().logits.argmax(1))
    bench_run(run, TARGET)
    records = evaluate_run(run, tmp_path / "data.npz")
    assert records["student.onnx"]["teacher"]["agreement"] == 1
    limits = read_budget(flags={"max_p50": "9 s", "max_p50_ratio": 99, "min_accuracy": 1, "min_agreement": 1})
    for which in ("student", "student.int8"):
        assert [verdict.ok for verdict in check(run, limits, which)] == [True] * 4


def test_a_teacher_that_is_gone_is_left_out(run, teacher):
    teacher.unlink()
    record = bench_run(run, TARGET)
    assert list(record["models"]) == ["student", "student.int8"]
    assert list(record["ratios"]) == ["student.int8/student"]


def test_another_teacher_is_refused(run, make_classifier):
    with pytest.raises(BadRun, match="it was not distilled from"):
        bench_run(run, TARGET, teacher=make_classifier("other.onnx"))


def test_a_run_not_yet_exported(run):
    run.student_onnx.unlink()
    with pytest.raises(BadRun, match=r"student\.onnx is missing; run first: edgekd export"):
        bench_run(run, TARGET)
