"""The report says what the run holds, says what it lacks, and takes nobody's names for markup."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calling import Call
from folders import METRICS, begun, finished, held_out, measured
from onnx import TensorProto, helper, numpy_helper
from test_tags import HOSTILE, Reading

from edgekd import onnx_file
from edgekd.errors import BadRun, BadSetting
from edgekd.report import report
from edgekd.report.facts import Facts
from edgekd.run_folder import HeldOut, RunFolder, write_json

Make = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, make_picker: Make) -> RunFolder:
    """A finished run whose student answers as the teacher does."""
    teacher = make_picker("teacher.onnx")
    return finished(tmp_path / "run", teacher, make_picker("student-file.onnx"))


def made(run: RunFolder, **options: Any) -> tuple[str, Reading, list[dict[str, str]]]:
    told = report(run, **options)
    page = Path(told["path"]).read_text(encoding="utf-8")
    return page, Reading(page), told["missing"]


def cells(page: str, row: str) -> list[str]:
    """The cells of a table's row as text."""
    found = re.search(rf'<tr><th scope="row">(?:<bdi>)?{re.escape(row)}(?:</bdi>)?</th>(.*?)</tr>', page)
    assert found, row
    return [re.sub(r"<[^>]*>", " ", cell).split("\n")[0].strip() for cell in re.findall(r"<td>(.*?)</td>", found[1])]


# ------------------------------------------------------------------------------------------------------- what it shows


def test_figures_are_those_of_the_files_and_their_ratios(run: RunFolder) -> None:
    page, _, _ = made(run)
    student, teacher = onnx_file.size(run.student_onnx), onnx_file.size(Path(run.record()["teacher"]["path"]))
    assert cells(page, "size") == [f"{teacher} B", f"{student} B {student / teacher:#.3g}x".replace(".x", "x")]
    assert cells(page, "parameters")[1].startswith("16 ")
    assert f"is {student} B" in page


def test_what_students_take_as_files_of_their_own_is_beside_what_they_take_joined(run: RunFolder) -> None:
    apart = {"students": 3, "one_by_one": {"p50": 0.75}, "parallel": {"p50": 0.5}}
    write_json(run.bench_file, {"schema": "edgekd.bench/1", "models": {"student": measured(run) | {"apart": apart}}})
    page, _, _ = made(run)
    assert cells(page, "parts one by one, p50") == ["–", "0.750 ms"]
    assert cells(page, "parts in parallel, p50") == ["–", "0.500 ms"]


def test_agreement_is_what_the_student_answers(run: RunFolder, make_picker: Make) -> None:
    assert Facts(run).agreement("student") == (1.0, pytest.approx(0.912, abs=1e-3), 1.0)
    run.student_onnx.write_bytes(make_picker("other.onnx", shift=1).read_bytes())
    assert Facts(run).agreement("student") == (0.0, 0.0, pytest.approx(0.088, abs=1e-3))
    page, _, _ = made(run)
    assert cells(page, "agreement, generated images [95 %]") == ["–", "0.00 % [0.0, 8.8]"]


def test_classes_come_worst_first_and_those_never_generated_are_named(run: RunFolder, tmp_path: Path) -> None:
    samples = held_out()
    dimmed = samples.logits.copy()
    dimmed[samples.logits.argmax(1) == 2, 2] = -1  # the teacher says otherwise wherever the student says 2
    run.write_held_out(HeldOut(samples.codes, dimmed, 0.0, 1.0))
    found = Facts(run)
    shares = found.shares_by_option("student")
    assert shares is not None
    assert shares[2:] == [None, None]
    assert shares[0] is not None
    assert shares[0] < 1
    page, read, _ = made(run, names=["zero", "one", "two", "three"])
    assert "Fewer than 10 held-out images of two, three" in read.text
    order = re.findall(r'<th scope="row"><bdi>(\w+)</bdi></th><td>\d+</td>', page)
    assert order == [*sorted(["zero", "one"], key=lambda name: shares[["zero", "one"].index(name)]), "two", "three"]


