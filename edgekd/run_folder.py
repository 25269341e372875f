"""The folder a distillation writes, and every later stage reads and adds to.

    run.json               what was run: teacher, settings, versions, seed, host, state   (schema edgekd.run/1)
    metrics.jsonl          one line of losses per logging interval
    checkpoint.pt          last state, to resume from
    student.safetensors    weights            student.onnx   student.int8.onnx   student.fp16.onnx
    generator.safetensors  weights            generator.onnx; neither where real samples took its place
    parts/                 student_0.onnx, … and head.onnx: students side by side, each a file of its own
    ledger.sqlite          what a query-only teacher was asked and what it answered; grows across resumptions
    samples/               held_out.npz (uint8 images, teacher logits, their meaning), grids of generated images as PNG,
                           procedural.npz (uint8 images that the student learned from beside generated ones, or real
                           samples instead of them; and some that it did not learn from)
    bom.cdx.json           bill of materials, if export was asked for one
    aggregation.json       how a student's headers are joined, if not by their mean
    export.json  bench.json  evaluation.json  fidelity.json
    profile.svg            where the time of an inference goes

It does not need torch.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edgekd import onnx_file
from edgekd.codes import LAYOUTS, Bound, Codes, CodeType, Layout, from_codes
from edgekd.errors import BadModel, BadRun, EdgekdError
from edgekd.tasks import TASKS, Task

RUNS = Path("runs")
AGGREGATION = "edgekd.aggregation/1"
FORM = "edgekd.headers"
"""Metadata key by which a file tells which headers it holds and by what weights it joins them, as JSON."""


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all: a neighbouring temporary file takes its place only when complete.

    Folders on the way are made; when nothing comes to lie in them they go again.

    Raises:
        EdgekdError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary, made = None, list[Path]()
    try:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise EdgekdError(f"cannot be written: {error.strerror or error}", where=path, hint=_cure(error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):  # not there, or no longer empty: then it stays
                folder.rmdir()


def _cure(error: OSError) -> str:
    """What helps when a file cannot be written, as far as the error tells."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder that you may write to"
    return "choose another folder" if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG) else ""


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
        hint = " or ".join(filter(None, (_cure(error), "set TMPDIR to another")))
        raise EdgekdError(what, where=tempfile.gettempdir(), hint=hint) from error


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
        codes: `[N, C, H, W]`; of uint8 0 is the low end of the input range, 255 the high end; int32 are token ids.
        logits: float32 `[N, K]`, or `[N, K, h, w]` of every pixel of a grid: the teacher's.
        low, high: the input range, of all channels or of each.
        task: how the logits are read.
        layout: of the axes of the run's models.
    """

    codes: Codes
    logits: NDArray[np.float32]
    low: Bound
    high: Bound
    task: Task = "classes"
    layout: Layout = "NCHW"

    def images(self) -> NDArray[np.float32]:
        """float32 `[N, C, H, W]` in the teacher's input range."""
        return from_codes(self.codes, self.low, self.high)


@contextmanager
def _arrays(path: Path, what: str) -> Iterator[Any]:
    """The arrays of a file that distill wrote; whatever is wrong with it is a `BadRun`."""
    try:
        with path.open("rb") as file:  # numpy leaves a damaged archive open when it opens it itself
            yield np.load(file, allow_pickle=False)
    except (OSError, ValueError, LookupError, EOFError, BadZipFile, zlib.error) as error:
        raise BadRun(f"no usable {what}: {error}", where=path) from error


