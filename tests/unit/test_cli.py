"""The command line: exit codes, one line per error, JSON alone on stdout, and quick starts."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from calling import Call
from tiny_teacher import classifier

from edgekd import __version__, shipped, terminal
from edgekd.cli import measuring
from edgekd.distill import Progress
from edgekd.errors import EdgekdError
from edgekd.gate import LIMITS

# ---------------------------------------------------------------------------------------------------------- manners


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("arguments", [["--help"], ["distill", "--help"], ["targets", "list"], ["--version"]])
def test_what_needs_no_model_starts_without_the_heavy_modules(arguments: list[str]) -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'numpy'}"
    code = f"import sys, edgekd.cli as c\ntry: c.main({arguments})\nexcept SystemExit as e: assert not e.code, e.code\n"
    assert python(code + f"print('loaded:', sorted({heavy} & set(sys.modules)))").stdout.endswith("loaded: []\n")


@pytest.mark.parametrize("module", ["bench", "gate", "evaluate", "inspect", "export", "report"])
def test_what_a_device_runs_starts_without_torch(module: str) -> None:
    assert python(f"import sys, edgekd.{module}; print('torch' in sys.modules)").stdout == "False\n"


def test_a_model_is_gated_without_what_only_runs_and_measurements_need(make_classifier: Callable[..., Path]) -> None:
    slow = "{'torch', 'onnxruntime', 'rich', 'httpx', 'edgekd.bench', 'edgekd.bench_record', 'edgekd.config'}"
    limits = ["--max-size", "1MB", "--max-gzip-size", "1MB", "--max-parameters", "1M", "--max-macs", "1G"]
    arguments = ["gate", str(make_classifier()), *limits]
    code = f"import sys, edgekd.cli as c\ntry: c.main({arguments})\nexcept SystemExit as e: assert not e.code, e.code\n"
    shown = python(code + f"print('loaded:', sorted({slow} & set(sys.modules)))").stdout
    assert shown.endswith("gate: ok, 4 limits held\nloaded: []\n")


def test_the_interpreter_does_not_look_through_everything_once_more_at_its_end() -> None:
    told = "atexit.register(lambda: print('kept:', gc.get_freeze_count() > 10_000))"
    assert (
        python(f"import atexit, gc, edgekd.cli as c\n{told}\nc.main(['--version'])").stdout
        == f"edgekd {__version__}\nkept: True\n"
    )


def test_python_m_edgekd_is_edgekd() -> None:
    done = subprocess.run([sys.executable, "-m", "edgekd", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"edgekd {__version__}\n"


def test_no_command_shows_the_help_and_is_a_misuse(call: Call) -> None:
    shown = call()
    assert shown.code == 2
    for command in ("inspect", "distill", "export", "bench", "eval", "gate", "report", "targets", "calibration"):
        assert command in shown.out + shown.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gate", "--max-weight", "3"], "No such option: --max-weight"),
        (["inspect"], "Missing argument"),
        (["distill", "t.onnx", "--minutes", "soon"], "--minutes"),
        (["distil"], "distil"),
        (["distill", "t.onnx", "--layout", "CHWN"], "--layout"),
    ],
)
def test_a_misused_command_line_is_one_line(call: Call, arguments: list[str], said: str) -> None:
    shown = call(*arguments)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith("edgekd: error: ")
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1


def test_the_gates_flags_are_limits_of_a_budget_and_every_bound_has_one() -> None:
    import inspect

    flags = {name for name in inspect.signature(measuring.gate).parameters if name.startswith(("max_", "min_"))}
    assert flags <= set(LIMITS)
    assert {name for name, limit in LIMITS.items() if limit.rule == "bound"} <= flags


# --------------------------------------------------------------------------------------------------------- boundary


def guarded(capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[int, str]:
    def fails() -> None:
        raise error

    code = terminal.guarded(fails)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (EdgekdError("it broke"), 4, "edgekd: error: it broke\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 4, "edgekd: error: a: No space left on device\n"),
        (MemoryError(), 4, "edgekd: error: out of memory\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_exit_codes(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    assert guarded(capsys, error) == (code, said)


def test_a_bug_is_one_line_and_its_traceback_is_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEKD_DEBUG", raising=False)
    code, said = guarded(capsys, ZeroDivisionError("division\nby zero"))
    assert code == 4
    assert said.startswith("edgekd: error: this is a bug in edgekd: ZeroDivisionError: division by zero; ")
    assert len(said.splitlines()) == 1
    monkeypatch.setenv("EDGEKD_DEBUG", "1")
    assert "Traceback" in guarded(capsys, ZeroDivisionError("x"))[1]


@pytest.mark.skipif(os.name == "nt", reason="pipes of a Unix shell")
def test_a_reader_who_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgekd", "targets", "list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (terminal.PIPE_CLOSED, "")


def test_progress_without_a_terminal_is_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with terminal.distilling("begun") as watch:
        assert stream.getvalue() == ""
        watch(Progress(1, 0.01, 1.0, 99.0, 1000.0, {"one_hot": 0.5}))
        monkeypatch.setattr(terminal, "PLAIN_SECONDS", 0.0)
        watch(Progress(2, 0.5, 60.0, 3700.0, 1234.0, {"one_hot": 0.25}, message="careful"))
    begun, message, line = stream.getvalue().splitlines()
    assert (begun, message) == ("begun", "careful")
    assert line == " 50%  1:01:40 left  1,234 images/s  one_hot 0.25"


# ---------------------------------------------------------------------------------------------------- shipped files


def test_published_presets_are_settings_that_hold(call: Call) -> None:
    from edgekd.settings import resolve_settings

    found = {name: resolve_settings({}, shipped.find("presets", name)) for name in shipped.names("presets")}
    assert {name.split("-")[0] for name in found} == {"cdfkd", "tiny"}
    recipe = found["cdfkd-mfs-cifar100"].recipe
    assert (recipe.heads, recipe.features, recipe.ensemble, recipe.adversary) == (1.0, 0.2, 5.0, 1.0)
    assert (recipe.statistics, recipe.student_steps, recipe.fresh) == (0.1, 5, True)
    mini = found["cdfkd-mfs-miniimagenet"].recipe
    assert (mini.features, mini.ensemble, mini.student_batch) == (0.05, 1.0, 64)
    assert found["cdfkd-mnist"].recipe.adversary == 0.0
    assert found["cdfkd-cifar100"].recipe == resolve_settings({"method": "cdfkd"}).recipe


def test_the_preset_of_tiny_students_is_what_was_measured() -> None:
    from edgekd.settings import resolve_settings

    results = json.loads((Path(__file__).parents[2] / "benchmarks/results/cdfkd.json").read_text())
    told = results["cases"]["mnist-tiny-long"]["variants"]["teachers' mean, procedural images, best of eight"]["told"]
    changed = dict(setting.split("=") for setting in told["set"])
    preset = resolve_settings({}, shipped.find("presets", "tiny-student"))
    assert preset.recipe == resolve_settings({"method": told["method"], "recipe": changed}).recipe


@pytest.mark.parametrize("kind", ["targets", "calibration"])
def test_shipped_files_are_listed_and_shown(call: Call, kind: shipped.Kind) -> None:
    assert list(json.loads(call(kind, "list", "--json").out)) == shipped.names(kind)
    for name in shipped.names(kind):
        assert name in call(kind, "list").out
        record = json.loads(call(kind, "show", name, "--json").out)
        assert (record["schema"], record["name"]) == (1, name)
        assert record["title"] in call(kind, "show", name).out


def test_inspect_for_people_and_for_programs(call: Call, tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "t.onnx")
    assert "survives: 1 layer" in call("inspect", "t.onnx").out
    shown = call("inspect", "t.onnx", "--json")
    assert (shown.code, shown.err) == (0, "")
    assert json.loads(shown.out)["schema"] == "edgekd.inspection/1"
