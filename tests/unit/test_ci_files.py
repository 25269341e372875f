"""What others copy into their CI: read by the parsers that will read it, and run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workflows import action_steps, read, run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "ci"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a model and its budget, and `edgekd` on the path; `pip` only writes down what it is told."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, line in (
        ("edgekd", f'PYTHONPATH={ROOT} exec {sys.executable} -m edgekd "$@"'),
        ("pip", 'echo "pip $*" >> "$PIP_LOG"'),
        ("python", 'shift 2; echo "pip $*" >> "$PIP_LOG"'),
    ):
        (place / name).write_text(f"#!/bin/bash\n{line}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "pip.log"))
    return tmp_path


def steps(with_: dict[str, str]) -> list[dict[str, Any]]:
    return action_steps(ROOT / "action.yml", with_)


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("github-actions", "action.yml"),
        ("github-workflows", "examples/ci/github.yml"),
        ("github-workflows", ".github/workflows/ci.yml"),
        ("gitlab-ci", "examples/ci/gitlab.yml"),
    ],
)
def test_the_schema_of_those_who_read_it_holds(schema: str, file: str) -> None:
    pytest.importorskip("check_jsonschema")
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(ROOT / file)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_of_the_examples_has_to_be_replaced() -> None:
    for file in (*EXAMPLES.iterdir(), ROOT / "action.yml"):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
        assert not re.search(r"OWNER|ADDRESS|edgekd@", "\n".join(lines))


def test_the_action_is_a_composite_whose_scripts_hold_no_expression() -> None:
    action = read(ROOT / "action.yml")
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert "${{" not in step.get("run", "")  # an input that is pasted into a script can be a command
        assert "shell" in step or "uses" in step


def test_the_example_for_github_runs_as_written(program: Path, make_classifier) -> None:
    make_classifier("model.onnx")
    jobs = read(EXAMPLES / "github.yml")["jobs"]
    (own,) = [step for step in jobs["budget"]["steps"] if "edgekd" in step.get("uses", "")]
    _, install, gate = steps(own["with"])
    assert run(install, program, GITHUB_ACTION_PATH="/action").returncode == 0
    assert "install --quiet --disable-pip-version-check /action" in (program / "pip.log").read_text()
    assert own["uses"] == "./tools/edgekd"
    for limit, code in (("300 kB", 0), ("1 kB", 0), ("100 B", 1)):
        (program / "budget.toml").write_text(f'[budget]\nmax_size = "{limit}"\n')
        done = run(gate, program, GITHUB_STEP_SUMMARY=str(program / "summary.md"))
        assert done.returncode == code, done.stderr
    assert "::error title=edgekd gate%3A max_size::" in done.stdout
    assert (program / "summary.md").read_text().count("### edgekd gate") == 3


def test_inputs_of_the_action_become_flags_and_never_commands(program: Path, make_classifier) -> None:
    make_classifier("a b.onnx")
    told = {"model": "a b.onnx", "arguments": "--max-size 1MB --max-parameters 1M", "strict": "true"}
    assert run(steps(told)[-1], program).stdout.count("ok") >= 2
    hostile = {"model": '$(touch stolen); `touch stolen` "a.onnx', "arguments": "; touch stolen"}
    assert run(steps(hostile)[-1], program).returncode == 2
    assert not (program / "stolen").exists()


def test_the_example_for_gitlab_runs_as_written(program: Path, make_classifier) -> None:
    junitparser = pytest.importorskip("junitparser")
    make_classifier("model.onnx")
    (program / "budget.toml").write_text('[budget]\nmax_size = "100 B"\n')
    (job,) = read(EXAMPLES / "gitlab.yml").values()
    assert job["artifacts"]["when"] == "always"
    done = run({"shell": "bash", "run": "\n".join(job["script"])}, program)
    assert done.returncode == 1, done.stderr
    (suite,) = junitparser.JUnitXml.fromfile(str(program / job["artifacts"]["reports"]["junit"]))
    assert suite.failures == 1


def test_the_hook_is_one_that_pre_commit_accepts() -> None:
    clientlib = pytest.importorskip("pre_commit.clientlib")
    (hook,) = clientlib.load_manifest(str(ROOT / ".pre-commit-hooks.yaml"))
    assert re.search(hook["files"], "models/a.onnx")


def test_the_hook_checks_every_file_it_is_given(program: Path, make_classifier) -> None:
    (hook,) = read(ROOT / ".pre-commit-hooks.yaml")
    files = [str(make_classifier(name, filters=n)) for name, n in (("a.onnx", 8), ("b.onnx", 512))]
    command = [*hook["entry"].split(), "--max-size", "2kB", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, f"gate: broken, max_size of {files[1]}")
