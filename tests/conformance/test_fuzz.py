"""Thousands of damaged and hostile files: each becomes a model or one line of refusal, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("fuzzing.py")
CASES, PARTS = 5200, 4


def fuzzed(first: int, count: int, folder: Path) -> list[tuple[str, str]]:
    """What was done and what came of it, for each case; fails where the process did not survive them all."""
    command = [sys.executable, str(CHILD), str(first), str(count), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    begun, ended = ({line[0]: line[1] for line in lines if len(line) == length} for length in (2, 3))
    lost = [f"{number} ({begun[number]})" for number in begun if number not in ended]
    assert (done.returncode, lost) == (0, []), f"case {lost} ended the process: {done.stderr[-3000:]}"
    return [(begun[number], ended[number]) for number in begun]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_file_becomes_a_model_or_one_line(part: int, tmp_path: Path) -> None:
    count = CASES // PARTS
    results = fuzzed(part * count, count, tmp_path)
    bad = [f"{mutation}: {told}" for mutation, told in results if told.startswith("!")]
    assert not bad, "\n".join(bad)
    models = Counter(told == "model" for _, told in results)
    assert len(results) == count
    assert models[True] > count // 20
    assert models[False] > count // 2
