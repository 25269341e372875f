from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from records import run_record

from edgekd import inference, onnx_file
from edgekd.bench import bench
from edgekd.devices import Target
from edgekd.errors import BadModel, BadRun, BadSetting, UnknownName
from edgekd.evaluate import evaluate, remember
from edgekd.gate import LIMITS, METRICS, Budget, check, read_budget
from edgekd.gate.budget import Step
from edgekd.run_folder import HeldOut, RunFolder, read_json, write_json
from edgekd.timing import TIMES

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MS = 10**6


def write_teacher(run: RunFolder, teacher: Path) -> None:
    facts = {"sha256": onnx_file.sha256(teacher), "bytes": onnx_file.size(teacher), "parameters": 1300}
    write_json(run.record_file, run_record({"path": str(teacher), **facts}))


def write_bench(run: RunFolder, teacher: Path) -> None:
    """The student takes 2 ms, a tenth of its runs 4 ms, and the teacher 8 ms."""
    target = Target(schema=1, name="here", title="Here", bench={"processes": 1})
    spent = {"teacher.onnx": [8 * MS] * 10, run.student_int8_onnx.name: [2 * MS] * 8 + [4 * MS] * 2}

    def runner(request):
        return {
            **{"load_ns": 5 * MS, "first_ns": 2 * MS, "warmup_runs": 10, "samples_ns": spent[request.model.name]},
            **{"baseline_bytes": 40_000_000, "peak_bytes": 50_000_000},
        }

    write_json(
        run.bench_file, bench({"teacher": teacher, "student.int8": run.student_int8_onnx}, target, runner=runner)
    )


@pytest.fixture
def teacher(make_picker):
    return make_picker("teacher.onnx")


@pytest.fixture
def run(make_picker, teacher, tmp_path):
    """A run whose INT8 student agrees with the teacher on 6 of 10 held-out images and is right on 8 of 10 labelled."""
    (tmp_path / "run").mkdir()
    run = RunFolder(tmp_path / "run")
    make_picker("run/student.onnx", shift=1)
    make_picker("run/student.int8.onnx")
    write_teacher(run, teacher)
    write_bench(run, teacher)
    codes = (
        np.random.default_rng(0).permuted(np.tile(np.uint8([0, 50, 100, 200]), (10, 1)), axis=1).reshape(-1, 1, 2, 2)
    )
    held_out = HeldOut(codes, np.zeros((10, 4), np.float32), 0, 1)
    logits = inference.logits(teacher, held_out.images())
    truth = logits.argmax(1)
    logits[:4] *= -1
    run.write_held_out(HeldOut(codes, logits, 0, 1))
    truth[:2] = (truth[:2] + 1) % 4
    np.savez(tmp_path / "data.npz", images=codes, labels=truth)
    remember(run, evaluate(run.student_int8_onnx, tmp_path / "data.npz"))
    return run


def budget(**limits) -> Budget:
    return read_budget(flags=limits)


def test_every_metric_has_limits_and_what_is_timed_is_compared_as_such():
    assert {limit.metric for limit in LIMITS.values()} == set(METRICS)
    assert {name for name, metric in METRICS.items() if metric.timed} == set(TIMES)


def test_actual_values(run, teacher):
    file = run.student_int8_onnx
    expected = {
        "max_size": ("1 MB", file.stat().st_size, "B", file),
        "max_gzip_size": ("1 MB", len(gzip.compress(file.read_bytes(), 9, mtime=0)), "B", file),
        "max_parameters": ("1k", 16, "", file),
        "max_macs": ("1k", 16, "", file),
        "max_p50": ("1 s", 2, "ms", run.bench_file),
        "max_p90": ("1 s", 4, "ms", run.bench_file),
        "max_memory": ("1 GB", 50_000_000, "B", run.bench_file),
        "max_load": ("1 s", 5, "ms", run.bench_file),
        "max_size_ratio": ("2", file.stat().st_size / teacher.stat().st_size, "ratio", file),
        "max_parameters_ratio": ("2", 16 / 1300, "ratio", file),
        "max_p50_ratio": ("2", 0.25, "ratio", run.bench_file),
        "min_agreement": ("10 %", 0.6, "share", run.held_out_file),
        "min_accuracy": ("10 %", 0.8, "share", run.evaluation_file),
    }
    verdicts = check(run, budget(**{name: limit for name, (limit, *_) in expected.items()}))
    assert [v.metric for v in verdicts] == [name for name in LIMITS if name in expected]
    assert {v.metric: (v.actual, v.unit, v.where) for v in verdicts} == {
        name: (pytest.approx(actual), unit, str(where)) for name, (_, actual, unit, where) in expected.items()
    }
    assert all(v.ok for v in verdicts)
    json.dumps([asdict(v) for v in verdicts])


