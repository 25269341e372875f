"""The quantized file: found, proven, written; equal inputs give equal bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from edgekd import onnx_file
from edgekd.devices import CalibrationRecipe, ModelLimits, Quantization
from edgekd.errors import BadData, EdgekdError
from edgekd.inference import Floats, open_session
from edgekd.quantize import cache
from edgekd.quantize.half import halved
from edgekd.quantize.histogram import Histogram
from edgekd.quantize.insertion import float_nodes, reasons
from edgekd.quantize.judging import Judge
from edgekd.quantize.preparation import checked, fixed_shapes, prepared
from edgekd.quantize.samples import Source, Stored, digest
from edgekd.quantize.search import Candidate, Search, Tuning
from edgekd.quiet import quiet
from edgekd.run_folder import atomic, scratch
from edgekd.tasks import Task


@dataclass(frozen=True)
class Wishes:
    """What is asked of a quantization beyond the target's flavour and a recipe.

    Attributes:
        judged_on: samples to judge by, other than those to calibrate on; None: take the first recipe unseen.
        allowed: the drop at which remedies stop, see `edgekd.quantize.judging.Fidelity`.
        task, layout: how answers are read.
        cache: a file of ranges to read, or to write where it is missing.
        others: recipes to try besides the first.
        tuning: what fine-tunes where all else is not enough.
    """

    judged_on: Source | None = None
    allowed: float = 1.0
    task: Task = "classes"
    layout: str = "NCHW"
    cache: Path | None = None
    others: Sequence[CalibrationRecipe] = ()
    tuning: Tuning | None = None


@dataclass(frozen=True)
class Outcome:
    """What a quantization found, beyond the file.

    Attributes:
        record: for export.json.
        float_model: after pre-processing.
        histograms: of its activations; empty where a cache told their ranges.
        candidate: what was written, without notes.
        warnings: for the user.
    """

    record: dict[str, Any]
    float_model: ModelProto
    candidate: Candidate
    histograms: dict[str, Histogram] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def quantized(
    float_model: Path,
    out: Path,
    samples: NDArray[np.float32] | Source,
    *,
    quantization: Quantization,
    recipe: CalibrationRecipe,
    metadata: dict[str, str],
    limits: ModelLimits | None = None,
    wishes: Wishes | None = None,
) -> Outcome:
    """Write the INT8 version of a float model.

    Args:
        float_model: a model of one image or sequence of token ids; the opset is kept, the IR version where the target
            reads it.
        out: the file to write, whole or not at all.
        samples: float32 `[N, ...]`, as the model's input wants them, to calibrate on.
        quantization: the target's flavour.
        recipe: how ranges are found.
        metadata: provenance to write into the file, beside what this function knows itself.
        limits: of the target's runtime.
        wishes: what else is asked.

    Returns:
        The outcome. Its record holds the file (`path`, `sha256`, `bytes`), `flavour`, `recipe`, `samples` (count,
        sha256), `float_nodes` (how many nodes of which operator still compute in float), `float_reasons`, and where it
        was judged `steps`, `judged_on` (count), `fidelity`, `sensitivity`; and `quantization_aware`, how it was
        fine-tuned, or None.

    Raises:
        BadModel: not a float model with one input and something to quantize, or above the target's opset.
        BadData: samples that do not fit it, hold NaN or infinity, or are too few for the recipe; a cache of something
            else.
        EdgekdError: ONNX Runtime failed, or the disk is full.
    """
    limits, wishes = limits or ModelLimits(opset_ceiling=23), wishes or Wishes()
    source = samples if not isinstance(samples, np.ndarray) else Stored(np.ascontiguousarray(samples))
    model = checked(float_model, limits)
    recipes = [recipe, *wishes.others]
    sample_digest = checked_samples(source, onnx_file.real_inputs(model)[0], recipes)
    key = cache.key_of(onnx_file.model_sha256(float_model), sample_digest, recipe, quantization)
    known = cache.read(wishes.cache, key) if wishes.cache else None
    ready = prepared(model, float_model)
    search = _searching(ready, source, quantization, wishes)
    best = _best(search, recipes, wishes, known, float_model)
    if wishes.cache and known is None:
        cache.write(wishes.cache, key, search.ranges(search.histograms, recipe))  # not of an equalized model
    own = {
        "edgekd.calibration": _compact(best.recipe.model_dump(exclude={"title"}, by_alias=True)),
        "edgekd.calibration.samples": f"{len(source)} sha256:{sample_digest}",
        "edgekd.float.sha256": onnx_file.sha256(float_model),
        "edgekd.quantization": _compact({"format": "QDQ", **_flavour(quantization)}),
    }
    if best.in_float:
        own["edgekd.in_float"] = ",".join(sorted(best.in_float))
    if best.tuned and wishes.tuning is not None:
        own["edgekd.quantization_aware"] = _compact(dict(wishes.tuning.told))
    file = written(best.model, out, onnx_file.metadata(model) | metadata | own, model, limits)
    record: dict[str, Any] = {
        **file,
        "flavour": {"format": "QDQ", **_flavour(quantization)},
        "recipe": best.recipe.model_dump(by_alias=True),
        "samples": {"count": len(source), "sha256": sample_digest},
        "float_nodes": float_nodes(best.model),
        "float_reasons": reasons(best.model, quantization, best.in_float),
        "quantization_aware": dict(wishes.tuning.told) if best.tuned and wishes.tuning is not None else None,
    }
    return Outcome(record | _judgement(search, best), ready, best, search.histograms, search.warnings)


def half_precision(float_model: Path, out: Path, *, limits: ModelLimits, metadata: dict[str, str]) -> dict[str, Any]:
    """Write the float16 version of a float model; input and output stay float32.

    Returns:
        `path`, `sha256` and `bytes` of the file.

    Raises:
        BadModel, EdgekdError: as `quantized` does.
    """
    model = checked(float_model, limits)
    half = halved(model, float_model)
    own = {"edgekd.float.sha256": onnx_file.sha256(float_model), "edgekd.precision": "fp16"}
    return written(half, out, onnx_file.metadata(model) | metadata | own, model, limits)


def written(
    model: ModelProto, out: Path, notes: dict[str, str], original: ModelProto, limits: ModelLimits
) -> dict[str, Any]:
    """Write a model within a target's limits once ONNX Runtime has loaded it; `path`, `sha256`, `bytes`."""
    try:
        ready = fixed_shapes(model, out) if limits.static_shapes else model
        ready.ir_version = min(original.ir_version, limits.ir_version)
        onnx_file.tidy(ready)
        onnx.checker.check_model(ready, full_check=True)
    except EdgekdError:
        raise
    except Exception as error:
        raise EdgekdError(f"what was made is no valid model: {onnx_file.first_line(error)}", where=out) from error
    onnx_file.set_metadata(ready, notes)
    content = ready.SerializeToString(deterministic=True)
    with scratch() as folder, quiet():
        proof = folder / "proof.onnx"
        proof.write_bytes(content)
        open_session(proof)
    with atomic(out) as file:
        file.write(content)
    return {"path": out.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _searching(ready: ModelProto, source: Source, flavour: Quantization, wishes: Wishes) -> Search:
    judged = wishes.judged_on
    judge = Judge(ready, judged, wishes.task, wishes.layout) if judged is not None and len(judged) else None
    return Search(ready, source, flavour, judge, wishes.tuning)


def _best(search: Search, recipes: list[CalibrationRecipe], wishes: Wishes, known: Any, float_model: Path) -> Candidate:
    try:
        with quiet():
            return search.run(recipes, wishes.allowed, known)
    except EdgekdError:
        raise
    except Exception as error:
        what = f"ONNX Runtime cannot quantize it: {onnx_file.first_line(error)}"
        raise EdgekdError(what, where=float_model) from error


def _judgement(search: Search, best: Candidate) -> dict[str, Any]:
    if search.judge is None:
        return {}
    ranked = [
        {"node": one.node, "operator": one.operator, "sqnr_db": round(one.fidelity.sqnr_db, 2)}
        for one in search.sensitivity
    ]
    return {
        "judged_on": len(search.judge),
        "fidelity": {"agreement": best.fidelity.agreement, "sqnr_db": round(best.fidelity.sqnr_db, 2)},
        "steps": [step.record() for step in search.steps],
        "sensitivity": ranked,
    }


def _flavour(quantization: Quantization) -> dict[str, Any]:
    """What of it shapes the file."""
    return quantization.model_dump(exclude={"precision", "int8_refused", "fp16_refused"}, mode="json")


def _compact(record: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in record.items() if value is not None}, separators=(",", ":"))


