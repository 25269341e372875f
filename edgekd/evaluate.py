"""How right a model is on labelled images or token ids: for people who have some, and never part of a distillation.

The record `edgekd.evaluation/1`:

    schema, tool, measured (ISO UTC)
    task       classes, binary, multilabel, segmentation or mask
    model      file, sha256, bytes, classes (columns of its answer)
    data       file, sha256, images, low, high
    accuracy, correct, n, interval (Wilson, 95 %)
    f1         but for segmentation and mask: of two classes or one label that of 1, else the mean over classes, or
               labels, that are labelled or answered anywhere; in the teacher's entry too
    per_class  list of {class, n, accuracy (null without images)}
    teacher    null, or {file, sha256, accuracy, agreement}: agreement is the share of images with the same top class

Of several labels each counts for itself: n is images times labels, accuracy and agreement are shares of labels, and
per_class has an entry per label, of all images.

Of pixels likewise: n is those with a label (255 says that one has none, unless there is such a class), accuracy is the
share of them, agreement that of all pixels. There is more for `segmentation` and `mask`:

    mean_iou   mean over classes of intersection over union, of those that are labelled or answered anywhere; in the
               teacher's entry too
    per_class  beside the others iou (null where there is none)

Labels and pixels of one image are related. So where an image has several answers, the interval is that of so many
independent ones as would vary as much as the images do (Kish, 1965: the effective sample size of a cluster sample).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgekd
from edgekd import onnx_file, units
from edgekd.codes import IDS, Bound, Codes, extent, from_codes
from edgekd.errors import BadData, BadModel, EdgekdError
from edgekd.run_folder import RunFolder, read_json, write_json
from edgekd.run_folder import task_of as task_of_run
from edgekd.samples import Images, Labels, read_labelled, read_tokens
from edgekd.scoring import Tally, ignored_label
from edgekd.tasks import KINDS, Task, choices, fitting
from edgekd.teachers import answers
from edgekd.teachers.spec import Layout, TeacherSpec, read_spec

SCHEMA = "edgekd.evaluation/1"
COLLECTION = "edgekd.evaluations/1"
Choices = NDArray[np.integer[Any]]
Sizes = tuple[int, ...]

_CHUNK_BYTES = 2**26


def evaluate(
    model: Path,
    data: Path,
    *,
    teacher: Path | None = None,
    low: Bound = 0.0,
    high: Bound = 1.0,
    task: Task = "classes",
    layout: Layout | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Accuracy of a model on labelled images, and its agreement with a teacher.

    Args:
        model: an ONNX classifier of one float32 or uint8 image, or of token ids.
        data: an `.npz` with `images`, or `tokens` `[N, T]`, and `labels`: integers `[N]`, for `multilabel` 0 and 1
            `[N, K]`, for `segmentation` and `mask` `[N, h, w]`.
        teacher: another ONNX classifier of the same classes.
        low, high: where uint8 0 and 255 go in the model's input range; float32 images are fed as they are. Of token ids
            `high` is the last one, where the model does not tell.
        task: how answers and labels are read.
        layout: of the models' axes, where they answer per pixel; without it, as their graphs tell.
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
    images, labels = _labelled(model, data, task, high, layout)
    answer = partial(_chosen, images=images, task=task, low=low, high=high, layout=layout, threads=threads)
    found, sizes = answer(model)
    options = KINDS[task].options(sizes[0])
    _require_options(labels, sizes, options, task, data, model)
    labels = labels.reshape(len(labels), -1)
    tally = Tally(found, labels, options, task)
    if not tally.n:
        raise BadData(f"every label is {KINDS[task].ignored}, which is not counted", where=data)
    return {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": edgekd.__version__},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": task,
        "model": {**_identity(model, onnx_file.model_sha256), "bytes": onnx_file.size(model), "classes": sizes[0]},
        "data": {**_identity(data, onnx_file.sha256), "images": len(images), "low": low, "high": high},
        **tally.summary(),
        "correct": tally.correct,
        "n": tally.n,
        "interval": list(tally.interval()),
        "per_class": tally.per_class(),
        "teacher": _beside(teacher, *answer(teacher), found, sizes, labels, task) if teacher else None,
    }


def task_of(model: Path) -> Task:
    """How a model's answers are read, by its graph or its metadata; classes where those do not tell."""
    spec = _spec_of(model)
    return spec.task if spec else "classes"


def _spec_of(model: Path) -> TeacherSpec | None:
    try:
        return read_spec(model)
    except EdgekdError:  # what is wrong with it, if anything, running it will say
        return None


def _layout_of(model: Path) -> Layout:
    spec = _spec_of(model)
    return spec.layout if spec else "NCHW"


def input_range(model: Path) -> tuple[Bound, Bound]:
    """Lowest and highest value of a classifier's input, from its graph; 0 and 1 where that does not tell."""
    spec = _spec_of(model)
    return (spec.low, spec.high) if spec else (0.0, 1.0)


def _labelled(model: Path, data: Path, task: Task, high: Bound, layout: Layout | None) -> tuple[Images | Codes, Labels]:
    """Images, or token ids `[N, T, 1, 1]` where the model takes those, and their labels."""
    spec = _spec_of(model)
    if (layout or (spec.layout if spec else "NCHW")) != IDS:
        return read_labelled(data, task)
    length, known = (spec.channels, spec.vocabulary) if spec else (None, None)
    tokens, labels = read_tokens(data, length, known or int(extent(0.0, high)[1]) + 1, task, labelled=True)
    assert labels is not None, "they were asked for"
    return tokens, labels


