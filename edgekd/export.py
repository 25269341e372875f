"""A finished run to files a device can use: student and generator as ONNX, checked against torch, then INT8.

Torch is needed only where a float model is missing or older than its weights: on a device or in a CI job that got the
`.onnx` files, `export --int8` works without it. It does not measure time: `edgekd.bench` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto

from edgekd import __version__, bill, leftovers, onnx_file, part_files, split
from edgekd.codes import from_codes, stored_as, to_codes
from edgekd.devices import CalibrationRecipe, Target
from edgekd.errors import BadModel, BadRun
from edgekd.extras import has_distill, require_distill
from edgekd.headers import Form, form_of
from edgekd.inference import Floats, agreement, fed, logits
from edgekd.quantize import (
    QAT_STEPS,
    Delivery,
    Held,
    Order,
    Source,
    Stored,
    Terms,
    Tuning,
    deliver,
    require_precision,
)
from edgekd.quantize.run_samples import calibration_images, classifier, unseen_images, with_real
from edgekd.quantize.samples import as_fed
from edgekd.run_folder import FORM, RunFolder, learned_alone, learned_from, read_json, task_of, write_json
from edgekd.tasks import NOTE
from edgekd.user_code import is_file_name

if TYPE_CHECKING:
    from torch.nn import Module

    from edgekd.quantize.search import Quantize
    from edgekd.tracing import Port, Traced

SCHEMA = "edgekd.export/1"
_EXAMPLES = 2048  # how many held-out images the check of the student against torch looks at, at most
_LATENTS = 256  # how many images the check of the generator looks at


def export(
    run: RunFolder,
    *,
    int8: bool,
    target: Target,
    recipe: CalibrationRecipe,
    samples: int | None = None,
    trust_factory: bool = False,
    keep_headers: Sequence[int] | None = None,
    header_outputs: bool = False,
    apart: bool = False,
    fp16: bool = False,
    terms: Terms | None = None,
) -> dict[str, Any]:
    """Write `student.onnx`, `generator.onnx`, `export.json`, and `student.int8.onnx` or `student.fp16.onnx` if asked
    for.

    A float file that is up to date is kept: it carries the sha256 of the weights it was made from.

    Args:
        run: of which distill wrote at least one checkpoint.
        int8: quantize the student for the target.
        target: opset, IR version and INT8 flavour.
        recipe: how activation ranges are found.
        samples: calibrate on that many images instead of the recipe's number.
        fp16: bring the student to half precision for the target.
        terms: what INT8 or half precision may cost, and how that is found out.
        trust_factory: see `edgekd.networks.load_student`.
        keep_headers: of a student with headers those that the file is to hold, by number from 0; None: all.
        header_outputs: have it answer each header's logits as well, behind its own, as `header_0` and so on.
        apart: write students side by side and their head as files of their own too, into `parts/`.

    Returns:
        The record of schema edgekd.export/1, as written to `export.json`. Its `warnings` are for the user.

    Raises:
        BadRun: not distilled yet, or damaged, or its student is a factory that is not trusted.
        BadSetting: it has no headers, or not those; or one student, which cannot be split.
        CannotLoad: a float file must be written, and edgekd[distill] is not installed.
        BadSetting: the target is none for INT8, or for half precision.
        EdgekdError: an ONNX file answers otherwise than torch, or quantization failed. The file is not written then.
    """
    if int8:
        require_precision(target, "int8")
    if fp16:
        require_precision(target, "fp16")
    terms = terms or Terms()
    if terms.bill:
        bill.require(run.path)
    record = run.record()
    warnings = _unfinished(run, record)
    form = form_of(run, record, keep_headers, header_outputs)
    if apart:
        part_files.names_of(record)
    files, told = _float_models(run, record, target, trust_factory, form)
    warnings += told
    stale = leftovers.without_stale(run, _nearby(run.path))  # before quantizing, which may fail and leave it
    made: dict[str, Delivery] = {}
    order = _int8(run, record, target, recipe, samples, terms) if int8 else None
    if order is not None:
        made["int8"] = deliver(run.student_onnx, run.student_int8_onnx, order)
    if fp16:
        half = Order(target, "fp16", _held(run, record), terms, metadata={"edgekd.target": target.name})
        made["fp16"] = deliver(run.student_onnx, run.student_fp16_onnx, half)
    warnings += [told for precision, told in stale.items() if precision not in made]
    for precision, delivery in made.items():
        files |= delivery.files(f"student_{precision}")
        left = {"kept": delivery.file is not None, "ort": delivery.extra is not None}
        warnings += [*delivery.warnings, *leftovers.without_refused(leftovers.students(run)[precision], **left)]
    more, told = _parts(run, record, target, trust_factory, order) if apart else ({}, [])
    files, warnings = files | more, [*warnings, *told, *part_files.without_stale(run)]
    written = int8 and made["int8"].file is not None
    agreements = _agreements(run, record, written) if run.held_out_file.is_file() else None
    result = {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": __version__},
        "target": target.name,
        "headers": form.told(),
        "files": files,
        "quantization": made["int8"].quantization if int8 else None,
        "proof": {precision: delivery.proof for precision, delivery in made.items()},
        "coverage": made["int8"].coverage if int8 else None,
        "agreement": agreements,
        "warnings": [*warnings, *([] if terms.bill else leftovers.without_bill(run))],
    }
    write_json(run.export_file, result)
    if terms.bill:
        bill.write(run.bill_file, result, [record["teacher"], *record.get("more_teachers", [])])
    return result


def _unfinished(run: RunFolder, record: dict[str, Any]) -> list[str]:
    """Refuse a run without weights; warn of one that could still learn."""
    resume = "edgekd distill {} --out {} --resume".format
    named = [one["path"] for one in (record["teacher"], *record.get("more_teachers", []))]
    for weights in (run.student_weights, *([] if learned_alone(record) else [run.generator_weights])):
        if not weights.is_file():
            first = resume(" ".join(map(quote, named)), quote(str(run.path)))
            raise BadRun(f"not distilled yet: {weights.name} is missing", where=run.path, hint=f"run first: {first}")
    if record["state"] == "finished":
        return []
    again = resume(" ".join(map(_nearby, named)), _nearby(run.path))
    return [f"the run is {record['state']}, not finished: these are its last checkpoint's weights; go on with: {again}"]


def _nearby(named: str | Path) -> str:
    """A path for a command in a record: from the working directory on, or the name alone where that is elsewhere.

    A record travels with its run, and where things lie on this machine is nobody's business. What is no path, the URL
    of a teacher or a function, stays as it is.
    """
    if not is_file_name(named):
        return quote(str(named))
    path, here = Path(named).absolute(), Path.cwd()
    return quote(str(path.relative_to(here) if path.is_relative_to(here) else path.name))


# ------------------------------------------------------------------------------------------------ float models


def _float_models(
    run: RunFolder, record: dict[str, Any], target: Target, trust_factory: bool, form: Form
) -> tuple[dict[str, Any], list[str]]:
    """The file records of generator and student; writes those that are missing or out of date, both or neither."""
    weights = {"student": run.student_weights, "generator": run.generator_weights}
    paths = {"student": run.student_onnx, "generator": run.generator_onnx}
    if learned_alone(record):  # nothing was generated
        del paths["generator"]
    notes = {kind: _notes(weights[kind], record) for kind in paths}
    notes["student"] |= form.notes()
    stale = [kind for kind in paths if not _up_to_date(paths[kind], notes[kind], target)]
    traced = _traced(run, record, target, stale, trust_factory, form) if stale else {}
    for kind, one in traced.items():
        one.write(paths[kind], notes[kind] | {"edgekd.simplifier": one.simplifier or "none"})
    files = {kind: _file_record(run, kind, paths[kind], traced.get(kind)) for kind in paths}
    return files, [one.warning for one in traced.values() if one.warning]


def _notes(weights: Path, record: dict[str, Any]) -> dict[str, str]:
    """Provenance of a float model, and its task where a reader of logits alone would take it for another."""
    task = task_of(record)
    notes = {
        "edgekd.version": __version__,
        "edgekd.weights.sha256": onnx_file.sha256(weights),
        "edgekd.teacher.sha256": record["teacher"]["sha256"],
        "edgekd.student": f"{record['student']['name']} width {record['student']['width']:g}",
        "edgekd.seed": str(record["settings"]["seed"]),
    }
    return notes if task == "classes" else notes | {NOTE: task}


def _up_to_date(path: Path, notes: dict[str, str], target: Target) -> bool:
    """Whether a float file was made from these weights and is within the target's limits."""
    model = _readable(path)
    if model is None:
        return False
    told = onnx_file.metadata(model)
    same = all(told.get(key) == notes.get(key) for key in ("edgekd.weights.sha256", FORM))
    return same and onnx_file.opset(model) <= target.model.opset and model.ir_version <= target.model.ir_version


