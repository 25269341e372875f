from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto

from edgekd import inference, onnx_file
from edgekd.bench import SCHEMA, bench, headers, rows
from edgekd.bench.local import Measurement
from edgekd.config import Protocol, Runtime, Target, load_target
from edgekd.errors import BadData, BadModel, BadSetting, CannotLoad
from edgekd.run_folder import HeldOut


def target(processes: int = 2, **runtime) -> Target:
    protocol = Protocol(processes=processes, warmup_runs=2, warmup_seconds=0, runs=20, seconds=0.01)
    return Target(schema=1, name="here", title="Here", runtime=Runtime(**runtime), bench=protocol)


def held_out(model, shape=(50, 1, 8, 8)) -> HeldOut:
    """Images whose recorded answers are those of `model` for three in five, and turned upside down for the others."""
    codes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    unanswered = HeldOut(codes, np.zeros((0, 4), np.float32), -1.0, 1.0)
    logits = inference.logits(model, unanswered.images())
    logits[: len(logits) * 2 // 5] *= -1
    return HeldOut(codes, logits, -1.0, 1.0)


class Fake:
    """Answers each request with the next of `durations` (ns), and remembers whom it was asked about."""

    def __init__(self, durations=()):
        self.asked = []
        self.durations = list(durations)

    def __call__(self, request) -> Measurement:
        self.asked.append(request.model.name)
        spent = self.durations.pop(0) if self.durations else 10**6
        return Measurement(5 * 10**6, 2 * 10**6, 10, np.full(600, spent), 40 * 10**6, 50 * 10**6)


@pytest.fixture
def trio(make_classifier):
    sizes = {"teacher": 64, "student": 16, "student.int8": 8}
    return {label: make_classifier(f"{label}.onnx", filters=n, seed=n) for label, n in sizes.items()}


def test_end_to_end(trio):
    samples = held_out(trio["teacher"])
    record = bench(trio, target(), held_out=samples)
    assert json.loads(json.dumps(record)) == record
    assert record["schema"] == SCHEMA
    assert list(record["models"]) == list(trio)
    for label, path in trio.items():
        entry = record["models"][label]
        assert entry["sha256"] == onnx_file.sha256(path)
        assert entry["bytes"] == path.stat().st_size
        assert len(entry["samples_us"]) == 2
        latency = entry["latency_ms"]
        assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p95"]
        assert latency["p50_interval"][0] <= latency["p50_interval"][1]
        assert entry["memory_bytes"]["peak"] >= entry["memory_bytes"]["added"] >= 0
        assert entry["load_ms"] > 0
        assert entry["first_run_ms"] > 0
        assert entry["inputs"][0]["low"] == -1  # the range of the held-out images
    assert record["models"]["teacher"]["agreement"] == 0.6
    assert record["models"]["teacher"]["parameters"] == 64 * 9 + 64 + 64 * 4 + 4
    assert record["models"]["teacher"]["macs"] == 64 * 9 * 64 + 64 * 4
    assert set(record["ratios"]) == {"student/teacher", "student.int8/teacher", "student.int8/student"}


def test_models_take_turns_and_progress_is_told(trio):
    fake, seen = Fake(), []
    bench(trio, target(processes=3), watch=seen.append, runner=fake)
    assert fake.asked == ["teacher.onnx", "student.onnx", "student.int8.onnx"] * 3
    assert [(p.done, p.total) for p in seen] == [(k, 9) for k in range(9)]
    assert [p.label for p in seen] == list(trio) * 3


def test_numbers_are_those_of_the_samples(trio):
    millisecond = 10**6
    fake = Fake([4 * millisecond, millisecond, 4 * millisecond, 3 * millisecond])
    record = bench({k: trio[k] for k in ("teacher", "student")}, target(), runner=fake)
    student = record["models"]["student"]
    assert student["latency_ms"] == {
        "p50": 2.0,
        "p50_interval": [1.0, 3.0],
        "p90": 3.0,
        "p95": 3.0,
        "p99": 3.0,
        "min": 1.0,
        "samples": 1200,
        "processes": 2,
    }
    assert student["samples_us"] == [[1000.0] * 600, [3000.0] * 600]
    assert student["memory_bytes"] == {"peak": 50_000_000, "added": 10_000_000, "baseline": 40_000_000}
    assert student["load_ms"] == 5
    assert student["first_run_ms"] == 2
    ratios = record["ratios"]["student/teacher"]
    assert ratios["p50"] == 0.5
    assert ratios["parameters"] == (16 * 9 + 16 + 16 * 4 + 4) / (64 * 9 + 64 + 64 * 4 + 4)
    assert ratios["bytes"] == trio["student"].stat().st_size / trio["teacher"].stat().st_size


def test_few_samples_have_no_p99_and_one_process_no_interval(trio):
    record = bench({"m": trio["student"]}, target(processes=1), runner=Fake())
    assert record["models"]["m"]["latency_ms"]["p99"] is None
    assert record["models"]["m"]["latency_ms"]["p50_interval"] is None
    assert record["models"]["m"]["agreement"] is None
    assert record["ratios"] == {}


def test_latencies_at_different_batches_are_not_divided(make_classifier):
    models = {"teacher": make_classifier("t.onnx", dims=(8, 1, 8, 8)), "student": make_classifier("s.onnx")}
    record = bench(models, target(), runner=Fake())
    assert record["ratios"]["student/teacher"]["p50"] is None
    assert record["ratios"]["student/teacher"]["macs"] == 1


def test_the_table_has_a_column_per_model(trio):
    durations = [1_000_000, 500_000, 250_000] * 2
    record = bench(trio, target(), runner=Fake(durations), held_out=held_out(trio["teacher"]))
    assert headers(record) == ["", "teacher", "student", "student.int8"]
    table = {row[0]: row[1:] for row in rows(record)}
    assert table["p50 [95 %]"] == ["1.00 [1.00, 1.00] ms", "0.500 [0.500, 0.500] ms", "0.250 [0.250, 0.250] ms"]
    assert table["p50 / teacher"] == ["-", "0.500x", "0.250x"]
    assert table["agreement"][0] == "60.00 %"
    assert table["parameters"] == ["900", "228", "116"]
    assert table["peak memory"] == ["50.00 MB"] * 3


def test_the_table_of_a_lone_model_has_dashes(trio):
    table = {row[0]: row[1:] for row in rows(bench({"m": trio["student"]}, target(1), runner=Fake()))}
    assert table["agreement"] == table["size / teacher"] == ["-"]
    assert table["p50 [95 %]"] == ["1.00 ms"]


def test_nothing_to_measure():
    with pytest.raises(BadSetting, match="nothing to measure"):
        bench({}, target())


def test_an_unknown_provider_lists_those_there_are(trio):
    with pytest.raises(CannotLoad, match=r"target here: QuantumProvider .*allowed: .*CPUExecutionProvider"):
        bench(trio, target(provider="QuantumProvider"), runner=Fake())


def test_free_sides_need_a_shape_and_take_one(make_classifier):
    models = {"m": make_classifier(dims=("N", 1, "H", "W"))}
    with pytest.raises(BadModel, match="leaves dimensions free"):
        bench(models, target(), runner=Fake())
    record = bench(models, target(1), input_shape=(1, 6, 6))
    assert record["models"]["m"]["inputs"][0]["shape"] == [1, 1, 6, 6]
    assert record["models"]["m"]["macs"] == 36 * 9 * 8 + 8 * 4


@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.INT64, TensorProto.FLOAT16])
def test_other_input_types_are_measured(make_classifier, dtype):
    record = bench({"m": make_classifier(dtype=dtype)}, target(1))
    assert record["models"]["m"]["latency_ms"]["samples"] >= 20


def test_held_out_images_of_another_shape(trio, make_picker):
    with pytest.raises(BadData, match="do not fit"):
        bench({"m": make_picker()}, target(), held_out=held_out(trio["teacher"]), runner=Fake())


def test_a_broken_file_starts_nothing(tmp_path, trio):
    (tmp_path / "broken.onnx").write_bytes(trio["student"].read_bytes()[:200])
    fake = Fake()
    with pytest.raises(BadModel):
        bench({"teacher": trio["teacher"], "student": tmp_path / "broken.onnx"}, target(), runner=fake)
    assert fake.asked == []


def test_the_shipped_target_is_valid_and_does_not_spin():
    cpu = load_target("cpu")
    assert cpu.runtime.session_config["session.intra_op.allow_spinning"] == "0"
    assert cpu.runtime.intra_op_threads == 1
    assert (cpu.quantization.activation, cpu.quantization.weight, cpu.quantization.per_channel) == (
        "uint8",
        "int8",
        True,
    )


def test_neither_bench_nor_gate_nor_evaluate_needs_torch():
    code = "import sys, edgekd.bench, edgekd.gate, edgekd.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
