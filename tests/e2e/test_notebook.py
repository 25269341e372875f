"""The notebook is one, holds no output, and runs from its first cell to its last."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK: dict[str, Any] = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))
BRIEFLY = 'teacher = "teacher.onnx"\nhow = {"steps": 20, "recipe": {"prior": 256, "bank": 512}, "threads": 1}\n'
"""In place of the cell of parameters: the cells are under test, not the minutes they train."""


def code() -> list[tuple[str, bool]]:
    """The code of each cell, and whether it holds parameters."""
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), "parameters" in cell["metadata"].get("tags", [])) for cell in cells]


def test_it_is_a_notebook_of_plain_python_without_output() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(ids) == len(set(ids))
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            ast.parse("".join(cell["source"]))
    assert [parameters for _, parameters in code()].count(True) == 1


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path) -> None:
    for name in ("teacher.onnx", "evaluation.npz", "classes.txt"):
        shutil.copy(EXAMPLES / name, tmp_path)
    cells = [BRIEFLY if parameters else text for text, parameters in code()]
    told = "\n".join(f"{text}\nprint('cell {number}')" for number, text in enumerate(cells))
    done = subprocess.run([sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"cell {len(cells) - 1}"
    assert "finished cnn-small" in done.stdout
    assert (tmp_path / "runs/tour/report.html").is_file()
