"""The README's table of how far times can be trusted says what was measured, and no more."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "readme.py"


@pytest.fixture
def readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with results of its own."""
    spec = importlib.util.spec_from_file_location("readme_of_benchmarks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    return module


def keep(readme: ModuleType, name: str, summary: dict[str, Any] | None, load: float = 0.5) -> None:
    record: dict[str, Any] = {"environment": {"cpu": "a CPU", "cores": 2}, "trials": [{"load_average": load}]}
    if summary is not None:
        record["summary"] = summary
    (readme.ROOT / "benchmarks" / "results" / f"{name}.json").write_text(json.dumps(record))


def rows(text: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {line[0]: [cell.strip(" |") for cell in line[1:]] for line in lines[2:]}


def test_nothing_measured_claims_nothing(readme: ModuleType) -> None:
    keep(readme, "bench_comparisons", None)  # it is still running
    text = readme.bench()
    assert {cells[1] for cells in rows(text).values()} == {"not yet measured"}
    assert text.endswith("0 of 7 goals reached; 7 not yet measured.")


def test_goals_are_reached_or_missed_by_the_numbers(readme: ModuleType) -> None:
    keep(readme, "bench_spread", {"p50": {"max_over_min": 1.051}}, load=2.5)
    verdicts = {"same": 0.005, "10 %": 0.95, "5 %": 0.795, "elsewhen": 0.02}
    shares = {name: {"regressed_share": share, "trials": 200} for name, share in verdicts.items()}
    keep(readme, "bench_comparisons", {"trials": 200, **shares})
    keep(readme, "bench_bare_loop", {"edgekd_over_bare": 0.979, "overhead_us": 0.31})
    text = readme.bench()
    found = list(rows(text).values())
    assert [cells[1:] for cells in found] == [
        ["1.051", "**missed**"],
        ["0.5 %", "reached"],
        ["95 %", "reached"],
        ["79.5 %", "**missed**"],
        ["0.9790 ×", "**missed**"],
        ["0.31 µs", "reached"],
        ["not yet measured"],
    ]
    told = text.splitlines()[-1]
    assert told.startswith("3 of 7 goals reached; missed: p50 of one model")
    assert "; 1 not yet measured. On a CPU, 2 cores, at load averages from 0.5 to 2.5." in told
    assert told.endswith(
        "made 200 times. Against a baseline that was measured minutes before instead of in turn, "
        "2.0 % of 200 A/A comparisons said *regressed*."
    )


def test_the_scripts_write_what_the_table_reads(readme: ModuleType) -> None:
    """Every figure is one that its script puts into its summary."""
    for goal in readme.GOALS:
        text = (SCRIPT.parent / "bench" / f"{goal.file.removeprefix('bench_')}.py").read_text()
        assert f'conclude("{goal.file}"' in text.replace("(\n        ", "(")
        assert all(f'"{key}"' in text for key in goal.keys)


def test_what_had_more_time_or_another_teacher_is_marked(readme: ModuleType) -> None:
    recipe = readme.find_method("edgekd").recipe.model_dump(exclude_defaults=True)
    told = {"teacher": "a", "cpu_minutes": 5, "recipe": recipe}
    others = {"dafl": told, "nayer-style": told | {"cpu_minutes": 10}, "real images": told | {"teacher": "b"}}
    runs = {"seeds": {"0": {"accuracy": 0.9, "teacher_accuracy": 0.95}}}
    methods = {name: runs | {"told": one} for name, one in (others | {"edgekd": told}).items()}
    row = {"title": "a row", "reach": 0.9, "published": "–", "methods": methods}
    (readme.ROOT / "benchmarks/results/distill.json").write_text(json.dumps({"rows": {"a": row}, "host": {"cores": 2}}))
    text = readme.distill()
    share = "90.00 % (1)"
    assert rows(text)["a row"] == ["5", "95.00 %", share, share, f"{share}§", f"{share}§", "90"]
    assert " §: by another training of the same teacher" in text
