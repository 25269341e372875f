"""The whole path: a teacher's file to a gated INT8 student, with and without torch, and through a SIGKILL."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import runner, script
from tiny_teacher import classifier

from edgekd import shipped
from edgekd.devices import load_target
from edgekd.inference import agreement, logits
from edgekd.run_folder import RunFolder

pytestmark = pytest.mark.slow

SMALL = {"generator_batch": 32, "student_batch": 32, "bank": 256, "prior": 64, "latent": 8, "generator_width": 4}
QUICK = """schema = 1
title = "A short measurement"
[bench]
processes = 1
warmup_runs = 1
warmup_seconds = 0
runs = 10
seconds = 0.01
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, labelled data, and a distilled run of it under runs/."""
    folder = tmp_path_factory.mktemp("home")
    onnx.save(classifier(), folder / "teacher.onnx")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 12, 12)).astype(np.uint8)
    np.savez(folder / "evaluation.npz", images=images, labels=rng.integers(0, 4, 40))
    (folder / "quick.toml").write_text(QUICK)
    recipe = "\n".join(f"{key} = {value}" for key, value in SMALL.items())
    (folder / "small.toml").write_text(f"steps = 20\nthreads = 1\n[recipe]\n{recipe}\n")
    edgekd = runner(sys.executable, folder)
    done = edgekd("distill", "teacher.onnx", "--config", "small.toml")
    assert "edgekd export runs/teacher-" in done.stdout
    edgekd("export")
    return folder


def test_the_commands_of_the_mission_work_in_any_folder(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    edgekd = runner(sys.executable, tmp_path)
    exported = edgekd("export", "--int8", "--force")
    (path,) = (tmp_path / "runs").iterdir()
    assert exported.stderr.splitlines()[0] == f"using runs/{path.name}"
    table = edgekd("bench", "--target", "cpu").stdout
    for label in ("teacher", "student", "student.int8", "p50", "agreement"):
        assert label in table
    run = RunFolder(path)
    assert list(json.loads(run.bench_file.read_text())["models"]) == ["teacher", "student", "student.int8"]
    for file in (run.student_onnx, run.student_int8_onnx, run.generator_onnx, run.held_out_file, run.metrics_file):
        assert file.is_file()


def test_everything_after_distill_runs_from_a_wheel_without_torch(
    home: Path, tmp_path: Path, without_torch: Path
) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    edgekd = runner(without_torch, tmp_path)
    assert list(json.loads(edgekd("targets", "list", "--json").stdout)) == shipped.names("targets")
    assert json.loads(edgekd("inspect", "teacher.onnx", "--json").stdout)["access"]["gradient"]["possible"] is None
    refused = edgekd("distill", "teacher.onnx", check=False)
    assert (refused.returncode, "edgekd[distill]" in refused.stderr) == (3, True)
    assert json.loads(edgekd("export", "--int8", "--force", "--json").stdout)["files"]["student_int8"]["bytes"] > 0
    assert json.loads(edgekd("bench", "--target", "quick.toml", "--json").stdout)["schema"] == "edgekd.bench/1"
    records = json.loads(edgekd("eval", "--data", "evaluation.npz", "--json").stdout)["models"]
    assert set(records) == {"student.onnx", "student.int8.onnx"}
    held = edgekd("gate", "--max-size", "1MB", "--max-p50", "10 s", "--min-agreement", "0", "--min-accuracy", "0")
    assert held.stdout.splitlines()[-1] == "gate: ok, 4 limits held"


def test_the_whole_path_runs_from_a_wheel_by_its_console_script(home: Path, tmp_path: Path, with_torch: Path) -> None:
    for name in ("teacher.onnx", "small.toml", "quick.toml"):
        shutil.copy(home / name, tmp_path)
    edgekd = script(with_torch, tmp_path)
    assert "cpu" in edgekd("targets", "list").stdout
    edgekd("distill", "teacher.onnx", "--config", "small.toml")
    exported = json.loads(edgekd("export", "--int8", "--force", "--json").stdout)
    assert exported["files"].keys() >= {"student", "student_int8"}
    assert list(json.loads(edgekd("bench", "--target", "quick.toml", "--json").stdout)["models"]) == [
        *["teacher", "student", "student.int8"]
    ]
    held = edgekd("gate", "--max-size", "1MB", "--max-p50", "10 s", "--min-agreement", "0")
    assert held.stdout.splitlines()[-1] == "gate: ok, 3 limits held"


def test_a_sweep_that_is_killed_goes_on_and_leaves_ordinary_runs(home: Path, tmp_path: Path) -> None:
    for name in ("teacher.onnx", "small.toml", "quick.toml"):
        shutil.copy(home / name, tmp_path)
    edgekd = runner(sys.executable, tmp_path)
    told = [
        "--students",
        "cnn-small,lenet5-tiny",
        "--widths",
        "0.25",
        "--config",
        "small.toml",
        "--target",
        "quick.toml",
    ]
    command = [sys.executable, "-m", "edgekd", "sweep", "teacher.onnx", *told, "--out", "swept"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (tmp_path / "swept/cnn-small-0.25/student.onnx").is_file():
        assert process.poll() is None, process.stderr
        time.sleep(0.05)
    process.kill()
    process.communicate()
    again = ["sweep", "teacher.onnx", "--out", "swept", "--resume", "--target", "quick.toml"]
    record = json.loads(edgekd(*again, "--max-size", "1MB", "--json").stdout)
    assert record["cheapest"]["run"] == "lenet5-tiny-0.25"
    for name in ("cnn-small-0.25", "lenet5-tiny-0.25"):
        run = f"swept/{name}"
        edgekd("export", run, "--int8", "--force")
        edgekd("bench", run, "--target", "quick.toml")
        edgekd("gate", run, "--max-size", "1MB", "--min-agreement", "0")
        assert (tmp_path / edgekd("report", run).stdout.strip()).is_file()
    assert (tmp_path / "swept/sweep.html").is_file()


@pytest.mark.parametrize("name", shipped.names("targets"))
def test_every_target_gets_a_file_that_loads_and_agrees(home: Path, tmp_path: Path, name: str) -> None:
    """Static checks by `edgekd check`; ONNX Runtime's CPU kernels stand in for providers that are not here."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    edgekd = runner(sys.executable, tmp_path)
    (path,) = (tmp_path / "runs").iterdir()
    run, target = RunFolder(path), load_target(name)
    precision = "fp16" if target.quantization.int8_refused else "int8"
    options = (f"--{precision}", "--target", name, "--force", "--no-measure", "--qat", "0", "--json")
    record = json.loads(edgekd("export", path, *options).stdout)
    made = path / record["files"][f"student_{precision}"]["path"]
    verdict = json.loads(edgekd("check", made, "--target", name, "--json").stdout)["verdict"]
    assert verdict == "yes" if precision == "int8" else verdict != "no"
    images = run.held_out().images()
    assert agreement(logits(run.student_onnx, images), logits(made, images)) >= 0.85  # a student of twenty steps
    other = "int8" if precision == "fp16" else "fp16"
    if target.quantization.int8_refused if other == "int8" else target.quantization.fp16_refused:
        refused = edgekd("export", path, f"--{other}", "--target", name, check=False)
        assert (refused.returncode, f"not for target {name}" in refused.stderr) == (2, True)


