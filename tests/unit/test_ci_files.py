"""What others copy into their CI: read by the parsers that will read it, and run as written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "ci"


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


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
    """The action's own steps, its expressions filled in as the runner does."""
    action = read(ROOT / "action.yml")
    given = {name: told.get("default", "") for name, told in action["inputs"].items()} | with_
    assert not [n for n, told in action["inputs"].items() if told.get("required") and n not in with_]
    assert not set(with_) - set(action["inputs"])
    text = json.dumps(action["runs"]["steps"])
    filled = re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda m: json.dumps(given[m[1]])[1:-1], text)
    assert "${{" not in filled
    return json.loads(filled)


def run(step: dict[str, Any], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    assert step["shell"] == "bash"
    environment = {**os.environ, **step.get("env", {}), **more}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


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
