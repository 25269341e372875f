"""edgekd from Python: light to import, callable however it was imported, and documented by examples that run."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import edgekd
from edgekd import api
from edgekd.config import DistillSettings
from edgekd.errors import BadModel, BadRun, BadSetting, UnknownName

NAMES = ("bench", "distill", "export", "gate")


def python(code: str, folder: Path | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout


def test_importing_edgekd_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'numpy', 'pydantic', 'typer', 'edgekd.api'}"
    assert python(f"import sys, edgekd; print(sorted({heavy} & set(sys.modules)))") == "[]\n"


def test_only_distill_needs_torch(tmp_path: Path) -> None:
    code = "import sys, edgekd\nfor name in ('bench', 'export', 'gate'):\n    try: getattr(edgekd, name)('nowhere')\n"
    code += "    except edgekd.errors.BadInput as error: print(error.exit_code, 'torch' in sys.modules)\n"
    assert python(f"import edgekd.errors\n{code}", tmp_path) == "2 False\n" * 3


@pytest.mark.parametrize(
    "before", ["", "import edgekd.{0}", "from edgekd import {0}", "from edgekd.{0} import __name__"]
)
def test_it_is_called_however_it_was_imported(before: str) -> None:
    code = "import sys, edgekd\n"
    for name in ("bench", "export", "gate"):
        code += f"{before.format(name)}\nassert callable(edgekd.{name})\nimport edgekd.{name} as room\n"
        code += f"assert room is edgekd.{name} is sys.modules['edgekd.{name}']\nprint(room.__spec__.name)\n"
    assert python(code) == "edgekd.bench\nedgekd.export\nedgekd.gate\n"


def test_what_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edgekd.nothing  # noqa: B018
    assert set(NAMES) <= set(edgekd.__all__)
    assert set(api.__all__) == {*NAMES, "Settings"}


def test_settings_are_those_of_the_record() -> None:
    """What is told; `fixed` is what `resolve_settings` finds out."""
    assert set(api.Settings.__annotations__) == set(DistillSettings.model_fields) - {"fixed"}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_typed_and_explained(name: str) -> None:
    function = getattr(api, name)
    documented = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters:
        assert f"{parameter}: " in documented or f"{parameter}, " in documented or f", {parameter}" in documented
        assert parameter in function.__annotations__
    assert ">>> " in documented
    assert "Raises:" in documented


def test_misuse_is_an_error_of_edgekd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher_file: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSetting, match="no teacher"):
        edgekd.distill()
    with pytest.raises(BadSetting, match="no_such"):
        edgekd.distill(teacher_file, no_such=1)  # type: ignore[call-arg]
    with pytest.raises(BadRun, match="no run here"):
        edgekd.export()
    with pytest.raises(UnknownName, match="max_weight"):
        edgekd.gate(teacher_file, max_weight=3)
    with pytest.raises(BadSetting, match="input_shape"):
        edgekd.bench(tmp_path, input_shape=(1, 2, 3))
    with pytest.raises(BadModel):
        edgekd.gate("gone.onnx", max_size="1 kB")
    assert not (tmp_path / "runs").exists()


def test_one_file_is_held_against_a_budget_from_both_sides(teacher_file: Path, tmp_path: Path) -> None:
    budget = tmp_path / "budget.toml"
    budget.write_text('[budget]\nmax_size = "1 GB"\n')
    (from_file,) = edgekd.gate(str(teacher_file), budget)
    assert (from_file.metric, from_file.ok, from_file.actual) == ("max_size", True, teacher_file.stat().st_size)
    assert [verdict.ok for verdict in edgekd.gate(teacher_file, budget, max_size="1 B")] == [False]


@pytest.mark.slow
def test_the_examples_in_the_docstrings_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher_file: Path
) -> None:
    """In the order of the stages and in one folder, as somebody would type them."""
    monkeypatch.chdir(teacher_file.parent)
    runner, names = doctest.DocTestRunner(verbose=False), {"edgekd": edgekd}
    for name in ("distill", "export", "bench", "gate"):
        (example,) = doctest.DocTestFinder(recurse=False).find(getattr(api, name), name, globs=names)
        assert runner.run(example, clear_globs=False).attempted
    assert runner.summarize(verbose=False).failed == 0
