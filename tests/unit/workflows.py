"""What a CI runner does with the steps of a workflow: fills in expressions, and hands scripts to bash."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def action_steps(file: Path, with_: Mapping[str, str]) -> list[dict[str, Any]]:
    """A composite action's own steps, its expressions filled in as the runner does."""
    action = read(file)
    given = {name: told.get("default", "") for name, told in action["inputs"].items()} | dict(with_)
    assert not [n for n, told in action["inputs"].items() if told.get("required") and n not in with_]
    assert not set(with_) - set(action["inputs"])
    text = json.dumps(action["runs"]["steps"])
    filled = re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda m: json.dumps(given[m[1]])[1:-1], text)
    assert "${{" not in filled
    return json.loads(filled)


def run(step: Mapping[str, Any], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """One `run:` step, in bash as the runner starts it."""
    environment = {**os.environ, **step.get("env", {}), **more}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
