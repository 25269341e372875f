"""The examples for CI in a fresh clone of a repository that copied them: every step is run as written, pip installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from tiny_teacher import classifier
from workflows import action_steps, read, run

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")]


def git(folder: Path, *words: str) -> str:
    told = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "protocol.file.allow=always",
        "-c",
        "init.defaultBranch=main",
    ]
    done = subprocess.run(["git", *told, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def committed(folder: Path) -> None:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What somebody clones edgekd from: the sources as they are here, without what git ignores."""
    if not (ROOT / ".git").exists():
        pytest.skip("these sources are no git checkout")
    folder = tmp_path_factory.mktemp("published") / "edgekd"
    for name in git(ROOT, "ls-files", "-z", "-co", "--exclude-standard").split("\0")[:-1]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    committed(folder)
    return folder


@pytest.fixture(scope="module")
def checkout(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, submodules and all, of a repository that ships a model and copied the examples."""
    folder = tmp_path_factory.mktemp("theirs")
    origin, clone = folder / "origin", folder / "clone"
    for example, place in (("github.yml", ".github/workflows/model.yml"), ("gitlab.yml", ".gitlab-ci.yml")):
        (origin / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "examples" / "ci" / example, origin / place)
    onnx.save(classifier(), origin / "model.onnx")
    (origin / "budget.toml").write_text('[budget]\nmax_size = "300 kB"\nmax_parameters = "80 k"\n')
    git(origin, "init", "-q")
    git(origin, "submodule", "--quiet", "add", str(published), "tools/edgekd")
    committed(origin)
    git(folder, "clone", "-q", "--recurse-submodules", str(origin), str(clone))
    return clone


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine of CI: a Python with pip, and edgekd's dependencies, so that the index is not needed; not edgekd."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("edgekd", "_edgekd", "__editable__", "__pycache__", "torch", "functorch")):
            (site / entry.name).symlink_to(entry)
    for name in ("PYTHONPATH", "EDGEKD_DEBUG", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads it backwards: this switches the isolation off
    return home


def steps(job: dict[str, Any], checkout: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The scripts of a job with their environment; what GitHub's own actions do is done."""
    for step in job["steps"]:
        if "run" in step:
            yield step, {}
        elif step["uses"].startswith("./"):
            folder = checkout / step["uses"]
            for inner in action_steps(folder / "action.yml", step["with"]):
                if "run" in inner:
                    yield inner, {"GITHUB_ACTION_PATH": str(folder)}
                else:
                    assert inner["uses"].startswith("actions/setup-python@")
        else:
            assert step["uses"].startswith(("actions/checkout@", "actions/setup-python@"))


@pytest.mark.parametrize("limit", ["300 kB", "100 B"])
def test_the_budget_of_the_example_for_github(checkout: Path, machine: Path, tmp_path: Path, limit: str) -> None:
    shutil.copytree(checkout, mine := tmp_path / "mine", symlinks=True)
    (mine / "budget.toml").write_text(f'[budget]\nmax_size = "{limit}"\n')
    job = read(mine / ".github/workflows/model.yml")["jobs"]["budget"]
    install, gate = [
        run(step, mine, GITHUB_STEP_SUMMARY=str(tmp_path / "sum.md"), **told) for step, told in steps(job, mine)
    ]
    assert install.returncode == 0, install.stderr
    assert gate.returncode == (limit == "100 B"), gate.stderr
    assert ("::error title=edgekd gate%3A max_size::" in gate.stdout) is (limit == "100 B")
    assert (tmp_path / "sum.md").read_text().startswith("### edgekd gate\n")


def test_the_latency_of_the_example_for_github(checkout: Path, machine: Path) -> None:
    job = read(checkout / ".github/workflows/model.yml")["jobs"]["latency"]
    install, bench = [run(step, checkout, GITHUB_BASE_REF="main", **told) for step, told in steps(job, checkout)]
    assert install.returncode == 0, install.stderr
    last = next(line for line in reversed(bench.stdout.splitlines()) if not line.startswith("::"))
    assert last.startswith("bench: "), bench.stderr
    assert bench.returncode == ("regressed" in last)  # of a model beside itself: one in a hundred, at most


def test_the_example_for_gitlab(checkout: Path, machine: Path) -> None:
    junitparser = pytest.importorskip("junitparser")
    (job,) = read(checkout / ".gitlab-ci.yml").values()
    assert job["variables"]["GIT_SUBMODULE_STRATEGY"] == "recursive"
    done = run({"run": "\n".join(job["script"])}, checkout)
    assert done.returncode == 0, done.stderr
    (suite,) = junitparser.JUnitXml.fromfile(str(checkout / job["artifacts"]["reports"]["junit"]))
    assert (suite.tests, suite.failures) == (2, 0)


def test_the_hook_of_a_repository_that_names_this_one(published: Path, machine: Path, tmp_path: Path) -> None:
    """`pre-commit` clones edgekd and reads its hooks; installing them is pip's work, and is left out here."""
    pytest.importorskip("pre_commit")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    onnx.save(classifier(), theirs / "model.onnx")
    told = ["repos:", f"  - repo: {published}", f"    rev: {git(published, 'rev-parse', 'HEAD').strip()}"]
    told += ["    hooks:", "      - id: edgekd-size", "        language: system", "        args: [--max-size, LIMIT]"]
    subprocess.run([machine / "bin" / "python", "-m", "pip", "install", "-q", str(published)], check=True)
    git(theirs, "init", "-q")
    for limit, code in (("300kB", 0), ("100B", 1)):
        (theirs / ".pre-commit-config.yaml").write_text("\n".join(told).replace("LIMIT", limit) + "\n")
        git(theirs, "add", "-A")
        hook = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
        environment = os.environ | {"PRE_COMMIT_HOME": str(tmp_path / "cache")}
        done = subprocess.run(hook, cwd=theirs, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert ("gate: broken, max_size" in done.stdout) is (code == 1)
