"""Measure in a fresh process on this machine: start the child, wait for its line, explain it when there is none."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.bench.inputs import InputSpec
from edgekd.bench.statistics import Samples
from edgekd.config import Protocol, Runtime
from edgekd.errors import CannotLoad

CHILD = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))
"""By path and not by `-m`: importing the package would bring pydantic and onnx into the measured memory."""

CAP_SECONDS = 60.0
"""A slow model is warmed up and sampled no longer than this, however many runs were asked for."""

LOAD_SECONDS = 120.0
"""More than this for starting Python and loading a model is taken for hanging."""


@dataclass(frozen=True)
class Request:
    """What one child is to measure."""

    model: Path
    inputs: Sequence[InputSpec]
    runtime: Runtime
    protocol: Protocol
    seed: int = 0

    def cap_seconds(self) -> float:
        """The longest that warm-up, and sampling, may each take."""
        return max(CAP_SECONDS, self.protocol.seconds, self.protocol.warmup_seconds)

    def deadline_seconds(self) -> int:
        """When the child ends itself, should nobody be left to end it."""
        return math.ceil(LOAD_SECONDS + 2 * self.cap_seconds())

    def as_json(self) -> str:
        """The child's argument."""
        said: dict[str, Any] = self.runtime.model_dump() | self.protocol.model_dump(exclude={"processes"})
        inputs = [dataclasses.asdict(spec) for spec in self.inputs]
        said |= {"model": str(self.model), "inputs": inputs, "seed": self.seed}
        return json.dumps(said | {"cap_seconds": self.cap_seconds(), "deadline_seconds": self.deadline_seconds()})


@dataclass(frozen=True)
class Measurement:
    """What one child found. Times in ns, memory in bytes."""

    load_ns: int
    first_ns: int
    warmup_runs: int
    samples_ns: Samples
    baseline_bytes: int
    peak_bytes: int


def measure(request: Request, command: Sequence[str] = CHILD, timeout: float | None = None) -> Measurement:
    """Run one child to its end. It is killed and reaped on a timeout and on Ctrl-C: none is left behind.

    Args:
        request: what to measure.
        command: the child, to which the request is appended as JSON.
        timeout: seconds until it is taken for hanging; by default what the protocol can need.

    Raises:
        CannotLoad: the child could not load or run the model, crashed, or hung.
    """
    timeout = timeout if timeout is not None else float(request.deadline_seconds())
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy's idle threads would count as memory
    try:
        done = subprocess.run(  # noqa: S603 - the command is our own
            [*command, request.as_json()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotLoad(f"no answer within {timeout:g} s, the process was killed", where=request.model) from error
    except OSError as error:
        raise CannotLoad(f"no process can be started: {error.strerror}", where=request.model) from error
    return _understood(done, request.model)


def _understood(done: subprocess.CompletedProcess[bytes], model: Path) -> Measurement:
    """The child's last line of output; a native library may have printed others before it."""
    lines = done.stdout.decode(errors="replace").split("\n")
    try:
        answer = json.loads(next((line for line in reversed(lines) if line.strip()), ""))
        if "error" in answer:
            raise CannotLoad(f"ONNX Runtime cannot load or run it: {answer['error']}", where=model)
        return Measurement(**answer | {"samples_ns": np.array(answer["samples_ns"], np.int64)})
    except (ValueError, KeyError, TypeError) as error:
        raise CannotLoad(f"the measuring process {_ending(done)}", where=model) from error


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"was ended by {signal.Signals(-done.returncode).name}"
    complaint = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return f"failed with status {done.returncode}: {complaint[-1] if complaint else 'it said nothing'}"