def _readable(path: Path) -> ModelProto | None:
    """A model written earlier; None when it is missing or damaged, and so has to be made again."""
    try:
        return onnx_file.load(path)
    except BadModel:
        return None


def _traced(
    run: RunFolder, record: dict[str, Any], target: Target, kinds: list[str], trust_factory: bool, form: Form
) -> dict[str, Traced]:
    """Export from torch what `kinds` names, checked but not written."""
    files = " and ".join(f"{kind}.onnx" for kind in kinds)
    require_distill(f"writing {files} from the weights", where=run.path)
    from edgekd import networks  # noqa: PLC0415 - torch is imported only here
    from edgekd.tracing import trace  # noqa: PLC0415

    weights = run.student_weights
    student = networks.load_student(record, weights, scorer=form.scorer, trust_factory=trust_factory)
    ports, images = _ports(record, form), _compared_on(run, record)
    network = networks.for_export(student, form.kept, each=form.outputs)
    sources: dict[str, tuple[Module, Any]] = {"student": (network, images)}
    if "generator" in kinds:
        sources["generator"] = networks.load_generator(record, run.generator_weights), _latents(record)
    return {kind: trace(sources[kind][0], ports[kind], target.model, sources[kind][1]) for kind in kinds}


def _latents(record: dict[str, Any]) -> Floats:
    """What the generator is checked on."""
    size = (_LATENTS, record["generator"]["latent"])
    return np.random.default_rng(record["settings"]["seed"]).standard_normal(size, dtype=np.float32)