def checked_samples(source: Source, entry: onnx.ValueInfoProto, recipes: Sequence[CalibrationRecipe]) -> str:
    """The samples' sha256.

    Raises:
        BadData: of another type or shape than the input, too few for a recipe, or holding NaN or infinity.
    """
    where, expected = "calibration samples", onnx_file.dimensions(entry)
    name, least = max(((r.name, r.minimum) for r in recipes), key=lambda pair: pair[1])
    least = max(least, (expected or [None])[0] or 1)
    if len(source) < least:
        raise BadData(f"{len(source)} are too few for recipe {name}", where=where, allowed=f"at least {least}")
    wanted, bad = (expected or [])[1:], 0

    def checked_parts() -> Iterator[Floats]:
        nonlocal bad
        for part in source.parts():
            if part.dtype != np.float32:
                raise BadData(f"dtype {part.dtype}", where=where, allowed="float32")
            given = part.shape[1:]
            fits = len(wanted) == len(given) and all(w in (None, g) for w, g in zip(wanted, given, strict=True))
            if expected is not None and not fits:
                raise BadData(f"shape {list(given)} does not fit input {entry.name}", where=where, allowed=str(wanted))
            bad += int((~np.isfinite(part.reshape(len(part), -1))).any(axis=1).sum())
            yield part

    found = digest(checked_parts())  # in one pass: a generator makes its images anew on each
    if bad:
        hint = "distil again with another --seed"
        raise BadData(f"{bad} of {len(source)} hold NaN or infinity", where=where, hint=hint)
    return found
