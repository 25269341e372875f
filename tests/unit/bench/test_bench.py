from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgekd import inference, onnx_file
from edgekd.baseline import compare
from edgekd.bench import SCHEMA, bench, headers, local, profile_headers, profile_rows, rows
from edgekd.bench.local import Request
from edgekd.bench.placement import placed
from edgekd.bench_record import BenchRecord, json_schema
from edgekd.devices import Place, Protocol, Runtime, Target, load_target
from edgekd.errors import BadData, BadModel, BadRun, BadSetting, NotMeasurable
from edgekd.gate import check, read_budget
from edgekd.run_folder import HeldOut, write_json
from edgekd.timing import LEAST_FLOOR


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

    def __call__(self, request) -> dict:
        self.asked.append(request.model.name)
        spent = self.durations.pop(0) if self.durations else 10**6
        return {
            **{"load_ns": 5 * 10**6, "first_ns": 2 * 10**6, "warmup_runs": 10, "samples_ns": [spent] * 600},
            **{"baseline_bytes": 40 * 10**6, "peak_bytes": 50 * 10**6},
        }


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


def test_the_table_of_a_lone_model_leaves_out_what_is_unknown(trio):
    table = {row[0]: row[1:] for row in rows(bench({"m": trio["student"]}, target(1), runner=Fake()))}
    assert not {"agreement", "size / teacher", "p99"} & set(table)
    assert table["p50 [95 %]"] == ["1.00 ms"]


def test_nothing_to_measure():
    with pytest.raises(BadSetting, match="nothing to measure"):
        bench({}, target())


def test_an_unknown_provider_is_no_error_and_lists_those_there_are(trio):
    record = bench(trio, target(provider="QuantumProvider"))
    assert re.search("QuantumProvider is not in this onnxruntime, .*CPUExecutionProvider", record["not_measured"])


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


def test_a_target_that_cannot_run_here_keeps_what_the_files_tell(trio):
    def runner(request):
        raise NotMeasurable("no such device")

    record = bench(trio, target(), held_out=held_out(trio["teacher"]), twice=True, examined=["profile"], runner=runner)
    assert record["not_measured"] == "no such device"
    student = record["models"]["student"]
    assert (student["latency_ms"], student["memory_bytes"], student["macs"]) == (None, None, 16 * 9 * 64 + 64)
    assert record["ratios"]["student/teacher"]["p50"] is None
    assert {row[0]: row[1] for row in rows(record)}["p50 [95 %]"] == "not measured"
    BenchRecord.model_validate(record)


def test_baselines_take_turns_and_are_measured_twice(trio):
    fake = Fake([10, 8, 9] * 3)
    record = bench({"m": trio["student"]}, target(3), baselines={"m": trio["teacher"]}, twice=True, runner=fake)
    assert fake.asked == ["student.onnx", "teacher.onnx", "teacher.onnx"] * 3
    assert record["models"]["m"]["latency_ms"]["p50"] == 10e-6
    assert record["baseline"]["models"]["m"]["latency_ms"]["p50"] == 8e-6
    assert record["baseline"]["noise"]["m"]["p50"] == pytest.approx(9 / 8 - 1)
    assert record["baseline"]["noise"]["m"]["load"] == LEAST_FLOOR
    assert "noise" not in record


def test_a_model_measured_twice_tells_its_own_noise(trio):
    record = bench({"m": trio["student"]}, target(2), twice=True, runner=Fake([100, 110] * 2))
    assert record["noise"]["m"]["p50"] == pytest.approx(0.1)
    assert record["models"]["m"]["latency_ms"]["processes"] == 2


def test_where_the_time_goes(trio):
    record = bench(trio, target(1), examined=["profile", "placement"])
    for entry in record["models"].values():
        assert sum(one["share"] for one in entry["operators"]) == pytest.approx(1)
        assert sum(one["us"] for one in entry["operators"]) > 0
        assert entry["fallback"] == 0
        assert entry["placement"]["providers"]["CPUExecutionProvider"]["nodes"] == 1
    BenchRecord.model_validate(record)
    assert profile_headers(record) == ["operator", "teacher", "share", "student", "share", "student.int8", "share"]
    assert {"Gemm"} <= {row[0] for row in profile_rows(record)}


