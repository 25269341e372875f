"""How right a model is on labelled images: for people who have some, and never part of a distillation.

The record `edgekd.evaluation/1`:

    schema, tool, measured (ISO UTC)
    task       classes, binary or multilabel
    model      file, sha256, bytes, classes (columns of its answer)
    data       file, sha256, images, low, high
    accuracy, correct, n, interval (Wilson, 95 %)
    per_class  list of {class, n, accuracy (null without images)}
    teacher    null, or {file, sha256, accuracy, agreement}: agreement is the share of images with the same top class

Of several labels each counts for itself: n is images times labels, accuracy and agreement are shares of labels, and
per_class has an entry per label, of all images. The interval does not know that labels of one image are related.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

import edgekd
from edgekd import inference, onnx_file, units
from edgekd.errors import BadData, BadModel, EdgekdError
from edgekd.run_folder import RunFolder, read_json, write_json
from edgekd.run_folder import task_of as task_of_run
from edgekd.tasks import KINDS, TASKS, Task, choices
from edgekd.teachers import answers
from edgekd.teachers.spec import read_spec

SCHEMA = "edgekd.evaluation/1"
COLLECTION = "edgekd.evaluations/1"
Images = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int64]

_KEYS = (
    "an .npz with images (uint8 or float32, [N, C, H, W], [N, H, W, C] or [N, H, W]) "
    "and labels (integers, [N], or [N, K] for multilabel)"
)
_CHUNK_BYTES = 2**26


def evaluate(
    model: Path,
    data: Path,
    *,
    teacher: Path | None = None,
    low: float = 0.0,
    high: float = 1.0,
    task: Task = "classes",
    threads: int = 1,
) -> dict[str, Any]:
    """Accuracy of a model on labelled images, and its agreement with a teacher.

    Args:
        model: an ONNX classifier of one float32 image.
        data: an `.npz` with `images` and `labels`: integers `[N]`, for `multilabel` 0 and 1 `[N, K]`.
        teacher: another ONNX classifier of the same classes.
        low, high: where uint8 0 and 255 go in the model's input range; float32 images are fed as they are.
        task: how answers and labels are read.
        threads: of ONNX Runtime.

    Returns:
        A record of schema `edgekd.evaluation/1`.

    Raises:
        BadData: the file is damaged, holds pickled objects, or does not fit the model.
        BadModel: not a classifier, or another number of classes than the teacher.
        CannotLoad: ONNX Runtime refuses a file.
    """
    for path in (model, teacher) if teacher else (model,):
        onnx_file.load(path)
    images, labels = read_labelled(data, task)
    answer = partial(_answers, images=images, task=task, low=low, high=high, threads=threads)
    found = answer(model)
    columns = found.shape[1]
    _require_task(task, columns, model)
    predicted = choices(found, task)
    options = KINDS[task].options(columns)
    _require_options(labels, predicted.shape[1], options, data, model)
    right = predicted == labels
    correct = int(right.sum())
    return {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": edgekd.__version__},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": task,
        "model": {**_identity(model, onnx_file.model_sha256), "bytes": onnx_file.size(model), "classes": columns},
        "data": {**_identity(data, onnx_file.sha256), "images": len(images), "low": low, "high": high},
        "accuracy": correct / right.size,
        "correct": correct,
        "n": right.size,
        "interval": list(wilson(correct, right.size)),
        "per_class": _per_label(right) if right.shape[1] > 1 else _per_class(right[:, 0], labels[:, 0], options),
        "teacher": _beside(teacher, answer(teacher), found, labels, task) if teacher else None,
    }


def task_of(model: Path) -> Task:
    """How a model's answers are read, by its graph or its metadata; classes where those do not tell."""
    try:
        return read_spec(model).task
    except EdgekdError:  # what is wrong with it, if anything, `evaluate` will say
        return "classes"


