"""The README is true: its commands run as written, its numbers are the benchmarks', its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import runner

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- run -->\n```sh\n(.*?)```", README, flags=re.DOTALL)
BRIEFLY = ("--steps", "3", "--set", "prior=256")
"""What is added to `distill` here: the commands are under test, not the minutes they train."""


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines()]


def test_there_are_commands_to_run():
    assert [command[1] for command in commands()][:4] == ["distill", "export", "bench", "gate"]


@pytest.mark.slow
def test_every_command_runs_as_written_in_an_empty_folder(tmp_path):
    for name in ("teacher.onnx", "evaluation.npz", "budget.toml"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    edgekd = runner(sys.executable, tmp_path)
    for program, *arguments in commands():
        assert program == "edgekd"
        extra = BRIEFLY if arguments[0] == "distill" else ()
        done = edgekd(*arguments, *extra, check=False)
        # A student of three steps breaks the demo's budget, as it should.
        allowed = (0, 1) if "budget.toml" in arguments else (0,)
        assert done.returncode in allowed, f"{arguments}: {done.stderr}"
        assert "Traceback" not in done.stderr


def shown() -> list[tuple[str, str]]:
    """Commands and what is shown of their output, from the blocks that hold both."""
    blocks = re.findall(r"<!-- shown -->\n```console\n(.*?)```", README, flags=re.DOTALL)
    parts = re.split(r"^\$ (.*)\n", "".join(blocks), flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def test_what_is_shown_is_what_commands_print(tmp_path):
    shutil.copy(ROOT / "examples" / "teacher.onnx", tmp_path)
    edgekd, code, codes = runner(sys.executable, tmp_path), 0, []
    for command, output in shown():
        if command == "echo $?":
            codes.append(code)
            assert output == f"{code}\n"
            continue
        program, *arguments = shlex.split(command)
        assert program == "edgekd"
        done = edgekd(*arguments, check=False)
        code = done.returncode
        assert done.stdout == output
    assert codes == [1, 0]  # a gate that fails, and one that passes


def test_numbers_are_those_of_the_benchmarks():
    check = [sys.executable, str(ROOT / "benchmarks" / "readme.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0, "run: python benchmarks/readme.py"


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