@pytest.mark.parametrize(
    ("metric", "held", "broken"),
    [
        ("max_p50", "2 ms", "1999 us"),
        ("max_memory", "50 MB", "47 MiB"),
        ("max_parameters", 16, 15),
        ("max_p50_ratio", "25 %", 0.249),
        ("min_agreement", "60 %", "61 %"),
        ("min_accuracy", 0.8, 0.801),
    ],
)
def test_a_limit_itself_is_held_and_beyond_it_is_broken(run, metric, held, broken):
    assert check(run, budget(**{metric: held}))[0].ok
    assert not check(run, budget(**{metric: broken}))[0].ok


def test_rows_for_people(run):
    good, bad = (v.row() for v in check(run, budget(max_p50="2 ms", min_agreement="90 %")))
    assert good == ["max_p50", "≤ 2.00 ms", "2.00 ms", "ok", str(run.bench_file)]
    assert bad == ["min_agreement", "≥ 90.00 %", "60.00 %", "BROKEN", str(run.held_out_file)]


def test_the_subject(run):
    size = budget(max_size="1 MB")
    assert check(run, size)[0].where == check(run.path, size)[0].where == str(run.student_int8_onnx)
    assert check(run, size, which="student")[0].where == str(run.student_onnx)
    run.student_int8_onnx.unlink()
    assert check(run, size)[0].where == str(run.student_onnx)
    with pytest.raises(BadRun, match=r"student\.int8\.onnx is missing; run first: edgekd export --int8"):
        check(run, size, which="student.int8")


def test_the_size_is_read_from_the_file(run, make_classifier):
    before = check(run, budget(max_size="1 MB"))[0].actual
    run.student_int8_onnx.write_bytes(make_classifier(filters=64).read_bytes())
    after = check(run, budget(max_size="1 MB"))[0].actual
    assert after == run.student_int8_onnx.stat().st_size > before


def test_records_of_another_file_are_refused(run, make_picker):
    run.student_int8_onnx.write_bytes(make_picker(shift=2).read_bytes())
    with pytest.raises(BadRun, match=r"no measurement of the student\.int8 as it is now; measure again: edgekd bench"):
        check(run, budget(max_p50="1 s"))
    with pytest.raises(BadRun, match=r"no evaluation of student\.int8\.onnx as it is now; evaluate again: edgekd eval"):
        check(run, budget(min_accuracy=0.1))
    assert check(run, budget(min_agreement="0 %"))[0].actual < 0.6  # computed now, with the new file


def test_a_student_of_older_weights_is_refused(run):
    model = onnx_file.load(run.student_int8_onnx)
    onnx_file.set_metadata(model, {"edgekd.weights.sha256": "0" * 64})
    run.student_int8_onnx.write_bytes(model.SerializeToString())
    assert check(run, budget(max_size="1 MB"))[0].ok
    run.student_weights.write_bytes(b"trained on")
    with pytest.raises(BadRun, match=r"student\.int8\.onnx is of older weights .*export again: edgekd export"):
        check(run, budget(max_size="1 MB"))


def test_the_float_student_was_not_measured(run):
    with pytest.raises(BadRun, match=r"no measurement of the student as it is now"):
        check(run, budget(max_p50="1 s"), which="student")


def test_a_ratio_needs_the_teachers_own_measurement(run, make_picker):
    write_teacher(run, make_picker("another.onnx", shift=3))
    with pytest.raises(BadRun, match="no measurement of the teacher as it is now"):
        check(run, budget(max_p50_ratio=1))