def test_nodes_that_fell_back_are_counted_and_named(make_classifier):
    model = onnx_file.load(make_classifier())
    for node in model.graph.node:
        node.name = node.op_type
    path = make_classifier("named.onnx")
    onnx.save(model, path)
    parts = [
        ["NPU", [["Conv", "Conv"], ["Relu", "Relu"]]],
        ["CPUExecutionProvider", [["Gemm", "Gemm"], ["x", "Flatten"]]],
    ]

    def runner(request):
        if request.task == "answer":
            return local.ask(replace(request, runtime=Runtime()))
        return {"parts": parts} if request.task == "placement" else Fake()(request)

    entry = bench({"m": path}, target(1, provider="NPU"), examined=["placement"], runner=runner)["models"]["m"]
    assert entry["fallback"] == 0.5
    conv, gemm = 64 * 9 * 8, 8 * 4
    assert entry["placement"]["providers"] == {
        "NPU": {"nodes": 0.5, "macs": conv / (conv + gemm), "partitions": 1},
        "CPUExecutionProvider": {"nodes": 0.5, "macs": gemm / (conv + gemm), "partitions": None},
    }
    assert [one["node"] for one in entry["placement"]["fell_back"]] == ["Gemm", "x"]
    assert entry["difference"] == {"absolute": 0, "relative": 0}


@pytest.mark.slow
def test_the_record_keeps_to_its_schema(trio):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    record = bench(trio, target(2), twice=True, held_out=held_out(trio["teacher"]))
    jsonschema.validate(record, schema)
    del record["models"]["student"]["sha256"]
    with pytest.raises(jsonschema.ValidationError, match="sha256"):
        jsonschema.validate(record, schema)


def test_a_simulators_times_are_marked_and_gate_nothing(trio, tmp_path):
    simulated = target(2).model_copy(update={"runner": Place(simulated=True)})
    record = bench({"student": trio["student"]}, simulated, runner=Fake(), examined=[])
    assert record["simulated"] is True
    assert "p50 [95 %], simulated" in {row[0] for row in rows(record)}
    write_json(tmp_path / "b.json", record)
    with pytest.raises(BadRun, match="is a simulator's"):
        check(trio["student"], read_budget(flags={"max_p50": "9 s"}), bench=tmp_path / "b.json")
    compared = compare(record, record, "b.json")
    assert compared["models"]["student"]["p50"]["verdict"] == "inconclusive"
    assert check(trio["student"], read_budget(flags={"max_size": "1 MB"}), bench=tmp_path / "b.json")[0].ok


def test_what_another_provider_answers_is_held_to_the_cpu(trio):
    def runner(request):
        if request.task == "placement":
            return {"parts": [["NPU", [["conv_token_3", "Conv"]]]]}
        if request.task == "answer":
            return {
                "outputs": [[value + 0.5 for value in local.ask(replace(request, runtime=Runtime()))["outputs"][0]]]
            }
        return Fake()(request)

    entry = bench({"m": trio["student"]}, target(1, provider="NPU"), examined=["placement"], runner=runner)["models"][
        "m"
    ]
    assert entry["difference"]["absolute"] == pytest.approx(0.5)
    assert entry["difference"]["relative"] > 0


def test_a_node_that_was_moved_to_another_layout_keeps_its_work(make_classifier, tmp_path):
    model = onnx_file.load(make_classifier())
    for node in model.graph.node:
        node.name = node.op_type
    onnx.save(model, tmp_path / "named.onnx")
    asked = Request(tmp_path / "named.onnx", [], Runtime(provider="NPU"), Protocol())
    placed_ = placed([["NPU", [["Conv_token_12", "Conv"], ["Gemm", "Gemm"]]]], model, asked)
    assert placed_["placement"]["providers"]["NPU"]["macs"] == 1
