"""Sweeps: what is tried in which order and time, what is kept of it, which student is named, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calling import Call
from test_distill import SMALL, settings

from edgekd import sweep as sweeping
from edgekd.candidates import candidates, shares
from edgekd.devices import load_target
from edgekd.errors import BadRun, BadSetting, NotMeasurable, UnknownName
from edgekd.gate import Budget, check, read_budget
from edgekd.run_folder import RunFolder
from edgekd.sweep import planned, sweep
from edgekd.teachers.spec import read_spec

Make = Callable[..., Path]
QUICK = """schema = 1
title = "A short measurement"
[bench]
processes = 1
warmup_runs = 1
warmup_seconds = 0
runs = 10
seconds = 0.01
"""


def names(found: list) -> list[str]:
    return [one.run for one in found]


def test_the_largest_comes_first_whatever_the_order(teacher_file: Path) -> None:
    spec = read_spec(teacher_file)
    found = candidates(["lenet5-tiny", "cnn-small"], [0.25, 0.5], spec, 1000)
    assert names(found)[0] == "cnn-small-0.5"
    sizes = [one.parameters for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4
    assert names(candidates(["a:b", "auto"], [None], None, None)) == ["a-b", "auto"]
    assert names(candidates(["auto"], [0.25, 1.0], None, None)) == ["auto-1", "auto-0.25"]


def test_what_is_no_student_or_named_twice_is_refused(teacher_file: Path) -> None:
    spec = read_spec(teacher_file)
    with pytest.raises(UnknownName, match="did you mean cnn-small"):
        candidates(["lenet5", "cnn-smal"], [None], spec, 1000)
    with pytest.raises(UnknownName):
        candidates(["cnn-smal"], [None], None, None)
    with pytest.raises(BadSetting, match=r"cnn-small-0\.5 is named twice"):
        candidates(["cnn-small"], [0.5, 0.5], spec, 1000)
    with pytest.raises(BadSetting, match="for every pixel"):
        candidates(["unet"], [None], spec, 1000)


def test_the_first_gets_two_shares_of_the_time() -> None:
    assert shares(20, 3) == [10, 5, 5]
    assert shares(4, 1) == [4]
    assert sum(shares(7.5, 6)) == pytest.approx(7.5)
    with pytest.raises(BadSetting, match=r"leaves 5\.0 s for each of 5 students.*0\.6 and more"):
        shares(0.5, 5)


def plan_of(teacher: Path, students: list[str], widths: list[float] | None = None, **changes: object) -> Any:
    return planned([teacher], settings(**changes), students, widths, load_target("cpu"))


@pytest.fixture
def quick(tmp_path: Path) -> str:
    (tmp_path / "quick.toml").write_text(QUICK)
    return str(tmp_path / "quick.toml")


@pytest.mark.slow
def test_students_share_images_and_leave_ordinary_runs(teacher_file: Path, tmp_path: Path, quick: str) -> None:
    target, folder, heard = load_target(quick), tmp_path / "sweep", list[str]()
    plan = planned([teacher_file], settings(steps=6), ["lenet5-tiny", "cnn-small"], [0.25], target)
    record = sweep(plan, folder, target, watchers=sweeping.Watchers(tell=heard.append))
    runs = [RunFolder(folder / one.run) for one in plan.students]
    assert heard[0] == "cnn-small-0.25: student 1 of 2"
    assert [run.record().get("bank") for run in runs] == [None, "../cnn-small-0.25"]
    assert len({run.held_out_file.read_bytes() for run in runs}) == 1
    assert {row["run"] for row in record["rows"]} == set(names(list(plan.students)))
    assert json.loads((folder / "sweep.json").read_text()) == record
    assert all(row["p50_ms"] > 0 and row["broken"] is None for row in record["rows"])
    assert any(row["front"] for row in record["rows"])
    smallest = min(record["rows"], key=lambda row: row["bytes"])
    (held,) = check(folder / smallest["run"], read_budget(None, {"max_size": "1 MB"}), smallest["model"])
    assert held.actual == smallest["bytes"]
    page = (folder / "sweep.html").read_text()
    assert all(f">{one.run}<" in page for one in plan.students)
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_and_does_nothing_twice(
    teacher_file: Path, tmp_path: Path, quick: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, folder = load_target(quick), tmp_path / "sweep"
    plan = planned([teacher_file], settings(steps=4), ["lenet5-tiny", "cnn-small"], [0.25], target)
    real, began = sweeping._exported, list[str]()

    def failing(run: RunFolder, device: Any) -> None:
        began.append(run.path.name)
        if len(began) == 2:
            raise KeyboardInterrupt
        real(run, device)

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "_exported", failing)
        with pytest.raises(KeyboardInterrupt):
            sweep(plan, folder, target)
    first = RunFolder(folder / "cnn-small-0.25")
    before = first.student_weights.stat().st_mtime_ns, first.student_onnx.stat().st_mtime_ns
    with pytest.raises(BadRun, match="it exists already"):
        sweep(plan, folder, target)
    assert json.loads((folder / "sweep.json").read_text())["finished"] is None
    stored = sweeping.stored_plan(folder)
    assert stored == plan
    record = sweep(stored, folder, target, resume=True)
    assert record["finished"]
    assert before == (first.student_weights.stat().st_mtime_ns, first.student_onnx.stat().st_mtime_ns)
    other = plan_of(teacher_file, ["cnn-small"], steps=4)
    with pytest.raises(BadRun, match="it was started with other students"):
        sweep(other, folder, load_target("cpu"), resume=True)
    with pytest.raises(BadRun, match="no sweep to go on with"):
        sweep(plan, tmp_path / "none", target, resume=True)
    assert not (tmp_path / "none").exists()


ROWS = [
    {"run": "a", "model": "student", "bytes": 100, "agreement": 0.9},
    {"run": "a", "model": "student.int8", "bytes": 40, "agreement": 0.85},
    {"run": "b", "model": "student", "bytes": 60, "agreement": 0.8},
    {"run": "c", "model": "student", "bytes": 30, "agreement": 0.6},
]


def test_the_front_leaves_out_what_is_larger_and_worse(tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    sweeping._judge(rows, tmp_path, None)
    assert [row["front"] for row in rows] == [True, True, False, True]
    assert sweeping._cheapest(rows) is None


@pytest.mark.parametrize(
    ("broken", "wanted"), [([[], [], [], ["min_agreement"]], "a"), ([["x"], ["x"], [], ["x"]], "b")]
)
def test_the_cheapest_is_the_smallest_that_breaks_nothing(broken: list, wanted: str) -> None:
    rows = [row | {"broken": one} for row, one in zip(ROWS, broken, strict=True)]
    best = sweeping._cheapest(rows)
    assert best
    assert best["run"] == wanted
    assert sweeping._cheapest([row | {"broken": ["max_size"]} for row in ROWS]) is None


def test_a_budget_that_a_sweep_cannot_decide_is_refused_before(teacher_file: Path, tmp_path: Path) -> None:
    plan, folder = plan_of(teacher_file, ["cnn-small"]), tmp_path / "sweep"

    def held(target: str = "cpu", **limits: str) -> None:
        sweep(plan, folder, load_target(target), budget=budget(**limits))

    def budget(**limits: str) -> Budget:
        return read_budget(None, limits)

    with pytest.raises(BadSetting, match="need a baseline"):
        held(max_size_increase="5 %")
    with pytest.raises(BadSetting, match="need labelled images"):
        held(min_accuracy="0.9")
    with pytest.raises(NotMeasurable, match="max_p50 cannot be held here"):
        held("coreml", max_p50="1 ms")
    assert not folder.exists()


@pytest.mark.slow
def test_the_command_names_the_student_and_answers_json(
    call: Call, teacher_file: Path, tmp_path: Path, quick: str
) -> None:
    recipe = [f"--set={key}={value}" for key, value in SMALL.items()]
    told = ["sweep", teacher_file, "--students", "lenet5-tiny,cnn-small", "--widths", "0.25", "--steps", 4, *recipe]
    done = call(*told, "--target", quick, "--out", "s", "--max-size", "1MB", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["cheapest"]["run"] == "lenet5-tiny-0.25"
    again = call("sweep", teacher_file, "--out", "s", "--resume", "--target", quick, "--max-size", "1 kB")
    assert again.code == 1
    assert "no student meets the budget" in again.out
    assert "breaks max_size" in again.out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--students", "cnn-smal"], "unknown student 'cnn-smal'"),
        (["--students", "cnn-small,"], "holds an empty name"),
        (["--widths", "0,1"], "width: Input should be greater than 0"),
        (["--widths", "17"], "less than or equal to 16"),
        (["--widths", "wide"], "is not a list of numbers"),
        (["--widths", "0.25,0.5,1", "--minutes", "0.2"], "leaves 3.0 s for each of 3 students"),
        (["--resume"], "--out FOLDER"),
        (["--max-size", "big"], "max_size"),
        (["--minutes", "1", "--steps", "2"], "either minutes or steps"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(
    call: Call, teacher_file: Path, tmp_path: Path, flags: list[str], told: str
) -> None:
    done = call("sweep", teacher_file, *flags)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