def test_every_class_has_its_samples_and_their_mean_with_words_for_them(run: RunFolder) -> None:
    _, read, _ = made(run)
    alts = [told["alt"] or "" for name, told in read.tags if name == "img"]
    counts = held_out().logits.argmax(1)
    for k in range(3):
        assert f"Mean of {(counts == k).sum()} generated images of class {k}" in alts
        assert f"8 generated images that the teacher calls class {k}" in alts
    assert "none was generated" in read.text


def test_real_samples_are_not_called_generated(tmp_path: Path, make_picker: Make) -> None:
    samples = {"count": 40, "sha256": "0", "alone": True}
    told = {"samples": samples, "settings": {"seed": 0, "samples": str(tmp_path / "real.npz")}}
    run = finished(tmp_path / "run", make_picker("teacher.onnx"), make_picker("student-file.onnx"), **told)
    page, read, _ = made(run)
    assert "Real samples that the student did not learn from" in read.text
    assert any((told["alt"] or "").startswith("8 real images") for name, told in read.tags if name == "img")
    assert "real.npz" in page
    assert str(tmp_path / "real.npz") not in page


def test_curves_have_every_term_that_was_logged(run: RunFolder) -> None:
    _, read, _ = made(run)
    told = [told.get("aria-label") or "" for name, told in read.tags if name == "svg"]
    assert "soft_labels over training time: from 4 to 0.2, between 0.2 and 4" in told
    assert "one_hot over training time: from 0.5 to 0.5, between 0.5 and 0.5" in told
    assert "agreement on the newest generated images over training time: from 0.6 to 0.6, between 0.6 and 0.6" in told


def test_times_are_shown_only_while_they_are_of_this_file(run: RunFolder) -> None:
    write_json(run.bench_file, {"schema": "edgekd.bench/1", "models": {"student": measured(run)}})
    page, _, missing = made(run)
    assert cells(page, "p50 [95 %]") == ["–", "0.250 [0.225, 0.275] ms"]
    assert cells(page[page.index("Latency of one inference") :], "Student")[:2] == [
        "0.250 [0.225, 0.275] ms",
        "p90 0.500 ms",
    ]
    assert "bench.json" not in {one["what"] for one in missing}
    model = onnx.load(run.student_onnx)
    onnx_file.set_metadata(model, {"changed": "since"})
    onnx.save(model, run.student_onnx)
    page, _, missing = made(run)
    assert "p50 [95 %]" not in page
    assert {one["what"]: one["command"] for one in missing}["bench.json"] == f"edgekd bench {run.path}"


def test_accuracy_counts_before_agreement_where_labels_were_at_hand(run: RunFolder) -> None:
    digest, theirs = onnx_file.model_sha256(run.student_onnx), run.record()["teacher"]["sha256"]
    evaluated = {"model": {"sha256": digest}, "accuracy": 0.875, "interval": [0.85, 0.9]}
    evaluated |= {"teacher": {"sha256": theirs, "accuracy": 0.925, "agreement": 0.9}}
    write_json(run.evaluation_file, {"schema": "edgekd.evaluations/1", "models": {"student.onnx": evaluated}})
    page, read, _ = made(run)
    assert cells(page, "accuracy [95 %]") == ["92.50 %", "87.50 % [85.0, 90.0]"]
    assert "is right on 87.50 % of the labelled images, the teacher on 92.50 %" in read.text


