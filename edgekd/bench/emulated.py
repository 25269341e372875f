"""Measure under an emulator of another processor: placement and answers as there, and instructions instead of time.

How long emulation takes says nothing about the device. How many instructions the device would execute is exact but for
the start of Python and ONNX Runtime, which varies; it is a proxy for latency and never shown as milliseconds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from edgekd.bench import local
from edgekd.bench.local import CHILD_FILE, Answer, Request, Runner
from edgekd.devices import Place
from edgekd.errors import NotMeasurable
from edgekd.run_folder import scratch

FEW, MANY, REPEATS = 10, (210, 2_010, 20_010), 3
"""Inferences of a short and of a long process, and how often each is run: what both share falls out. The long one gets
longer until what it does more is plain."""
PLAIN = 0.1
"""Of an inference's instructions, how much may be uncertain."""

_SOURCE = Path(__file__).with_name("count.c")
_COUNTED = re.compile(r"^instructions (\d+)$", re.MULTILINE)


@contextmanager
def emulator(place: Place) -> Iterator[Runner]:
    """The child under qemu's user emulation, with the Python of a system for that architecture in `place.folder`.

    Raises:
        NotMeasurable: there is no such program or no such system.
    """
    program = place.host or "qemu-aarch64"
    if shutil.which(program) is None:
        raise NotMeasurable(f"{program} is not installed; install it: apt install qemu-user")
    root, python = Path(place.folder), place.python.lstrip("/")
    if not place.folder or not (root / python).exists():
        where = place.folder or "runner.folder, which is not set"
        raise NotMeasurable(f"no {python} in {where}; benchmarks/bench/arm64_root.sh of edgekd's sources makes one")
    yield partial(_asked, [program, *place.options, "-L", str(root)], [str(root / python), str(CHILD_FILE)], place)


def _asked(emulating: Sequence[str], child: Sequence[str], place: Place, request: Request) -> Answer:
    if request.task == "instructions":
        return _instructions(emulating, child, place, request)
    return local.ask(request, [*emulating, *child], place.timeout)


def _instructions(emulating: Sequence[str], child: Sequence[str], place: Place, request: Request) -> Answer:
    """Instructions of one inference: a long process less a short one, over the inferences that it makes more.

    Returns:
        instructions, and `uncertain`: by how much of it equal processes differ.

    Raises:
        NotMeasurable: the emulator cannot count, or so little is lost in what starting Python takes now and then.
    """
    with scratch() as folder:
        plugin, log = _compiled(folder), folder / "counted"
        counting = [*emulating, "-plugin", str(plugin), "-d", "plugin", "-D", str(log), *child]

        def counted(runs: int) -> list[int]:
            told = request.protocol.model_copy(update={"runs": runs})
            asked = replace(request, task="repeat", protocol=told)
            return [_counted(asked, counting, log, place.timeout) for _ in range(REPEATS)]

        short = counted(FEW)
        for many in MANY:
            long, more = counted(many), many - FEW
            each = (median(long) - median(short)) / more
            apart = max(max(group) - min(group) for group in (short, long)) / more
            if apart <= PLAIN * each:
                return {"instructions": round(each), "uncertain": apart / each if each else 0.0}
    raise NotMeasurable("an inference takes too few instructions to be told from those that start Python")


def _counted(request: Request, counting: Sequence[str], log: Path, timeout: float | None) -> int:
    local.ask(request, counting, timeout)
    found = _COUNTED.search(log.read_text(encoding="utf-8") if log.is_file() else "")
    if found is None:
        raise NotMeasurable(f"{counting[0]} takes no plug-ins that count; a build with them is needed")
    return int(found[1])


def _compiled(folder: Path) -> Path:
    """The plug-in that counts.

    Raises:
        NotMeasurable: there is no C compiler.
    """
    plugin, compiler = folder / "count.so", shutil.which("cc")
    if compiler is None:
        raise NotMeasurable("no C compiler here, to count instructions with; install it: apt install gcc")
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(plugin), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own source
    if done.returncode:
        raise NotMeasurable(f"count.c cannot be compiled: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return plugin