def _compared_on(run: RunFolder, record: dict[str, Any]) -> Floats:
    """Images to compare ONNX Runtime with torch on.

    An interrupted run may lack the held-out set: new images of its generator serve as well, or noise.
    """
    if run.held_out_file.is_file():
        return run.held_out().images()[:_EXAMPLES]
    teacher = record["teacher"]
    if learned_alone(record):
        size = (_LATENTS, teacher["channels"], teacher["height"], teacher["width"])
        low, high = teacher["low"], teacher["high"]
        noise = np.random.default_rng(0).uniform(low, high, size).astype(np.float32)
        return from_codes(to_codes(noise, low, high, stored_as(teacher["layout"])), low, high)
    from edgekd import networks  # noqa: PLC0415
    from edgekd.tracing import answers  # noqa: PLC0415

    return answers(networks.load_generator(record, run.generator_weights), _latents(record))


def _ports(record: dict[str, Any], form: Form) -> dict[str, Port]:
    from edgekd.tracing import Port, of_student  # noqa: PLC0415 - imports torch

    beside = tuple(f"header_{number}" for number in form.kept) if form.outputs else ()
    teacher = record["teacher"]
    step = float(np.min(np.subtract(teacher["high"], teacher["low"]))) / 255  # between two values of a channel
    return {
        "student": of_student(teacher, "logits", task_of(record), beside),
        "generator": Port("latent", "image", (record["generator"]["latent"],), finest=step / 2),
    }


def _file_record(run: RunFolder, kind: str, path: Path, traced: Traced | None) -> dict[str, Any]:
    """Name, digest and size of a float file, and how it compared with torch when it was written."""
    known: dict[str, Any] = {
        "path": str(path.relative_to(run.path)),
        "sha256": onnx_file.sha256(path),
        "bytes": path.stat().st_size,
    }
    if traced is not None:
        return known | {"simplifier": traced.simplifier, "check": traced.check}
    try:
        before = read_json(run.export_file).get("files", {}).get(kind, {})
    except BadRun:  # no earlier record, or a damaged one: it is about to be replaced
        before = {}
    same = before.get("sha256") == known["sha256"]
    return known | {key: before.get(key) if same else None for key in ("simplifier", "check")}


# ------------------------------------------------------------------------------------------------------- INT8


def _int8(
    run: RunFolder, record: dict[str, Any], target: Target, recipe: CalibrationRecipe, samples: int | None, terms: Terms
) -> Order:
    count = recipe.samples if samples is None else samples
    calibration, reference = _calibration_images(run, record, recipe, count, terms)
    return Order(
        target,
        "int8",
        _held(run, record),
        terms,
        recipe,
        calibration,
        _unseen(run, record),
        reference,
        {"edgekd.target": target.name},
        _tuning(run, record, terms),
    )


