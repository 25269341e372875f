"""The folder a distillation writes, and every later stage reads and adds to.

    run.json               what was run: teacher, settings, versions, seed, host, state   (schema edgekd.run/1)
    metrics.jsonl          one line of losses per logging interval
    checkpoint.pt          last state, to resume from
    student.safetensors    weights            student.onnx   student.int8.onnx
    generator.safetensors  weights            generator.onnx
    samples/               held_out.npz (uint8 images, teacher logits), grids of generated images as PNG
    export.json  bench.json  evaluation.json

It needs neither torch nor ONNX.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BadRun, EdgekdError

SCHEMA = "edgekd.run/1"
RUNS = Path("runs")


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all: a neighbouring temporary file takes its place only when complete.

    Raises:
        EdgekdError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise EdgekdError(
            f"cannot be written: {error.strerror or error}", where=path, hint="free some space"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for temporary files, gone afterwards.

    Raises:
        EdgekdError: it cannot be made or written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
            yield Path(folder)
    except OSError as error:
        what = f"temporary files cannot be written: {error.strerror or error}"
        raise EdgekdError(what, where=tempfile.gettempdir(), hint="free some space, or set TMPDIR") from error


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record as indented JSON, atomically."""
    with atomic(path) as file:
        file.write((json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        BadRun: unreadable, or not a JSON object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRun(f"not readable as JSON: {error}", where=path) from error
    if not isinstance(record, dict):
        raise BadRun("not a JSON object", where=path)
    return record


@dataclass(frozen=True)
class HeldOut:
    """Generated images set aside from training, with the teacher's answers.

    Attributes:
        codes: uint8 `[N, C, H, W]`; 0 is the low end of the input range, 255 the high end.
        logits: float32 `[N, K]`, the teacher's.
        low, high: the input range.
    """

    codes: NDArray[np.uint8]
    logits: NDArray[np.float32]
    low: float
    high: float

    def images(self) -> NDArray[np.float32]:
        """float32 `[N, C, H, W]` in the teacher's input range."""
        return (self.low + self.codes.astype(np.float32) * np.float32((self.high - self.low) / 255)).astype(np.float32)


class RunFolder:
    """One run on disk. Paths only; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.record_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.student_weights = self.path / "student.safetensors"
        self.generator_weights = self.path / "generator.safetensors"
        self.student_onnx = self.path / "student.onnx"
        self.student_int8_onnx = self.path / "student.int8.onnx"
        self.generator_onnx = self.path / "generator.onnx"
        self.samples = self.path / "samples"
        self.held_out_file = self.samples / "held_out.npz"
        self.export_file = self.path / "export.json"
        self.bench_file = self.path / "bench.json"
        self.evaluation_file = self.path / "evaluation.json"

    def record(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            BadRun: there is none, or it is of another schema.
        """
        if not self.record_file.is_file():
            hint = "start one with: edgekd distill teacher.onnx"
            raise BadRun("not a run folder (no run.json)", where=self.path, hint=hint)
        record = read_json(self.record_file)
        if record.get("schema") != SCHEMA:
            raise BadRun(f"schema {record.get('schema')!r} is not {SCHEMA}", where=self.record_file)
        return record

    def held_out(self) -> HeldOut:
        """The held-out generated images with the teacher's answers.

        Raises:
            BadRun: missing or damaged.
        """
        try:
            with self.held_out_file.open("rb") as file:  # numpy leaves a damaged archive open when it opens it itself
                data = np.load(file, allow_pickle=False)
                low, high = map(float, data["range"])
                return HeldOut(data["images"], data["logits"], low, high)
        except (OSError, ValueError, LookupError, EOFError, BadZipFile, zlib.error) as error:
            raise BadRun(f"no usable held-out samples: {error}", where=self.held_out_file) from error

    def write_held_out(self, samples: HeldOut) -> None:
        """Store the held-out images, atomically."""
        with atomic(self.held_out_file) as file:
            bounds = np.array([samples.low, samples.high])
            np.savez_compressed(file, images=samples.codes, logits=samples.logits, range=bounds)

    def require(self, path: Path, command: str) -> Path:
        """A file of this run that an earlier command writes.

        Raises:
            BadRun: it is not there yet; names the command that makes it.
        """
        if not path.is_file():
            raise BadRun(f"{path.name} is missing", where=self.path, hint=f"run first: edgekd {command} {self.path}")
        return path

    def models(self, teacher: Path | None = None) -> dict[str, Path]:
        """The files to compare, by label: "teacher", "student" and "student.int8".

        The teacher is left out when it is no longer where run.json says, or has changed since, and `teacher` does not
        say where it is now; the INT8 student when it was not exported.

        Raises:
            BadRun: not exported yet, or `teacher` is not the one this run was distilled from.
        """
        record = self.record().get("teacher", {})
        found = Path(teacher or record.get("path", ""))
        same = found.is_file() and _sha256(found) == record.get("sha256")
        if teacher is not None and not same:
            raise BadRun(
                f"it was not distilled from {teacher}", where=self.path, hint=f"its teacher was {record.get('path')}"
            )
        self.require(self.student_onnx, "export")
        files = {"teacher": found} if same else {}
        files |= {"student": self.student_onnx, "student.int8": self.student_int8_onnx}
        return {label: file for label, file in files.items() if file.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def latest(runs: Path = RUNS) -> RunFolder:
    """The run that was started last under `runs/`.

    Raises:
        BadRun: there is none.
    """
    found = [RunFolder(path.parent) for path in runs.glob("*/run.json")]
    if not found:
        hint = "name a run folder, or start one with: edgekd distill teacher.onnx"
        raise BadRun("no run here", where=runs, hint=hint)
    started: Callable[[RunFolder], str] = lambda run: str(run.record().get("started", ""))  # noqa: E731
    return max(found, key=started)
