"""Measure in a fresh process on this machine: start the child, wait for its line, explain it when there is none."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from edgekd.bench.inputs import InputSpec
from edgekd.devices import Protocol, Runtime
from edgekd.errors import CannotLoad, NotMeasurable
from edgekd.timing import Samples

CHILD_FILE = Path(__file__).with_name("child.py")
CHILD = (sys.executable, "-P", str(CHILD_FILE))
"""By path and not by `-m`: importing the package would bring pydantic and onnx into the measured memory."""

CAP_SECONDS = 60.0
"""A slow model is warmed up and sampled no longer than this, however many runs were asked for."""

LOAD_SECONDS = 120.0
"""More than this for starting Python and loading a model is taken for hanging."""

WAITING = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
"""Threads that wait without burning a core, as on a phone (ONNX Runtime docs, "Thread management")."""

CPU = "CPUExecutionProvider"

Task = Literal["measure", "placement", "profile", "answer", "repeat", "instructions", "apart"]
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """What one child is to do with one model."""

    model: Path
    inputs: Sequence[InputSpec]
    runtime: Runtime
    protocol: Protocol
    seed: int = 0
    task: Task = "measure"
    students: Sequence[Path] = ()
    """Of the task "apart": files that take the inputs, and whose answers the model takes side by side."""

    def cap_seconds(self) -> float:
        """The longest that warm-up, and sampling, may each take."""
        return max(CAP_SECONDS, self.protocol.seconds, self.protocol.warmup_seconds)

    def deadline_seconds(self) -> int:
        """When the child ends itself, should nobody be left to end it."""
        return math.ceil(LOAD_SECONDS + 2 * self.cap_seconds())

    def as_json(self, model: str | None = None) -> str:
        """The child's argument; `model` is where the file lies over there, if not where it lies here."""
        said: dict[str, Any] = self.runtime.model_dump() | self.protocol.model_dump(exclude={"processes"})
        said |= {"session_config": WAITING | self.runtime.session_config, "task": self.task, "seed": self.seed}
        said |= {"students": list(map(str, self.students))}
        said |= {"model": model or str(self.model), "inputs": [dataclasses.asdict(spec) for spec in self.inputs]}
        said["hint"] = f"install it: pip install {self.runtime.wheel}" if self.runtime.wheel else "use another target"
        return json.dumps(said | {"cap_seconds": self.cap_seconds(), "deadline_seconds": self.deadline_seconds()})


Runner = Callable[[Request], Answer]
"""Where a request is carried out, and what the child there says. `local.ask` is one; another machine is another.

Raises `CannotLoad` when the model cannot be loaded or run there, `NotMeasurable` when nothing can."""


@dataclass(frozen=True)
class Measurement:
    """What one child found. Times in ns, memory in bytes, or None where that is not told."""

    load_ns: int
    first_ns: int
    warmup_runs: int
    samples_ns: Samples
    baseline_bytes: int | None
    peak_bytes: int | None
    stable: bool = True
    environment: dict[str, Any] = field(default_factory=dict)


def measure(request: Request, runner: Runner | None = None) -> Measurement:
    """One process's load time, first run, samples and memory.

    Raises:
        CannotLoad: see `ask`; or what came back is no measurement.
    """
    answer = dict((runner or ask)(request))
    try:
        return Measurement(**answer | {"samples_ns": np.array(answer["samples_ns"], np.int64)})
    except (ValueError, KeyError, TypeError) as error:
        raise CannotLoad("the measuring process failed: its answer is no measurement", where=request.model) from error


def ask(request: Request, command: Sequence[str] = CHILD, timeout: float | None = None) -> Answer:
    """Run one child to its end. It is killed and reaped on a timeout and on Ctrl-C: none is left behind.

    Args:
        request: what to do.
        command: the child, to which the request is appended as JSON.
        timeout: seconds until it is taken for hanging; by default what the protocol can need.

    Raises:
        CannotLoad: the child could not load or run the model, crashed, or hung.
        NotMeasurable: the machine lacks what the target asks for.
    """
    timeout = timeout if timeout is not None else float(request.deadline_seconds())
    return understood(run([*command, request.as_json()], request.model, timeout), request.model)


def run(
    command: Sequence[str], model: Path, timeout: float, stdin: bytes | None = None, *, hold: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """A command in a session of its own, so that with it everything that it started can be ended.

    Args:
        command: program and arguments.
        model: what an error is about.
        timeout: in seconds.
        stdin: what it is told.
        hold: keep its standard input open until it ends, for a child that ends when nobody is there any more; then
            `stdin` is one line.

    Raises:
        CannotLoad: it cannot be started, or does not end in time; then it and its children are killed and reaped.
    """
    with ExitStack() as open_ends:
        source: int | IO[bytes] = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        if stdin is not None and hold:
            reader, writer = os.pipe()
            source = open_ends.enter_context(os.fdopen(reader, "rb"))
            open_ends.enter_context(os.fdopen(writer, "wb", buffering=0)).write(stdin)
            stdin = None
        return _ran(command, model, timeout, source, stdin)


def _ran(
    command: Sequence[str], model: Path, timeout: float, source: int | IO[bytes], stdin: bytes | None
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy's idle threads would count as memory
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is our own
            command, stdin=source, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
    except OSError as error:
        raise CannotLoad(f"no process can be started: {error.strerror}", where=model) from error
    with process:
        try:
            told, complained = process.communicate(stdin, timeout)
        except BaseException as error:
            end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                what = f"no answer within {timeout:g} s, the process was killed"
                raise CannotLoad(what, where=model) from error
            raise
    return subprocess.CompletedProcess(command, process.returncode, told, complained)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that `start_new_session` began, with its own children, and reap it."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def understood(done: subprocess.CompletedProcess[bytes], model: Path) -> Answer:
    """The child's last line of output; a native library may have printed others before it.

    Raises:
        CannotLoad, NotMeasurable: the child says so, or says nothing of use.
    """
    lines = done.stdout.decode(errors="replace").split("\n")
    try:
        answer = json.loads(next((line for line in reversed(lines) if line.strip()), ""))
    except ValueError as error:
        raise CannotLoad(f"the measuring process {_ending(done)}", where=model) from error
    if not isinstance(answer, dict):
        raise CannotLoad(f"the measuring process {_ending(done)}", where=model)
    if "not_here" in answer:
        raise NotMeasurable(answer["not_here"])
    if "error" in answer:
        raise CannotLoad(f"ONNX Runtime cannot load or run it: {answer['error']}", where=model)
    return answer


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"was ended by {signal.Signals(-done.returncode).name}"
    complaint = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return f"failed with status {done.returncode}: {complaint[-1] if complaint else 'it said nothing'}"