class RunFolder:
    """One run on disk. Paths only; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.record_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.ledger_file = self.path / "ledger.sqlite"
        self.student_weights = self.path / "student.safetensors"
        self.generator_weights = self.path / "generator.safetensors"
        self.student_onnx = self.path / "student.onnx"
        self.student_int8_onnx = self.path / "student.int8.onnx"
        self.student_fp16_onnx = self.path / "student.fp16.onnx"
        self.parts = self.path / "parts"
        self.generator_onnx = self.path / "generator.onnx"
        self.samples = self.path / "samples"
        self.held_out_file = self.samples / "held_out.npz"
        self.procedural_file = self.samples / "procedural.npz"
        self.aggregation_file = self.path / "aggregation.json"
        self.export_file = self.path / "export.json"
        self.bill_file = self.path / "bom.cdx.json"
        self.bench_file = self.path / "bench.json"
        self.profile_file = self.path / "profile.svg"
        self.evaluation_file = self.path / "evaluation.json"
        self.fidelity_file = self.path / "fidelity.json"

    def record(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            BadRun: there is none, it is of another schema, or lacks what later stages need.
        """
        from pydantic import ValidationError  # noqa: PLC0415 - slow to import, and a model alone has no run

        from edgekd.run_record import SCHEMA, RunRecord  # noqa: PLC0415

        if not self.record_file.is_file():
            hint = "start one with: edgekd distill teacher.onnx"
            raise BadRun("not a run folder (no run.json)", where=self.path, hint=hint)
        record = read_json(self.record_file)
        if record.get("schema") != SCHEMA:
            raise BadRun(f"schema {record.get('schema')!r} is not {SCHEMA}", where=self.record_file)
        try:
            RunRecord.model_validate(record)
        except ValidationError as error:
            wrong = ", ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise BadRun(f"damaged ({wrong})", where=self.record_file, hint="distill again") from error
        return record

    def check_writable(self) -> None:
        """Try whether the folder can be made and written, and leave nothing behind. Call it before any long work.

        Raises:
            BadRun: it cannot: a file is in the way, or permission is lacking.
        """
        try:
            nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists() or p.is_symlink())
            if nearest.is_dir():
                with tempfile.TemporaryFile(dir=nearest):
                    return
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}"
            raise BadRun(what, where=self.path, hint=_cure(error) or "choose another folder") from error
        raise BadRun(f"{nearest} is not a folder", where=self.path, hint="choose another folder")

    def held_out(self) -> HeldOut:
        """The held-out generated images with the teacher's answers.

        Raises:
            BadRun: missing or damaged.
        """
        with _arrays(self.held_out_file, "held-out samples") as data:
            low, high = (float(end) if end.ndim == 0 else tuple(map(float, end)) for end in np.asarray(data["range"]))
            task = TASKS[TASKS.index(str(data["task"]))] if "task" in data else "classes"  # older ones lack it
            layout = next((one for one in LAYOUTS if one == str(data.get("layout", ""))), LAYOUTS[0])
            return HeldOut(data["images"], data["logits"], low, high, task, layout)

    def write_held_out(self, samples: HeldOut) -> None:
        """Store the held-out images, atomically."""
        with atomic(self.held_out_file) as file:
            told: dict[str, Any] = {"task": samples.task, "layout": samples.layout}
            bounds = np.array([samples.low, samples.high])
            np.savez_compressed(file, images=samples.codes, logits=samples.logits, range=bounds, **told)

    def procedural(self, shape: tuple[int, int, int], *, unseen: bool = False, kind: CodeType = "uint8") -> Codes:
        """Some of the procedural images that the student learned from, `[N, C, H, W]`; N is 0 where there are none.

        Args:
            shape, unseen: C, H, W; others of the same kind, not learned from, of which older runs have none.
            kind: type of the codes.

        Raises:
            BadRun: damaged.
        """
        if not self.procedural_file.is_file():
            return np.empty((0, *shape), kind)
        with _arrays(self.procedural_file, "procedural images") as data:
            codes: Codes = data.get("unseen", data["images"][:0]) if unseen else data["images"]
            if codes.dtype != kind or codes.shape[1:] != shape:
                raise ValueError(f"{codes.dtype} {list(codes.shape)}, not {kind} {[len(codes), *shape]}")
            return codes

    def write_procedural(self, codes: Codes, unseen: Codes | None = None) -> None:
        """Store procedural images `[N, C, H, W]`, those learned from and others, atomically."""
        with atomic(self.procedural_file) as file:
            np.savez_compressed(file, images=codes, unseen=codes[:0] if unseen is None else unseen)

    def metrics(self) -> list[dict[str, float]]:
        """Lines of numbers, as they were logged; what is no number, or a line that is not whole, is passed by.

        Raises:
            BadRun: nothing was logged.
        """
        try:
            text = self.metrics_file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise BadRun(f"no round has been logged: {error}", where=self.metrics_file) from error
        found = []
        for line in text.splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict):
                found.append({str(key): float(value) for key, value in told.items() if is_number(value)})
        return [line for line in found if "seconds" in line]

    def scorer(self) -> list[float] | None:
        """The K weights by which the student's headers are joined; None where it is by their mean.

        Raises:
            BadRun: what was learned of them is damaged, or was of other weights of the student.
        """
        if not self.aggregation_file.is_file():
            return None
        again = "join them anew: edgekd aggregate"
        told = read_json(self.aggregation_file)
        weights = told.get("scorer")
        numbers = isinstance(weights, list) and all(isinstance(one, float) and math.isfinite(one) for one in weights)
        if told.get("schema") != AGGREGATION or not (numbers or weights is None):
            raise BadRun("damaged", where=self.aggregation_file, hint=again)
        if weights is not None and told.get("student") != onnx_file.sha256(self.student_weights):
            raise BadRun("it is of older weights of the student", where=self.aggregation_file, hint=again)
        return weights

    def require(self, path: Path, command: str) -> Path:
        """A file of this run that an earlier command writes.

        Raises:
            BadRun: it is not there yet; names the command that makes it.
        """
        if not path.is_file():
            hint = f"run first: edgekd {command} {quote(str(self.path))}"
            raise BadRun(f"{path.name} is missing", where=self.path, hint=hint)
        return path

    def exported(self, path: Path) -> Path:
        """A student's ONNX file of this run, of the weights as they are now, its headers joined as is said now.

        Where the weights are not there (on a device, say) or the file does not name them, it is taken as it is.

        Raises:
            BadRun: not exported yet, or exported before the run was resumed; names the command.
            BadModel: not a usable ONNX model.
        """
        self.require(path, "export --int8" if path == self.student_int8_onnx else "export")
        if self.student_weights.is_file():
            notes, hint = onnx_file.metadata(onnx_file.load(path)), f"edgekd export {quote(str(self.path))} --int8"
            if notes.get("edgekd.weights.sha256") not in (None, onnx_file.sha256(self.student_weights)):
                what = f"{path.name} is of older weights than {self.student_weights.name}"
                raise BadRun(what, where=self.path, hint=f"export again: {hint}")
            if FORM in notes and _scorer_of(notes[FORM]) != self.scorer():
                what = f"{path.name} joins its headers otherwise than {self.aggregation_file.name} says"
                raise BadRun(what, where=self.path, hint=f"export again: {hint}")
        return path

    def models(self, teacher: Path | None = None) -> dict[str, Path]:
        """The files to compare, by label: "teacher", "student" and "student.int8".

        The teacher is left out when it is no longer where run.json says, or has changed since, and `teacher` does not
        say where it is now; the INT8 student when it was not exported.

        Raises:
            BadRun: not exported yet, exported before the run was resumed, or `teacher` is not the one this run was
                distilled from.
        """
        record = self.record()["teacher"]
        found = Path(teacher or record["path"])
        same = _is_that_model(found, record["sha256"])
        if teacher is not None and not same:
            raise BadRun(
                f"it was not distilled from {teacher}", where=self.path, hint=f"its teacher was {record['path']}"
            )
        files = {"teacher": found} if same else {}
        files["student"] = self.exported(self.student_onnx)
        if self.student_int8_onnx.is_file():
            files["student.int8"] = self.exported(self.student_int8_onnx)
        return files