def _require_task(task: Task, sizes: Sizes, model: Path) -> None:
    allowed = fitting(sizes[0], grid=len(sizes) > 1)
    if task not in allowed:
        what = f"{sizes[0]} columns{' per pixel' * (len(sizes) > 1)} are not for task {task}"
        raise BadModel(what, where=model, allowed=", ".join(allowed) or "two columns per pixel and more")


def _require_options(labels: NDArray[Any], sizes: Sizes, options: int, task: Task, data: Path, model: Path) -> None:
    """Refuse labels of another shape than the answers `[N, *sizes]` have without their classes, or of no class."""
    asked, given = sizes[len(sizes) - KINDS[task].axes + 1 :], labels.shape[1:]
    if given != asked:
        shown, wanted = (" x ".join(map(str, shape)) for shape in (given, asked))
        what = f"{shown} labels for each image, {Path(model).name} answers {wanted}"
        raise BadData(what, where=data, allowed=str(["N", *asked]).replace("'", ""))
    ignored = ignored_label(options, task)
    outside = (labels < 0) | (labels >= options)
    wrong = np.argwhere(outside if ignored is None else outside & (labels != ignored))
    if len(wrong):
        what = f"label {labels[tuple(wrong[0])]} of image {wrong[0][0]} is no class of {Path(model).name}"
        allowed = f"0 to {options - 1}" + f", {ignored} is not counted" * (ignored is not None)
        raise BadData(what, where=data, allowed=allowed)


def _chosen(
    model: Path, images: Images | Codes, task: Task, low: Bound, high: Bound, layout: Layout | None, threads: int
) -> tuple[Choices, Sizes]:
    """What a model chooses, `[N, Q]`, and the sizes of its answer to one image.

    A chunk of images at a time: as float32 they would fill four times the file's memory, and answers of their every
    pixel still more.
    """
    axes = layout or _layout_of(model)
    chunk, found = max(1, _CHUNK_BYTES // (4 * images[0].size)), list[Choices]()
    for start in range(0, len(images), chunk):
        part = _scaled(images[start : start + chunk], low, high)
        logits = answers.logits(model, part, task, threads, layout=axes)
        _require_task(task, logits.shape[1:], model)
        found.append(choices(logits, task).astype(np.min_scalar_type(logits.shape[1])))  # pixels are many
    return np.concatenate(found), logits.shape[1:]


def _scaled(images: Images | Codes, low: Bound, high: Bound) -> NDArray[np.float32]:
    if images.dtype == np.uint8:
        return from_codes(images.astype(np.uint8, copy=False), low, high)
    return images.astype(np.float32, copy=False)


def _beside(
    teacher: Path,
    theirs: Choices,
    their_sizes: Sizes,
    found: Choices,
    sizes: Sizes,
    labels: NDArray[Any],
    task: Task,
) -> dict[str, Any]:
    if their_sizes != sizes:
        theirs_shown, own = (" x ".join(map(str, shape)) for shape in (their_sizes, sizes))
        raise BadModel(f"the teacher has {theirs_shown} classes, the model {own}", where=teacher)
    tally = Tally(theirs, labels, KINDS[task].options(sizes[0]), task)
    agreement = float((found == theirs).mean())
    return {**_identity(teacher, onnx_file.model_sha256), **tally.summary(), "agreement": agreement}


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
    low, high = told["low"], told["high"]
    how: dict[str, Any] = {"task": task_of_run(run.record()), "layout": told["layout"]}
    chosen = [only] if only is not None else list(files.values())
    records = [evaluate(file, data, teacher=known, low=low, high=high, **how) for file in chosen]
    for record in records:
        remember(run, record)
    return {record["model"]["file"]: record for record in records}


Records = Mapping[str, Mapping[str, Any]]
_MORE = {"mean_iou": "mean IoU", "f1": "F1"}


def headers(records: Records) -> list[str]:
    """What `rows` has columns of: of pixels mean IoU, else F1, unless the records are of an edgekd without it."""
    more = [name for key, name in _MORE.items() if any(key in record for record in records.values())]
    return ["model", "accuracy", "95 %", *more, "agreement with the teacher", "images"]


def rows(records: Records) -> list[list[str]]:
    """Records of schema `edgekd.evaluation/1` as people read them, under `headers`; the teacher comes last."""
    share = units.write_share
    table = []
    for name, record in records.items():
        interval = " to ".join(map(share, record["interval"]))
        agreement = share(record["teacher"]["agreement"]) if record["teacher"] else "-"
        table.append([name, *_shares(record, interval), agreement, str(record["data"]["images"])])
    told = next((record for record in records.values() if record["teacher"]), None)
    if told:
        name = f"{told['teacher']['file']} (teacher)"
        table.append([name, *_shares(told["teacher"], ""), "", str(told["data"]["images"])])
    return table


def _shares(summary: Mapping[str, Any], interval: str) -> list[str]:
    more = [units.write_share(summary[key]) for key in _MORE if key in summary]
    return [units.write_share(summary["accuracy"]), interval, *more]