def test_int8_is_told_with_what_it_cost_and_how_well_it_was_calibrated(run: RunFolder) -> None:
    layers = [{"node": f"/conv{k}", "operator": "Conv", "sqnr_db": 20.0 + k} for k in range(30)]
    tensors = {"image": {"outside": 0.25, "overlap": 0.5}}
    record = {
        "schema": "edgekd.export/1",
        "target": "cpu",
        "quantization": {
            "recipe": {"name": "percentile", "title": "most of the values"},
            "samples": {"count": 512},
            "flavour": {"activation": "uint8", "weight": "int8", "per_channel": True},
            "float_nodes": {"Sub": 2},
            "float_reasons": [{"node": "/sub", "operator": "Sub", "reason": "there is no INT8 form of it"}],
            "sensitivity": layers[::-1],
        },
        "proof": {"int8": [{"label": "float", "bytes": 100}, {"label": "int8", "bytes": 30, "agreement_float": 0.98}]},
        "coverage": {
            "reference": "other samples",
            "calibration": {"outside": 0.01, "overlap": 0.9, "tensors": tensors},
            "noise": {"outside": 0.2, "overlap": 0.3},
        },
        "warnings": ["it is slow"],
    }
    write_json(run.export_file, record)
    page, read, _ = made(run)
    assert "Ranges by recipe percentile (most of the values), found on 512 samples for target cpu." in read.text
    assert "Nodes that still compute in float: 2 × Sub." in read.text
    assert cells(page, "/sub") == ["there is no INT8 form of it"]
    assert cells(page, "int8") == ["30 B", "98.00 %", "–", "–"]
    assert [cells(page, "calibration samples")[k] for k in (0, 2)] == ["90.00 %", "1.00 %"]
    assert cells(page, "image") == ["50.00 %", "25.00 %"]
    assert page.index("/conv0<") < page.index("/conv14<") < page.index("The other 15 layers") < page.index("/conv15<")
    assert "From export: it is slow." in read.text


def test_a_ledger_is_told_by_teacher(run: RunFolder) -> None:
    database = sqlite3.connect(run.ledger_file)
    with database:
        database.execute("CREATE TABLE spent (teacher TEXT PRIMARY KEY, samples INTEGER NOT NULL)")
        rows = [("http://user:secret@host:80/v2/models/a?key=secret", 1500), ("/far/b.onnx", 500)]
        database.executemany("INSERT INTO spent VALUES (?, ?)", rows)
    database.close()
    write_json(run.record_file, run.record() | {"queries": {"asked": 2000, "limit": 8000}})
    page, read, _ = made(run)
    assert "asked about 2,000 samples of the 8,000 allowed" in read.text
    assert cells(page, "http://host:80/v2/models/a") == ["1,500"]
    assert "secret" not in page


def test_what_queries_bought_is_drawn_against_them_and_is_no_loss(run: RunFolder) -> None:
    write_json(run.record_file, run.record() | {"queries": {"asked": 2000, "limit": 8000}})
    assert "against queries" not in made(run)[0]
    lines = [line | {"queries": 100 * line["step"], "agreement": 0.5 + line["step"] / 100} for line in METRICS]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, read, _ = made(run)
    assert "from 0.51 at 100 queries to 0.7 at 2,000" in read.text
    assert "<b>queries</b>" not in page
    assert "<b>agreement</b>" not in page


def test_a_collapse_is_a_warning(run: RunFolder) -> None:
    write_json(run.record_file, run.record() | {"progress": {"step": 20, "collapses": 2}})
    assert "The generator collapsed 2 times in this run" in made(run)[1].text


# ------------------------------------------------------------------------------------------------------ what it lacks


def test_a_run_that_has_just_begun_is_a_page_that_says_what_is_missing(tmp_path: Path, make_picker: Make) -> None:
    run = begun(tmp_path / "run", make_picker())
    _, read, missing = made(run)
    assert {one["what"] for one in missing} >= {"student.onnx", "bench.json", "metrics.jsonl", "samples/held_out.npz"}
    assert {one["command"] for one in missing} >= {f"edgekd export {run.path}", f"edgekd bench {run.path}"}
    assert "The run is still going, or was killed." in read.text
    assert all(one["what"] in read.text and one["why"] in read.text for one in missing)