def _scorer_of(note: str) -> object:
    """What a file's note says of how it joins its headers."""
    try:
        return json.loads(note)["scorer"]
    except (ValueError, LookupError, TypeError):
        return "damaged"


def _is_that_model(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and onnx_file.model_sha256(path) == sha256
    except (BadModel, OSError):  # unreadable is not the same either
        return False


def is_model(path: Path) -> bool:
    """Whether a path that may name a run folder or a model names a model."""
    return path.is_file() or path.suffix == ".onnx"


def new_path(teacher: str) -> Path:
    """Where a run of a teacher goes if nobody says: under `runs/`, by the teacher's name and the time."""
    stem = Path(teacher).stem if Path(teacher).suffix == ".onnx" else re.split(r"[/:]", teacher.rstrip("/"))[-1]
    return RUNS / f"{re.sub(r'[^A-Za-z0-9._-]', '-', stem)}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def latest(runs: Path = RUNS) -> RunFolder:
    """The run that was started last under `runs/`; one whose record is damaged is passed by.

    Raises:
        BadRun: there is none, or none that is not damaged.
    """
    started: dict[str, RunFolder] = {}
    damaged = ""
    for path in sorted(runs.glob("*/run.json")):
        run = RunFolder(path.parent)
        try:
            started[run.record()["started"]] = run
        except BadRun as error:
            damaged = f" that could be used: {error}"
    if not started:
        hint = "name a run folder, or start one with: edgekd distill teacher.onnx"
        raise BadRun(f"no run here{damaged}", where=runs, hint=hint, page="tutorial.md#distil")
    return started[max(started)]


def out_of_queries(record: Mapping[str, Any]) -> bool:
    """Whether a run stopped because it had asked as much as it might."""
    return "--max-queries" in str(record.get("stopped"))


def task_of(record: Mapping[str, Any]) -> Task:
    """How the answers of a run's models are read; runs of edgekd before it knew other tasks do not say it."""
    task: Task = record["teacher"].get("task", "classes")
    return task


def learned_alone(record: Mapping[str, Any]) -> bool:
    """Whether a run's student learned from the user's own images alone, or from token ids, so that nothing was
    generated."""
    return bool((record.get("samples") or {}).get("alone"))


def learned_from(record: Mapping[str, Any]) -> str:
    """What to call that from which a run's student learned."""
    if not learned_alone(record):
        return "generated images"
    return "real samples" if record["samples"]["count"] else "random sequences"


def is_number(value: object) -> bool:
    """Whether a value of a record is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
