"""`edgekd bench` and `gate` at the command line, with short measurements of tiny models."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from calling import Call

QUICK = """schema = 1
title = "Short"
[bench]
processes = 2
warmup_runs = 2
warmup_seconds = 0
runs = 20
seconds = 0.01
"""


@pytest.fixture
def here(tmp_path: Path, make_classifier) -> Path:
    make_classifier("m.onnx")
    (tmp_path / "quick.toml").write_text(QUICK)
    return tmp_path


@pytest.fixture
def bench(call: Call, here: Path):
    return lambda *words: call("bench", "m.onnx", "--target", "quick.toml", *words)


@pytest.mark.slow
def test_a_baseline_is_saved_and_compared_with(bench, here: Path) -> None:
    saved = bench("--save-baseline", "base.json", "--json")
    assert saved.code == 0  # a busy machine is told on stderr
    record = json.loads(saved.out)
    assert json.loads((here / "base.json").read_text()) == record
    assert set(record["noise"]["m"]) == {"p50", "p90", "load"}
    slow = record["models"]["m"]["samples_us"]
    record["models"]["m"]["samples_us"] = [[one / 10 for one in process] for process in slow]
    (here / "base.json").write_text(json.dumps(record))
    shown = bench("--compare", "base.json")
    assert shown.code == 1
    assert shown.out.endswith("bench: regressed, m p50\n")
    record["environment"]["cpu"] = "another"
    (here / "base.json").write_text(json.dumps(record))
    elsewhere = bench("--compare", "base.json")
    assert elsewhere.code == 0
    assert "warning: times are not comparable with base.json: cpu is " in elsewhere.err
    assert bench("--compare", "base.json", "--strict").code == 1


def test_two_files_are_measured_in_turn(bench, make_classifier) -> None:
    make_classifier("heavy.onnx", filters=256)
    shown = bench("--compare", "heavy.onnx", "--json")
    assert shown.code == 0
    compared = json.loads(shown.out)["comparison"]
    assert (compared["paired"], compared["differences"]) == (True, [])
    assert compared["models"]["m"]["parameters"]["ratio"] < 0.1
    assert compared["models"]["m"]["p50"]["verdict"] in ("improved", "ok", "inconclusive")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_an_earlier_commit_of_the_model_is_measured_in_turn(bench, here: Path, make_classifier) -> None:
    git = ["git", "-C", str(here), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "m.onnx"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    make_classifier("m.onnx", filters=64)
    compared = json.loads(bench("--compare", "HEAD", "--json").out)["comparison"]
    assert compared["models"]["m"]["parameters"]["ratio"] > 7
    refused = bench("--compare", "HEAD:other.onnx")
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--compare", "none.json"], 2, "--compare none.json: no such file; allowed: a record, an ONNX file"),
        (["--compare", "m.onnx", "--save-baseline", "b.json"], 2, "allowed: one of them"),
        (["--compare", "quick.toml"], 2, "quick.toml: not readable as JSON"),
        (["--threads", "0"], 2, "runtime.intra_op_threads: "),
        (["--affinity", "0.5"], 2, "--affinity: '0.5' are no cores"),
        (["--format", "yaml"], 2, "--format"),
        (["--json", "--format", "junit"], 2, "--json and --format junit"),
        (["--save-baseline", "m.onnx/b.json"], 4, "cannot be written"),
    ],
)
def test_what_cannot_be_is_one_line(bench, here: Path, words: list[str], code: int, said: str) -> None:
    before = sorted(here.iterdir())
    shown = bench(*words)
    assert (shown.code, shown.out) == (code, "")
    assert said in shown.err
    # A busy machine may be told of, where writing fails after measuring.
    assert len([line for line in shown.err.splitlines() if "did not settle" not in line]) == 1
    assert sorted(here.iterdir()) == before


def test_free_sides_need_a_shape(call: Call, here: Path, make_classifier) -> None:
    make_classifier("free.onnx", dims=("N", 1, "H", "W"))
    shown = call("bench", "free.onnx", "--target", "quick.toml")
    assert (shown.code, "--input-shape" in shown.err) == (2, True)
    assert call("bench", "free.onnx", "--target", "quick.toml", "--input-shape", "1,6,6", "--json").code == 0


def test_a_target_that_cannot_run_here_is_no_failure_unless_it_must(call: Call, here: Path) -> None:
    (here / "moon.toml").write_text(
        QUICK + '[runtime]\nprovider = "MoonExecutionProvider"\nplugin = "ep_moon"\nwheel = "ep-moon"\n'
    )
    words = ("bench", "m.onnx", "--target", "moon.toml")
    shown = call(*words)
    assert shown.code == 0
    assert shown.err == "not measured: the plug-in ep_moon is not installed; install it: pip install ep-moon\n"
    assert "not measured" in shown.out
    assert "parameters" in shown.out
    must = call(*words, "--require-measured", "--json")
    assert must.code == 3
    assert json.loads(must.out)["models"]["m"]["parameters"] > 0
    assert must.err.splitlines()[-1].startswith("edgekd: error: target moon: the plug-in ep_moon is not installed")


def test_profile_and_placement_are_shown(bench, here: Path) -> None:
    shown = bench("--profile", "--placement")
    assert shown.code == 0
    assert "CPUExecutionProvider  100.00 %" in shown.out
    assert "█" in shown.out
    assert shown.err.splitlines()[-1] == "chart: m.profile.svg"
    assert "Gemm" in (here / "m.profile.svg").read_text()


def test_the_chart_is_drawn_where_it_is_asked_for(bench, here: Path) -> None:
    assert bench("--chart", "new/where.svg", "--json").err.splitlines()[-1] == "chart: new/where.svg"
    assert {path.name for path in here.iterdir()} == {"m.onnx", "quick.toml", "new"}
    refused = bench("--chart", "m.onnx")
    assert (refused.code, refused.err) == (
        2,
        "edgekd: error: --chart: m.onnx is no SVG; allowed: a file that ends in .svg\n",
    )


def test_a_target_that_cannot_be_measured_has_no_chart(call: Call, here: Path) -> None:
    (here / "moon.toml").write_text(QUICK + '[runtime]\nprovider = "MoonExecutionProvider"\n')
    shown = call("bench", "m.onnx", "--target", "moon.toml", "--profile")
    assert (shown.code, "chart" in shown.err) == (0, False)
    assert not list(here.glob("*.svg"))


@pytest.mark.parametrize("name", ["table", "json", "markdown", "github", "junit", "benchmark-action"])
def test_every_format_is_shown(bench, call: Call, here: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(here / "summary.md"))
    assert "m" in bench("--format", name).out
    shown = call("gate", "m.onnx", "--max-size", "1B", "--max-parameters", "1M", "--format", name)
    assert shown.code == 1
    assert "max" in shown.out
    assert (here / "summary.md").exists() is (name == "github")
    if name == "github":
        assert "::error title=edgekd gate%3A max_size::" in shown.out
        assert (here / "summary.md").read_text().count("### edgekd") == 2


def test_a_gate_on_what_changed(bench, call: Call, here: Path, make_classifier) -> None:
    bench("--save-baseline", "base.json")
    limits = ("gate", "m.onnx", "--baseline", "base.json", "--max-size-increase", "1%")
    assert call(*limits).code == 0
    make_classifier("m.onnx", dims=("N", 1, 9, 9))
    refused = call(*limits)
    assert (refused.code, refused.out) == (2, "")
    assert (
        "base.json: it is of another model: m.onnx takes float32 [1, 1, 8, 8], m.onnx float32 [?, 1, 9, 9]"
        in refused.err
    )
    make_classifier("m.onnx", filters=16)
    shown = call(*limits)
    assert (shown.code, shown.out.splitlines()[-1]) == (1, "gate: broken, max_size_increase")
    (here / "now.json").write_text(bench("--json").out)
    record = json.loads((here / "base.json").read_text())
    record["environment"]["cpu"] = "another"
    (here / "base.json").write_text(json.dumps(record))
    times = ("gate", "m.onnx", "--baseline", "base.json", "--bench", "now.json", "--max-p50-increase", "5%")
    unsure = call(*times)
    assert (unsure.code, unsure.out.splitlines()[-1]) == (0, "gate: ok, 0 limits held; inconclusive, max_p50_increase")
    assert "was another" in unsure.err
    assert call(*times, "--strict").code == 1
    assert call("gate", "m.onnx", "--baseline", "none.json", "--max-size-increase", "1%").code == 2


def test_the_doctor_tells_of_the_machine_and_of_every_target(call: Call, here: Path) -> None:
    from edgekd import shipped

    (here / "moon.toml").write_text(QUICK + '[runtime]\nprovider = "MoonExecutionProvider"\n')
    shown = call("doctor", "--target", "cpu", "--target", "moon.toml")
    assert shown.code == 0
    assert "CPUExecutionProvider" in shown.out
    assert "no: MoonExecutionProvider is not in this onnxruntime" in shown.out
    found = json.loads(call("doctor", "--json").out)
    assert set(found["targets"]) == set(shipped.names("targets"))
    assert found["targets"]["cpu"] == {
        **{"runner": "local", "provider": "CPUExecutionProvider", "measurable": True, "why": ""}
    }
    assert {"cpu", "isa", "cores", "governor", "onnxruntime"} <= set(found["environment"])
    assert call("doctor", "--target", "none").code == 2


def test_the_schema_that_is_published_is_that_of_what_bench_writes(bench, call: Call) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    published = json.loads(call("schema", "bench").out)
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(json.loads(bench("--json", "--profile").out), published)
    assert call("schema", "dream").code == 2