def test_an_interrupted_run_shows_its_curves(run: RunFolder) -> None:
    write_json(run.record_file, run.record() | {"state": "interrupted", "stopped": "900 of 900 queries are used"})
    run.held_out_file.unlink()
    with run.metrics_file.open("a") as file:
        file.write('{"step": 21, "sec')  # killed while it wrote
    _, read, missing = made(run)
    assert "Stopped: 900 of 900 queries are used." in read.text
    assert any(told.get("aria-label", "").startswith("soft_labels") for name, told in read.tags if name == "svg")  # type: ignore[union-attr]
    assert (
        "the run is interrupted, and they are written when it ends"
        in {m["what"]: m["why"] for m in missing}["samples/held_out.npz"]
    )


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"models": 3, "warnings": 4, "quantization": []}', "\x00"])
def test_damaged_records_are_said_to_be_missing(run: RunFolder, content: str) -> None:
    for path in (run.export_file, run.bench_file, run.evaluation_file, run.metrics_file):
        path.write_text(content)
    page, _, _ = made(run)
    assert cells(page, "size")


@pytest.mark.parametrize("value", [None, "a", [], {}, True, [1], float("nan")])
def test_records_with_other_values_than_numbers_are_read(run: RunFolder, value: Any) -> None:
    latency = dict.fromkeys(("p50", "p50_interval", "p90", "p99", "samples", "processes"), value)
    entry = measured(run) | {"latency_ms": latency, "load_ms": value, "memory_bytes": value, "gzip_bytes": value}
    bench = {"models": {"student": entry}, "environment": value, "target": value, "measured": value, "simulated": value}
    write_json(run.bench_file, bench)
    tensor = {"t": {"outside": value, "overlap": value}}
    covered = {"overlap": 0.5, "outside": value, "tensors": tensor}
    inner = {"sensitivity": [{"node": value, "sqnr_db": value}, value], "steps": [value], "float_nodes": {"Sub": value}}
    export = {"coverage": {"calibration": covered, "noise": value}, "proof": {"int8": [{"bytes": value}]}}
    write_json(run.export_file, export | {"quantization": inner | {"recipe": value, "samples": value}})
    evaluated = {"model": {"sha256": entry["sha256"]}, "accuracy": value, "interval": value, "teacher": value}
    write_json(run.evaluation_file, {"models": {"student.onnx": evaluated, "b": value}})
    page, _, _ = made(run)
    assert "p50 [95 %]" not in page


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRun, match=r"no run\.json"):
        report(RunFolder(tmp_path))


# ---------------------------------------------------------------------------------------------- names that are not ours


def test_names_are_never_markup(run: RunFolder) -> None:
    record = run.record()
    record["teacher"]["path"] = f"/far/{HOSTILE.replace('/', '')}.onnx"
    record["student"]["name"], record["host"] = HOSTILE, {HOSTILE: HOSTILE}
    record["settings"] |= {"student": HOSTILE, HOSTILE: [HOSTILE]}
    write_json(run.record_file, record)
    write_json(
        run.export_file, {"target": HOSTILE, "warnings": [HOSTILE], "quantization": {"float_nodes": {HOSTILE: 1}}}
    )
    line = {"step": 1, "seconds": 1.0, HOSTILE: 2.0}
    run.metrics_file.write_text(json.dumps(line) + "\n")
    _, read, _ = made(run, names=[HOSTILE + str(k) for k in range(4)])
    assert {name for name, _ in read.tags}.isdisjoint({"script", "iframe", "object", "base", "form"})
    assert not [told for _, told in read.tags if any(key.startswith("on") for key in told)]
    sources = [value or "" for _, told in read.tags for key, value in told.items() if key in ("src", "href")]
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert read.text.count(HOSTILE) >= 8