def _parts(
    run: RunFolder, record: dict[str, Any], target: Target, trust_factory: bool, order: Order | None
) -> tuple[dict[str, Any], list[str]]:
    """The file records of students side by side and of their head, INT8 ones too where there is an order; warnings."""
    require_distill("writing the students from the weights", where=run.path)
    from edgekd import networks  # noqa: PLC0415 - torch is imported only here

    student = networks.load_student(record, run.student_weights, trust_factory=trust_factory)
    notes = _notes(run.student_weights, record)
    written, told = split.write_parts(run, record, student, target, notes, _compared_on(run, record)), list[str]()
    if order is not None:
        small, told = split.quantize_parts(run, record, order)
        written |= small
    return {name: _file_record(run, name, path, None) for name, path in written.items()}, told


def _tuning(run: RunFolder, record: dict[str, Any], terms: Terms) -> Tuning | None:
    """Quantization-aware distillation, if it is wanted; where torch is not installed, only if it was asked for."""
    if terms.qat:
        require_distill("quantization-aware distillation", where=run.path)
    if terms.qat == 0 or not has_distill():
        return None
    steps, seed = terms.qat or QAT_STEPS, record["settings"]["seed"]
    told: dict[str, Any] = {"steps": steps}

    def tuned(model: ModelProto, quantize: Quantize) -> ModelProto:
        from edgekd.finetuning import TAUGHT, check_work, examples_of, fine_tuned  # noqa: PLC0415 - imports torch

        if not terms.qat:
            check_work(model, steps)
        examples = examples_of(run, record, lambda: calibration_images(run, record, TAUGHT).parts())
        told.update(examples=len(examples.codes), taught_by=["float student", "teacher"][: len(examples.answers)])
        return fine_tuned(model, quantize, examples, steps, seed)

    return Tuning(tuned, bool(terms.qat), told)


def _calibration_images(
    run: RunFolder, record: dict[str, Any], recipe: CalibrationRecipe, count: int, terms: Terms
) -> tuple[Source, tuple[Source, str]]:
    """Images to calibrate on, and others to compare their activations with; of real ones, if there are any, a share."""
    teacher = record["teacher"]
    layout, classify = teacher["layout"], None
    if recipe.balanced and task_of(record) == "classes":
        classify = classifier(onnx_file.load(run.student_onnx), lambda source: as_fed(source, layout))
    if terms.real is None:
        calibration = as_fed(calibration_images(run, record, count, classify), layout)
        name = learned_from(record) if learned_alone(record) else "generated samples of another seed"
        return calibration, (_unseen(run, record), name)
    taken = round(count * terms.real_share)
    generated = as_fed(calibration_images(run, record, count - taken, classify), layout)
    mixed, rest = with_real(generated, terms.real, taken, teacher["low"], teacher["high"], layout)
    return mixed, (rest, "real samples")


def _unseen(run: RunFolder, record: dict[str, Any]) -> Source:
    return as_fed(unseen_images(run, record), record["teacher"]["layout"])


def _held(run: RunFolder, record: dict[str, Any]) -> Held:
    """The held-out images with the teacher's answers; of an interrupted run, which may lack them, generated ones."""
    teacher, task = record["teacher"], task_of(record)
    if not run.held_out_file.is_file():
        return Held(_unseen(run, record), None, task, teacher["layout"])
    held = run.held_out()
    source = as_fed(Stored(held.codes, held.low, held.high), teacher["layout"])
    return Held(source, held.logits, task, teacher["layout"])


def _agreements(run: RunFolder, record: dict[str, Any], int8: bool) -> dict[str, Any]:
    """Shares of held-out images, or of their labels or pixels, for which two models choose the same."""
    held, layout = run.held_out(), record["teacher"]["layout"]
    answers = partial(logits, images=fed(held.images(), layout), layout=layout)
    student = answers(run.student_onnx)
    found = {"student_teacher": agreement(student, held.logits, held.task)}
    if int8:
        quantized = answers(run.student_int8_onnx)
        found["student_int8_teacher"] = agreement(quantized, held.logits, held.task)
        found["student_int8_student"] = agreement(quantized, student, held.task)
    return found
