"""Trials in a JSON file, one after another, so that a long run can be stopped and goes on where it was."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from edgekd.bench.child import fingerprint  # noqa: E402
from edgekd.run_folder import write_json  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


def trials(name: str, count: int, settings: dict[str, Any], one: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """Make trials until there are `count`, keeping the file up to date; those of other settings are dropped."""
    path = RESULTS / f"{name}.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    if record.get("settings") != settings:
        record = {"settings": settings, "environment": fingerprint(), "trials": []}
    while len(record["trials"]) < count:
        number = len(record["trials"])
        record["trials"].append(one(number) | {"load_average": round(os.getloadavg()[0], 2)})
        write_json(path, record)
        print(f"{name}: {number + 1} of {count}", file=sys.stderr, flush=True)
    return record


def conclude(name: str, record: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write what the trials amount to beside them, and show it."""
    write_json(RESULTS / f"{name}.json", record | {"summary": summary})
    print(json.dumps(summary, indent=2))