def test_a_thousand_classes_are_a_page_of_bearable_size(run: RunFolder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(12, 1000)).astype(np.float32)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 2, 2])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])
    nodes = [helper.make_node("Flatten", ["image"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["logits"])]
    graph = helper.make_graph(nodes, "wide", [image], [logits], [numpy_helper.from_array(dense, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, run.student_onnx)
    codes = rng.integers(0, 256, size=(1024, 3, 2, 2), dtype=np.uint8)
    run.write_held_out(HeldOut(codes, rng.normal(size=(1024, 1000)).astype(np.float32), 0.0, 1.0))
    record = run.record()
    record["teacher"] |= {"classes": 1000, "channels": 3}
    write_json(run.record_file, record)
    page, read, _ = made(run, names=[f"a class with a rather long name, number {k}" for k in range(1000)])
    assert "The other 980 classes" in read.text
    assert "The first 40 of 1,000 are shown." in read.text
    assert "and 992 more: the student hardly saw these" in read.text
    assert len(page) < 2_000_000


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_into_the_run_and_again(run: RunFolder, call: Call) -> None:
    shown = call("report", run.path, "--json")
    told = json.loads(shown.out)
    assert (shown.code, told["schema"], told["path"]) == (0, "edgekd.report/1", str(run.path / "report.html"))
    assert told["bytes"] == (run.path / "report.html").stat().st_size
    assert "not in the report: student.int8.onnx, not exported yet" in shown.err
    assert call("report", run.path).out == f"{run.path / 'report.html'}\n"


def test_what_is_no_report_is_not_replaced(run: RunFolder, call: Call, tmp_path: Path) -> None:
    out = tmp_path / "notes.html"
    out.write_text("mine")
    refused = call("report", run.path, "--out", out)
    assert (refused.code, refused.out, out.read_text()) == (2, "", "mine")
    assert (
        refused.err
        == f"edgekd: error: {out}: it is there, and is no report; choose another --out, or say --overwrite\n"
    )
    assert call("report", run.path, "--out", out, "--overwrite").code == 0
    assert call("report", run.path, "--out", out).code == 0
    assert call("report", run.path, "--out", tmp_path).code == 2


def test_a_budget_is_shown_beside_what_was_found(run: RunFolder, call: Call, tmp_path: Path) -> None:
    budget = tmp_path / "budget.toml"
    budget.write_text('[budget]\nmax_size = "10 B"\nmin_agreement = 0.5\n')
    assert call("report", run.path, "--budget", budget).code == 0
    page = (run.path / "report.html").read_text()
    assert "1 of 2 limits are broken." in page
    assert cells(page, "max_size")[-1] == "BROKEN"
    assert cells(page, "min_agreement")[-1] == "ok"


@pytest.mark.parametrize("names", [["a"] * 3, ["a"] * 5])
def test_names_that_do_not_fit_are_refused_before_anything_is_written(run: RunFolder, names: list[str]) -> None:
    with pytest.raises(BadSetting, match=f"{len(names)} names for 4 classes"):
        report(run, names=names)
    assert not (run.path / "report.html").exists()


def test_another_teacher_is_refused(run: RunFolder, make_picker: Make) -> None:
    with pytest.raises(BadRun, match="it was not distilled from"):
        report(run, teacher=make_picker("third.onnx", shift=2))


def test_it_needs_no_torch_and_no_pillow(run: RunFolder) -> None:
    code = "import sys; from pathlib import Path; from edgekd.report import report; from edgekd.run_folder import *\n"
    code += f"report(RunFolder(Path({str(run.path)!r})))\nprint(sorted({{'torch', 'PIL'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_probes_are_shown_while_they_are_of_this_file(run: RunFolder) -> None:
    digest = onnx_file.model_sha256(run.student_onnx)
    told = {"model": {"sha256": digest}, "probes": {"blended": {"agreement": 0.625}}}
    told |= {"estimate": {"agreement": 0.75, "interval": [0.6, 0.85], "promised": 0.86, "accuracy": 0.9}}
    write_json(run.fidelity_file, {"schema": "edgekd.fidelities/1", "models": {"student.onnx": told}})
    read = made(run)[1]
    assert "blended62.50 %" in read.text
    assert "real images, estimated75.00 %" in read.text
    assert "by estimate on 75.00 % of real ones" in read.text
    assert "agreement, real images, estimated–75.00 % [60.0, 85.0] (86 %)" in read.text
    write_json(run.fidelity_file, {"models": {"student.onnx": told | {"model": {"sha256": "another"}}}})
    assert "blended" not in made(run)[1].text