def test_latencies_at_different_batches_are_not_compared(run, make_picker):
    teacher = make_picker("teacher.onnx", dims=(8, 1, 2, 2))
    write_teacher(run, teacher)
    write_bench(run, teacher)
    with pytest.raises(BadSetting, match="a batch of 1 with the teacher's 8"):
        check(run, budget(max_p50_ratio=1))


@pytest.mark.parametrize(
    ("file", "limits", "hint"),
    [
        ("bench_file", {"max_p50": "1 s"}, "run first: edgekd bench"),
        ("held_out_file", {"min_agreement": 0.5}, "no usable held-out samples"),
        ("evaluation_file", {"min_accuracy": 0.5}, "run first: edgekd eval"),
    ],
)
def test_missing_evidence_names_the_command(run, file, limits, hint):
    getattr(run, file).unlink()
    with pytest.raises(BadRun, match=hint):
        check(run, budget(**limits))


def test_damaged_samples(run):
    whole = run.held_out_file.read_bytes()
    for content in (b"", b"not an archive", whole[: len(whole) // 2], whole[:80] + bytes(40) + whole[120:]):
        run.held_out_file.write_bytes(content)
        with pytest.raises(BadRun, match="no usable held-out samples"):
            check(run, budget(min_agreement=0.5))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"models": 3}', '{"models": {"student.int8": 3}}'])
def test_damaged_records(run, content):
    run.bench_file.write_text(content)
    run.evaluation_file.write_text(content)
    for limits in ({"max_p50": "1 s"}, {"min_accuracy": 0.5}):
        with pytest.raises(BadRun):
            check(run, budget(**limits))


def test_a_record_without_the_number(run):
    record = json.loads(run.bench_file.read_text())
    record["models"]["student.int8"]["latency_ms"] = {"p50": None}
    write_json(run.bench_file, record)
    with pytest.raises(BadRun, match=r"bench\.json: latency_ms\.p50 is no number"):
        check(run, budget(max_p50="1 s"))


def test_a_run_not_yet_exported(run):
    run.student_onnx.unlink()
    run.student_int8_onnx.unlink()
    with pytest.raises(BadRun, match=r"student\.onnx is missing; run first: edgekd export "):
        check(run, budget(max_size="1 MB"))


def test_a_file_alone(run, make_classifier, tmp_path):
    file = run.student_int8_onnx
    verdicts = check(file, budget(max_size="1 MB", max_gzip_size="1 MB", max_parameters="1k", max_macs="1k"))
    assert [v.where for v in verdicts] == [str(file)] * 4
    with pytest.raises(
        BadSetting, match=r"does not tell max_p50, min_agreement; allowed: max_size, .*give its run folder"
    ):
        check(file, budget(max_p50="1 s", min_agreement=0.5, max_size="1 kB"))
    with pytest.raises(BadSetting, match="MACs cannot be counted"):
        check(make_classifier(dims=("N", 1, "H", "W")), budget(max_macs="1k"))
    with pytest.raises(BadModel, match="no such file"):
        check(tmp_path / "none.onnx", budget(max_size="1 kB"))
    with pytest.raises(BadRun, match=r"not a run folder"):
        check(tmp_path, budget(max_size="1 kB"))


def test_a_truncated_model(run):
    run.student_int8_onnx.write_bytes(run.student_int8_onnx.read_bytes()[:-9])
    with pytest.raises(BadModel):
        check(run, budget(max_size="1 MB"))


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "budget.toml").write_text('[budget]\nmax_size = "300 KiB"\nmin_agreement = 0.9\n')
    merged = read_budget(tmp_path / "budget.toml", {"max_size": "1kB", "max_p50": None})
    assert merged.limits() == {"max_size": 1000, "min_agreement": 0.9}


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (
            '[budget]\nmax_sise = "1 kB"',
            UnknownName,
            r"'max_sise'; allowed: max_accuracy_drop, .*did you mean max_size\?",
        ),
        ("[budget]\nmax_p50 = 2", BadSetting, r"budget\.toml: max_p50: .*2 is not a time; allowed: 2 ms"),
        ('[budget]\nmax_size = "0 kB"', BadSetting, "max_size: .*greater than 0"),
        ("[budget]\nmin_agreement = 90", BadSetting, "min_agreement: .*more than the whole"),
        ("[budget.weight]\nmax = 3", UnknownName, r"unknown metric of the budget .*'weight'; allowed: accuracy, "),
        (
            '[budget.size]\nmaximum = "1 kB"',
            BadSetting,
            r"size\.maximum is no limit; allowed: max, max_increase, max_rat",
        ),
        ("[budget.accuracy]\nmax = 1", BadSetting, r"accuracy\.max is no limit; allowed: min, max_drop, min_ratio_to"),
        ('[budget.p50]\nmax_increase = "5 apples"', BadSetting, "max_p50_increase: .*is not a time; .*5 %"),
        ('[budget.accuracy]\nmax_drop = "1 %"', BadSetting, "max_accuracy_drop: .*allowed: 1 pp"),
        ("[budget.size]\nmax_ratio_to = { sister = 2 }", BadSetting, "unknown sister; allowed: teacher, baseline"),
        ("[budget.agreement]\nmin_ratio_to = { teacher = 1 }", BadSetting, "min_agreement_ratio means nothing"),
        ("[budget]\nmax_size = 1\n[budget.size]\nmax = 2", BadSetting, "max_size is set twice"),
        ('[budget]\nmax_size = "x"\nmax_load = "y"', BadSetting, "max_size: .*max_load: "),
        ("[budget]", BadSetting, "a budget without a limit lets everything pass; allowed: max_size"),
        ("", BadSetting, r"its tables are none; allowed: one table, \[budget\]"),
        ('max_size = "1 kB"', BadSetting, "its tables are max_size"),
        ('[budget]\nmax_size = "1 kB"\n[other]', BadSetting, "its tables are budget, other"),
        ("[budget", BadSetting, "not readable as TOML"),
    ],
)
def test_bad_budgets(tmp_path, content, kind, message):
    path = tmp_path / "budget.toml"
    path.write_text(content)
    with pytest.raises(kind, match=message) as caught:
        read_budget(path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_tables_mean_what_lines_mean(tmp_path):
    lines = 'max_p50 = "2 ms"\nmax_p50_increase = "5 %"\nmax_p50_ratio = 0.5\nmax_p50_ratio_to_baseline = 1.1\n'
    lines += 'min_accuracy = "90 %"\nmax_accuracy_drop = "1 pp"\nmin_accuracy_ratio_to_baseline = 0.99\n'
    (tmp_path / "lines.toml").write_text(f"[budget]\n{lines}")
    (tmp_path / "tables.toml").write_text("""
[budget.p50]
max = "2 ms"
max_increase = "5 %"
max_ratio_to = { teacher = 0.5, baseline = 1.1 }
[budget.accuracy]
min = "90 %"
max_drop = "1 pp"
min_ratio_to = { baseline = 0.99 }
""")
    found = read_budget(tmp_path / "tables.toml").limits()
    assert found == read_budget(tmp_path / "lines.toml").limits()
    assert found["max_p50_increase"] == Step(relative=0.05)
    assert found["max_accuracy_drop"] == Step(absolute=0.01)


# ------------------------------------------------------------------------------------------------- against a baseline


def record_of(path, times, label="student.int8", **target):
    """A bench record of one file whose processes take the given times in ms."""
    waiting = [round(MS * time) for time in times]
    device = Target(schema=1, name="here", title="Here", bench={"processes": len(times)}, **target)

    def runner(request):
        return {
            **{"load_ns": 5 * MS, "first_ns": 2 * MS, "warmup_runs": 10, "samples_ns": [waiting.pop(0)] * 20},
            **{"baseline_bytes": 40_000_000, "peak_bytes": 50_000_000},
        }

    return bench({label: path}, device, runner=runner)


STEADY = (1.99, 2.0, 2.0, 2.0, 2.01)


@pytest.fixture
def measured(run):
    """The run, its student measured at 2 ms."""
    write_json(run.bench_file, record_of(run.student_int8_onnx, STEADY))
    return run


@pytest.mark.parametrize(
    ("times", "limits", "outcome"),
    [
        ((1.80, 1.80, 1.80, 1.80, 1.80), {"max_p50_increase": "5 %"}, "broken"),  # 11 % slower now, and sure of it
        ((1.80, 1.80, 1.80, 1.80, 1.80), {"max_p50_increase": "15 %"}, "ok"),
        ((1.80, 1.80, 1.80, 1.80, 1.80), {"max_p50_increase": "0.1 ms"}, "broken"),
        ((1.80, 1.80, 1.80, 1.80, 1.80), {"max_p50_increase": "0.3 ms"}, "ok"),
        ((1.80, 1.80, 1.80, 1.80, 1.80), {"max_p50_ratio_to_baseline": 1.05}, "broken"),
        ((1.60, 1.60, 1.80, 2.20, 2.20), {"max_p50_increase": "5 %"}, "inconclusive"),
        ((1.98, 1.98, 1.98, 1.98, 1.98), {"max_p50_increase": "0 %"}, "ok"),  # 1 % is within the noise
        ((2.40, 2.40, 2.40, 2.40, 2.40), {"max_p50_increase": "5 %"}, "ok"),  # faster now
        ((1.80,), {"max_p50_increase": "5 %"}, "inconclusive"),  # a single process
        ((2.0, 2.0), {"max_load_increase": "5 %"}, "ok"),
    ],
)
def test_a_slower_model_is_broken_only_beyond_doubt(measured, times, limits, outcome):
    earlier = record_of(measured.student_int8_onnx, times)
    (verdict,) = check(measured, budget(**limits), earlier=earlier)
    assert (verdict.outcome, verdict.ok) == (outcome, outcome != "broken")
    assert verdict.baseline == pytest.approx(5 if "load" in verdict.metric else np.median(times))


def test_a_noisy_machine_needs_a_larger_change(measured):
    earlier = record_of(measured.student_int8_onnx, [1.8] * 5)
    assert check(measured, budget(max_p50_increase="5 %"), earlier=earlier)[0].outcome == "broken"
    earlier["noise"] = {"student.int8": {"p50": 0.2}}
    assert check(measured, budget(max_p50_increase="5 %"), earlier=earlier)[0].outcome == "ok"


def test_times_of_another_machine_decide_nothing_and_say_so(measured):
    earlier = record_of(measured.student_int8_onnx, [1.0] * 5)
    earlier["environment"]["cpu"] = "a Cray"
    (verdict,) = check(measured, budget(max_p50_increase="5 %"), earlier=earlier)
    assert verdict.outcome == "inconclusive"
    assert "was a Cray" in verdict.note
    threads = record_of(measured.student_int8_onnx, [1.0] * 5, runtime={"intra_op_threads": 2})
    (verdict,) = check(measured, budget(max_p50_increase="5 %"), earlier=threads)
    assert "intra_op_threads is 1, was 2" in verdict.note


@pytest.mark.parametrize(
    ("key", "before", "limits", "ok"),
    [
        ("bytes", lambda now: now - 10, {"max_size_increase": "10 B"}, True),
        ("bytes", lambda now: now - 11, {"max_size_increase": "10 B"}, False),
        ("bytes", lambda now: now / 1.1, {"max_size_increase": "9 %"}, False),
        ("bytes", lambda now: now / 1.1, {"max_size_increase": "11 %"}, True),
        ("bytes", lambda now: now / 1.1, {"max_size_ratio_to_baseline": 1.05}, False),
        ("bytes", lambda now: 2 * now, {"max_size_increase": "0 %"}, True),
        ("parameters", lambda now: now, {"max_parameters_increase": "0 %"}, True),
        ("macs", lambda now: now - 1, {"max_macs_increase": "0 %"}, False),
        ("agreement", lambda now: 0.605, {"max_agreement_drop": "1 pp"}, True),
        ("agreement", lambda now: 0.62, {"max_agreement_drop": "1 pp"}, False),
        ("accuracy", lambda now: 0.85, {"max_accuracy_drop": "1 pp"}, False),
        ("accuracy", lambda now: 0.7, {"max_accuracy_drop": "1 pp"}, True),
        ("accuracy", lambda now: 0.85, {"min_accuracy_ratio_to_baseline": 0.95}, False),
    ],
)
def test_what_is_exact_is_gated_exactly(measured, key, before, limits, ok):
    earlier = record_of(measured.student_int8_onnx, STEADY)
    entry = earlier["models"]["student.int8"]
    entry[key] = before(entry.get(key))
    (verdict,) = check(measured, budget(**limits), earlier=earlier)
    assert (verdict.ok, verdict.outcome) == (ok, "ok" if ok else "broken")


def test_rows_of_changes_for_people(measured):
    earlier = record_of(measured.student_int8_onnx, [1.8] * 5)
    earlier["models"]["student.int8"]["agreement"] = 0.7
    rows = [
        v.row()[:4] for v in check(measured, budget(max_p50_increase="5 %", max_agreement_drop="1 pp"), earlier=earlier)
    ]
    assert rows == [
        ["max_p50_increase", "≤ +5.00 %", "+11.11 % [+10.56 %, +11.67 %]", "BROKEN"],
        ["max_agreement_drop", "≤ +1.00 pp", "+10.00 pp", "BROKEN"],
    ]


def test_a_change_needs_a_baseline(measured):
    with pytest.raises(BadSetting, match="max_p50_increase need a baseline; name one with --baseline FILE"):
        check(measured, budget(max_p50_increase="5 %"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda record: record["models"]["student.int8"].update(agreement=None), "does not tell the agreement"),
        (
            lambda record: record["models"].update(other={}, student=record["models"].pop("student.int8")),
            "holds no 'stu",
        ),
        (
            lambda record: record["models"]["student.int8"]["inputs"][0].update(shape=[1, 3, 9, 9]),
            "is of another model",
        ),
    ],
)
def test_a_baseline_that_does_not_fit(measured, spoil, said):
    earlier = record_of(measured.student_int8_onnx, STEADY)
    earlier["models"]["student.int8"]["agreement"] = 0.5
    spoil(earlier)
    with pytest.raises(BadRun, match=said) as caught:
        check(measured, budget(max_p50_increase="5 %", max_agreement_drop="1 pp"), earlier=earlier)
    assert caught.value.exit_code == 2


