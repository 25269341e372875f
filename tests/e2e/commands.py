"""Commands as a user runs them: in processes of their own, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

Edgekd = Callable[..., subprocess.CompletedProcess[str]]


def runner(python: Path | str, folder: Path) -> Edgekd:
    """`python -m edgekd ...` in a folder; a failure is the test's unless `check=False`."""
    return _runner([str(python), "-m", "edgekd"], folder)


def script(python: Path, folder: Path) -> Edgekd:
    """`edgekd ...`, the console script installed beside a Python, in a folder."""
    return _runner([str(python.with_name("edgekd"))], folder)


def _runner(program: list[str], folder: Path) -> Edgekd:
    def edgekd(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*program, *map(str, arguments)]
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "EDGEKD_DEBUG")}
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0 or not check, done.stderr
        return done

    return edgekd