OWN_STUDENT = """import torch
def make(shape, classes, width):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""


def test_a_student_of_one_s_own_is_found_by_the_console_script(home: Path, tmp_path: Path, with_torch: Path) -> None:
    for name in ("teacher.onnx", "small.toml"):
        shutil.copy(home / name, tmp_path)
    (tmp_path / "mynet.py").write_text(OWN_STUDENT)
    edgekd = script(with_torch, tmp_path)
    distilled = edgekd("distill", "teacher.onnx", "--config", "small.toml", "--student", "mynet:make", "--out", "run")
    assert distilled.stdout.endswith("next: edgekd export run --int8 --trust-factory\n")
    refused = edgekd("export", "run", check=False)
    assert (refused.returncode, "--trust-factory" in refused.stderr) == (2, True)
    edgekd("export", "run", "--trust-factory")


def test_a_broken_budget_stops_with_exit_code_1(home: Path) -> None:
    edgekd = runner(sys.executable, home)
    broken = edgekd("gate", "--max-size", "100B", "--max-parameters", "1M", "--json", check=False)
    record = json.loads(broken.stdout)
    assert (broken.returncode, record["ok"]) == (1, False)
    assert [verdict["ok"] for verdict in record["verdicts"]] == [False, True]


CHILD = """
import sys
from pathlib import Path
from edgekd.distill import distill, resolve_settings
from edgekd import shipped
from edgekd.run_folder import RunFolder
settings = resolve_settings({{"steps": 120, "threads": 1, "recipe": {small}}})
run = RunFolder(Path(sys.argv[2]))
resume = run.checkpoint_file.is_file()
distill(Path(sys.argv[1]), settings, run, resume=resume, checkpoint_seconds=0.05)
"""


def test_a_run_killed_at_random_moments_ends_bitwise_as_an_undisturbed_one(tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "teacher.onnx")
    command = [sys.executable, "-c", CHILD.format(small=SMALL), str(tmp_path / "teacher.onnx")]
    calm, killed = RunFolder(tmp_path / "calm"), RunFolder(tmp_path / "killed")
    subprocess.run([*command, str(calm.path)], check=True)
    moments = [random.uniform(0, 1.5) for _ in range(3)]
    for moment in moments:
        child = subprocess.Popen([*command, str(killed.path)])
        wait_for_new(killed.checkpoint_file, child)
        time.sleep(moment)
        child.kill()
        child.wait()
        if killed.record()["state"] == "finished":
            break
    else:
        subprocess.run([*command, str(killed.path)], check=True)
    for name in ("student_weights", "generator_weights"):
        assert getattr(killed, name).read_bytes() == getattr(calm, name).read_bytes(), f"killed after {moments}"
    np.testing.assert_array_equal(killed.held_out().logits, calm.held_out().logits)
    steps = [[json.loads(line)["step"] for line in r.metrics_file.read_text().splitlines()] for r in (calm, killed)]
    assert all(found == sorted(set(found)) for found in steps)


def wait_for_new(file: Path, child: subprocess.Popen[bytes]) -> None:
    """Until the child has written a checkpoint of its own, or ended."""
    before = file.stat().st_mtime_ns if file.is_file() else 0
    while child.poll() is None and (not file.is_file() or file.stat().st_mtime_ns == before):
        time.sleep(0.02)
