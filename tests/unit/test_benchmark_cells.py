"""Long benchmarks go on where they were: what is known is not measured again, what was told otherwise is dropped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@dataclass
class Counted:
    """A table whose cells only count that they were measured."""

    path: Path
    schema: str = "test/1"
    measured: list[tuple[str, int]] = field(default_factory=list)

    def measure(self, cell: Any, folder: Path) -> dict[str, Any]:
        assert folder.is_dir()
        assert not any(folder.iterdir())
        self.measured.append((cell.place[-1], cell.seed))
        return {"number": len(self.measured)}

    def describe(self, cell: Any, result: dict[str, Any]) -> None:
        result["rows"]["title"] = "counted"


@pytest.fixture
def table(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "result.json")


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "distill"))
    import cells

    return cells


def test_a_cell_is_measured_once(table: Counted, cells: Any) -> None:
    wanted = [cells.Cell(("rows", name), seed, {"rate": 1}, 0.0) for seed in (1, 0) for name in ("a", "b")]
    cells.fill(table, wanted[:3], at_once=1)
    cells.fill(table, wanted, at_once=1)
    assert table.measured == [("a", 1), ("b", 1), ("a", 0), ("b", 0)]
    result = json.loads(table.path.read_text())
    assert list(result["rows"]["a"]["seeds"]) == ["0", "1"]
    assert result["rows"]["title"] == "counted"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
@pytest.mark.parametrize("at_once", [1, 2])
def test_runs_share_the_cores_evenly(cells: Any, at_once: int) -> None:
    there, begun = os.sched_getaffinity(0), threading.Barrier(at_once)
    if at_once > len(there):
        pytest.skip("there are too few cores")
    seen: list[set[int]] = []

    def job() -> None:
        begun.wait(timeout=60)  # or one of them might take all the jobs
        seen.append(os.sched_getaffinity(0))

    cells.abreast([job] * at_once, at_once)
    assert set().union(*seen) == there
    assert sum(map(len, seen)) == len(there)


def test_what_was_measured_otherwise_is_dropped(table: Counted, cells: Any) -> None:
    cells.fill(table, [cells.Cell(("rows", name), 0, {"rate": 1}, 0.0) for name in ("a", "b")], at_once=1)
    cells.fill(table, [cells.Cell(("rows", "a"), 1, {"rate": 2}, 0.0)], at_once=1)
    result = json.loads(table.path.read_text())
    assert result["rows"]["a"] == {"told": {"rate": 2}, "seeds": {"1": {"number": 3}}}
    assert result["rows"]["b"]["seeds"] == {"0": {"number": 2}}


def test_nothing_begins_that_would_end_too_late(table: Counted, cells: Any) -> None:
    cells.fill(table, [cells.Cell(("rows", "a"), 0, {}, 5.0)], at_once=1, minutes=4.0)
    assert table.measured == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ablation", "black_box", "cdfkd", "run", "teacher_class"])
def test_each_of_them_tells_what_it_may_be_told(name: str) -> None:
    command = [sys.executable, BENCHMARKS / "distill" / f"{name}.py", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    assert "--seeds" in told.stdout