def test_a_file_alone_with_its_record(run, tmp_path):
    file = run.student_int8_onnx
    write_json(tmp_path / "b.json", record_of(file, [3.0, 3.0], label="student.int8"))
    verdicts = check(file, budget(max_p50="4 ms", max_size="1 MB"), bench=tmp_path / "b.json")
    assert [v.where for v in verdicts] == [str(file), str(tmp_path / "b.json")]
    with pytest.raises(BadRun, match="no measurement of the student as it is now"):
        check(run.student_onnx, budget(max_p50="4 ms"), bench=tmp_path / "b.json")


def test_ratios_to_the_teacher_that_only_a_measurement_tells(run):
    verdicts = check(run, budget(max_macs_ratio=1, max_memory_ratio=1, max_load_ratio="100 %"))
    assert [round(v.actual, 3) for v in verdicts[:3]] == [1, 1, 1]


def test_the_share_of_nodes_that_fell_back(run):
    record = read_json(run.bench_file)
    with pytest.raises(BadRun, match="fallback is no number"):
        check(run, budget(max_fallback="10 %"))
    record["models"]["student.int8"]["fallback"] = 0.25
    write_json(run.bench_file, record)
    assert not check(run, budget(max_fallback="10 %"))[0].ok


def test_no_budget_at_all(run, tmp_path):
    with pytest.raises(BadSetting, match="without a limit"):
        read_budget(flags={"max_size": None})
    with pytest.raises(BadSetting, match="without a limit"):
        check(run, Budget({}))
    with pytest.raises(BadSetting, match="not readable as TOML"):
        read_budget(tmp_path / "none.toml")


def test_the_shipped_budget_is_valid():
    assert {"max_size", "max_p50_ratio", "min_agreement"} <= set(read_budget(EXAMPLES / "budget.toml").limits())
