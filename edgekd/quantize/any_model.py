"""An ONNX file that edgekd did not distil, made ready for a target on a run's generator, real samples, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, ValueInfoProto

from edgekd import __version__, bill, onnx_file
from edgekd.codes import extent
from edgekd.devices import CalibrationRecipe, Target
from edgekd.errors import BadSetting, EdgekdError
from edgekd.quantize.delivery import Order, Precision, Terms, deliver, require_precision
from edgekd.quantize.preparation import checked
from edgekd.quantize.proof import Held
from edgekd.quantize.run_samples import JUDGED, Labels, calibration_images, classifier, unseen_images
from edgekd.quantize.samples import Joined, Source, Stored, arranged, cut, real_samples
from edgekd.run_folder import RunFolder, learned_alone, write_json
from edgekd.tasks import Task
from edgekd.teachers.spec import read_spec

SCHEMA = "edgekd.export/1"


@dataclass(frozen=True)
class _Pool:
    """Samples by what they are for, as the model takes them."""

    calibration: Source
    judged_on: Source
    reference: tuple[Source, str]


def export_model(
    model: Path,
    *,
    target: Target,
    precision: Precision,
    recipe: CalibrationRecipe,
    terms: Terms,
    generator: RunFolder | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    bounds: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Write a target's version of any ONNX file, and beside it a record with its sha256.

    Args:
        model: the float file.
        target: the device.
        precision: int8 or fp16.
        recipe: how ranges are found, on how many samples.
        terms: what it may cost; `real` holds real samples.
        generator: a run whose generator makes samples.
        out: where it goes; `MODEL.int8.onnx` or `MODEL.fp16.onnx` beside the model by default.
        overwrite: replace what is there.
        bounds: where uint8 0 and 255 of real samples go; as the graph tells by default.

    Returns:
        A record of schema edgekd.export/1.

    Raises:
        CannotLoad: a bill of materials is asked for and its extra not installed.
        BadSetting: no samples at all, a file in the way, or a target that is none for this precision.
        BadModel, BadData, BadRun, EdgekdError: as `edgekd.quantize.delivery.deliver` does.
    """
    require_precision(target, precision)
    if terms.bill:
        bill.require(model)
    out = out or model.with_name(f"{model.stem}.{precision}.onnx")
    if out.exists() and not overwrite:
        raise BadSetting(f"{out} is there already", where="--out", hint="name another file, or say --overwrite")
    graph = checked(model, target.model)
    low, high, task, layout = _reading(model)
    low, high = bounds or (low, high)
    real = real_samples(terms.real, low, high, layout) if terms.real is not None else None
    pool = _pool(graph, generator, terms, recipe, real, task)
    order = Order(
        target,
        precision,
        Held(pool.judged_on, None, task, layout),
        terms,
        recipe,
        pool.calibration,
        pool.judged_on,
        pool.reference,
        {"edgekd.target": target.name},
    )
    delivery = deliver(model, out, order)
    warnings = list(delivery.warnings)
    if delivery.file is None and out.exists():
        warnings.append(f"{out.name} is as it was before")
    record = {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": __version__},
        "target": target.name,
        "files": {
            "float": {"path": model.name, "sha256": onnx_file.model_sha256(model), "bytes": onnx_file.size(model)}
        }
        | delivery.files(precision),
        "quantization": delivery.quantization,
        "proof": {precision: delivery.proof},
        "coverage": delivery.coverage,
        "agreement": None,
        "warnings": warnings,
    }
    if delivery.file is not None:
        write_json(out.with_suffix(".json"), record)
        listed = out.with_suffix(".cdx.json")
        listed.unlink(missing_ok=True)  # an earlier one is of another file
        if terms.bill:
            bill.write(listed, record)
    return record


def _reading(model: Path) -> tuple[float, float, Task, str]:
    """Range of the input, task and layout, as far as the graph tells."""
    try:
        spec = read_spec(model)
    except EdgekdError:  # no image classifier: its answers are compared as numbers
        return 0.0, 1.0, "classes", "NCHW"
    a_number = spec.layout == "NF" and spec.classes == 1 and spec.ending == "logits"  # a regression
    return *extent(spec.low, spec.high), "classes" if a_number else spec.task, spec.layout


def _pool(
    graph: ModelProto,
    run: RunFolder | None,
    terms: Terms,
    recipe: CalibrationRecipe,
    real: Stored | None,
    task: Task,
) -> _Pool:
    if run is None and real is None:
        hint = "give --generator RUN, whose generator makes samples, or --samples FILE.npz"
        raise BadSetting("no samples to calibrate on or to compare with", where="edgekd export", hint=hint)
    entry = onnx_file.real_inputs(graph)[0]
    if run is None:
        assert real is not None
        return _of_real(real, entry, recipe.samples)
    even = recipe.balanced and task == "classes" and len(onnx_file.dimensions(graph.graph.output[0]) or ()) == 2
    classify = classifier(graph, lambda source: arranged(source, entry)) if even else None
    return _of_run(run, real, entry, recipe.samples, terms.real_share, classify)


def _of_real(real: Stored, entry: ValueInfoProto, count: int) -> _Pool:
    """Three quarters of the samples for calibration, as many as the recipe wants; the rest to judge by."""
    own, rest = cut(real, min(count, len(real) - len(real) // 4))
    judged = cut(rest if len(rest) else own, JUDGED)[0]
    fed = arranged(judged, entry)
    return _Pool(arranged(own, entry), fed, (fed, "real samples"))


def _of_run(
    run: RunFolder,
    real: Stored | None,
    entry: ValueInfoProto,
    count: int,
    share: float,
    classify: Callable[[Source], Labels] | None,
) -> _Pool:
    record = run.record()
    if not learned_alone(record):
        run.require(run.generator_onnx, "export")
    unseen = arranged(unseen_images(run, record), entry)
    if real is None:
        calibration = arranged(calibration_images(run, record, count, classify), entry)
        return _Pool(calibration, unseen, (unseen, "generated samples of another seed"))
    own, rest = cut(real, round(count * share))
    generated = arranged(calibration_images(run, record, count - len(own), classify), entry)
    left = arranged(rest if len(rest) else own, entry)
    return _Pool(Joined([arranged(own, entry), generated]), unseen, (left, "real samples"))