def input_range(model: Path) -> tuple[float, float]:
    """Lowest and highest value of a classifier's input, from its graph; 0 and 1 where that does not tell."""
    try:
        spec = read_spec(model)
    except EdgekdError:  # what is wrong with it, if anything, `evaluate` will say
        return 0.0, 1.0
    return spec.low, spec.high


def read_labelled(path: Path, task: Task = "classes") -> tuple[Images, Labels]:
    """Images `[N, C, H, W]` or `[N, H, W, C]` (uint8 or finite float32), labels `[N, 1]` or `[N, K]`; never unpickles.

    Raises:
        BadData: says what is wrong with the file.
    """
    images, labels = _arrays(Path(path))
    if images.dtype not in (np.uint8, np.float32):
        raise BadData(f"images are {images.dtype}", where=path, allowed="uint8 or float32")
    if images.ndim not in (3, 4):
        raise BadData(
            f"images have shape {list(images.shape)}", where=path, allowed="[N, C, H, W], [N, H, W, C] or [N, H, W]"
        )
    axes = KINDS[task].axes
    if labels.dtype.kind not in "iu" or labels.ndim != axes:
        allowed = f"integers [N{', K' * (axes > 1)}] for {task}"
        raise BadData(f"labels are {labels.dtype} of shape {list(labels.shape)}", where=path, allowed=allowed)
    if len(images) != len(labels):
        raise BadData(f"{len(images)} images but {len(labels)} labels", where=path)
    if images.size == 0:
        raise BadData("it holds no images", where=path)
    if images.dtype == np.float32 and not np.isfinite(images).all():
        row = int(np.flatnonzero(~np.isfinite(images.reshape(len(images), -1)).all(1))[0])
        raise BadData(f"image {row} holds NaN or infinity", where=path)
    return images if images.ndim == 4 else images[:, None], labels.reshape(len(labels), -1)


def _arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    if not path.is_file():
        raise BadData("no such file", where=path, allowed=_KEYS)
    try:
        with path.open("rb") as file:  # numpy leaves a damaged archive open when it opens it itself
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise BadData("a single array", where=path, allowed=_KEYS)
            missing = [key for key in ("images", "labels") if key not in archive]
            if missing:
                found = ", ".join(archive) or "nothing"
                raise BadData(f"no {' and no '.join(missing)}; it holds {found}", where=path, allowed=_KEYS)
            return archive["images"], archive["labels"]
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, RuntimeError, MemoryError) as error:
        pickled = "pickle" in str(error) or "Object arrays" in str(error)
        what = "not an .npz, or it holds pickled objects" if pickled else f"not readable: {onnx_file.first_line(error)}"
        raise BadData(what, where=path, allowed=_KEYS) from error


def _require_task(task: Task, columns: int, model: Path) -> None:
    if not KINDS[task].fits(columns):
        fitting = ", ".join(known for known in TASKS if KINDS[known].fits(columns))
        raise BadModel(f"{columns} columns are not for task {task}", where=model, allowed=fitting)


def _require_options(labels: NDArray[Any], questions: int, options: int, data: Path, model: Path) -> None:
    if labels.shape[1] != questions:
        what = f"{labels.shape[1]} labels for each image, {Path(model).name} answers {questions}"
        raise BadData(what, where=data, allowed=f"[N, {questions}]")
    wrong = np.argwhere((labels < 0) | (labels >= options))
    if len(wrong):
        image, question = wrong[0]
        what = f"label {labels[image, question]} of image {image} is no class of {Path(model).name}"
        raise BadData(what, where=data, allowed=f"0 to {options - 1}")


def _answers(model: Path, images: Images, task: Task, low: float, high: float, threads: int) -> NDArray[np.float32]:
    """Logits `[N, K]`, a chunk of images at a time: as float32 they would fill four times the file's memory."""
    chunk = max(1, _CHUNK_BYTES // (4 * images[0].size))
    parts = (_scaled(images[start : start + chunk], low, high) for start in range(0, len(images), chunk))
    return np.concatenate([answers.logits(model, part, task, threads) for part in parts])


def _scaled(images: Images, low: float, high: float) -> NDArray[np.float32]:
    if images.dtype == np.float32:
        return images.astype(np.float32, copy=False)
    return (images.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)).astype(np.float32)


def wilson(correct: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927), 95 % by default; unlike p ± z·s it stays within 0 and 1."""
    share, weight = correct / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _per_class(right: NDArray[np.bool_], labels: NDArray[Any], classes: int) -> list[dict[str, Any]]:
    counts = np.bincount(labels.astype(np.int64), minlength=classes)
    correct = np.bincount(labels[right].astype(np.int64), minlength=classes)
    return [
        {"class": k, "n": int(counts[k]), "accuracy": correct[k].item() / counts[k].item() if counts[k] else None}
        for k in range(classes)
    ]


def _per_label(right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    return [{"class": k, "n": len(right), "accuracy": share.item()} for k, share in enumerate(right.mean(axis=0))]


def _beside(
    teacher: Path, theirs: NDArray[np.float32], found: NDArray[np.float32], labels: NDArray[Any], task: Task
) -> dict[str, Any]:
    if theirs.shape != found.shape:
        what = f"the teacher has {theirs.shape[1]} classes, the model {found.shape[1]}"
        raise BadModel(what, where=teacher)
    accuracy = float((choices(theirs, task) == labels).mean())
    return {
        **_identity(teacher, onnx_file.model_sha256),
        "accuracy": accuracy,
        "agreement": inference.agreement(found, theirs, task),
    }


def _identity(path: Path, digest: Callable[[Path], str]) -> dict[str, str]:
    return {"file": Path(path).name, "sha256": digest(path)}


def remember(run: RunFolder, record: dict[str, Any]) -> None:
    """Keep an evaluation in the run's evaluation.json, beside those of its other models; the gate reads it there.

    The file is `{"schema": "edgekd.evaluations/1", "models": {file name: edgekd.evaluation/1}}`.
    """
    kept = read_json(run.evaluation_file) if run.evaluation_file.is_file() else {}
    models = kept.get("models", {}) if kept.get("schema") == COLLECTION else {}
    write_json(run.evaluation_file, {"schema": COLLECTION, "models": {**models, record["model"]["file"]: record}})


def evaluate_run(
    run: RunFolder, data: Path, *, teacher: Path | None = None, only: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Evaluate a run's students, beside its teacher where that can be found, and remember the records in the run.

    Args:
        run: exported.
        data: see `evaluate`.
        teacher: where the teacher's file is now, if it is not where run.json says.
        only: evaluate this file of the run alone.

    Returns:
        Records of schema `edgekd.evaluation/1` by file name.

    Raises:
        BadRun: not exported yet, or `teacher` is another one.
        BadData, BadModel, CannotLoad: see `evaluate`.
    """
    told, files = run.record()["teacher"], run.models(teacher)
    known = files.pop("teacher", None)
    low, high = float(told["low"]), float(told["high"])
    task = task_of_run(run.record())
    chosen = [only] if only is not None else list(files.values())
    records = [evaluate(file, data, teacher=known, low=low, high=high, task=task) for file in chosen]
    for record in records:
        remember(run, record)
    return {record["model"]["file"]: record for record in records}


HEADERS = ("model", "accuracy", "95 %", "agreement with the teacher", "images")


def rows(records: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Records of schema `edgekd.evaluation/1` as people read them, under `HEADERS`; the teacher comes last."""
    share = units.write_share
    table = []
    for name, record in records.items():
        low, high = record["interval"]
        agreement = share(record["teacher"]["agreement"]) if record["teacher"] else "-"
        table.append(
            [
                name,
                share(record["accuracy"]),
                f"{share(low)} to {share(high)}",
                agreement,
                str(record["data"]["images"]),
            ]
        )
    told = next((record for record in records.values() if record["teacher"]), None)
    if told:
        table.append(
            [
                f"{told['teacher']['file']} (teacher)",
                share(told["teacher"]["accuracy"]),
                "",
                "",
                str(told["data"]["images"]),
            ]
        )
    return table
