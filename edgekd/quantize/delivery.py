"""From a float file to what a target is given: made aside, proven, and put in place only if it is worth having."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekd.devices import CalibrationRecipe, Target
from edgekd.errors import BadSetting
from edgekd.quantize.coverage import coverage
from edgekd.quantize.ort_format import converted
from edgekd.quantize.proof import Held, Stopwatch, objections, rows
from edgekd.quantize.samples import Source
from edgekd.quantize.search import Tuning
from edgekd.quantize.static import Outcome, Wishes, half_precision, quantized
from edgekd.run_folder import atomic, scratch

MAX_DROP = 0.05
"""Share of answers on generated samples that may change unless one says otherwise. These samples lie nearer to the
borders between classes than real ones: on the demo's student INT8 changes 2 % of them, and its accuracy by 0.1 points.
"""
QAT_STEPS = 600
Precision = Literal["int8", "fp16"]


@dataclass(frozen=True)
class Terms:
    """On what terms a file is made.

    Attributes:
        max_drop: share of answers that may change.
        force: put it in place even if it is worse or slower than float.
        stopwatch: measures latency, where the target is at hand.
        cache: file of ranges.
        others: recipes to try besides the first.
        real: real samples, and `real_share` their part in the calibration.
        qat: steps of quantization-aware distillation, of a run; None: `QAT_STEPS`, only where all else is not enough;
            0: none.
        bill: write a bill of materials beside the files.
    """

    max_drop: float = MAX_DROP
    force: bool = False
    stopwatch: Stopwatch | None = None
    cache: Path | None = None
    others: tuple[CalibrationRecipe, ...] = ()
    real: Path | None = None
    real_share: float = 0.5
    qat: int | None = None
    bill: bool = False


@dataclass(frozen=True)
class Order:
    """What to make of a float model.

    Attributes:
        target: the device.
        precision: int8 or fp16.
        terms: on what terms.
        recipe: how ranges are found, for INT8.
        calibration: samples to find ranges on.
        judged_on: other samples, to choose recipes and remedies by; None: take the first recipe.
        held: further ones, for the proof.
        reference: samples for the report on coverage, and what they are called; None: no report.
        metadata: provenance for the file.
        tuning: what fine-tunes where all else is not enough; None: nothing does.
    """

    target: Target
    precision: Precision
    held: Held
    terms: Terms = Terms()
    recipe: CalibrationRecipe | None = None
    calibration: Source | None = None
    judged_on: Source | None = None
    reference: tuple[Source, str] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tuning: Tuning | None = None


@dataclass(frozen=True)
class Delivery:
    """What came of it.

    Attributes:
        file: `path`, `sha256`, `bytes`; None where float was kept.
        extra: the same of an .ort file beside it, if the target wants one.
        quantization: the record of `edgekd.quantize.static.quantized`; None for fp16.
        proof: the table of `edgekd.quantize.proof.rows`.
        coverage: the report of `edgekd.quantize.coverage`.
        warnings: for the user.
    """

    file: dict[str, Any] | None
    extra: dict[str, Any] | None
    quantization: dict[str, Any] | None
    proof: list[dict[str, Any]]
    coverage: dict[str, Any] | None
    warnings: list[str]

    def files(self, name: str) -> dict[str, dict[str, Any]]:
        """What was written, by a name and, of the .ort file, that name with `_ort`."""
        found = {name: self.file, f"{name}_ort": self.extra}
        return {key: value for key, value in found.items() if value is not None}


def require_precision(target: Target, precision: Precision) -> None:
    """Refuse to make what a target does not run well.

    Raises:
        BadSetting: says why, and what it takes.
    """
    reason = {"int8": target.quantization.int8_refused, "fp16": target.quantization.fp16_refused}[precision]
    if reason:
        flag = {"int8": " --int8", "fp16": " --fp16", "fp32": ""}[target.quantization.precision]
        allowed = f"edgekd export{flag} --target {target.name}"
        raise BadSetting(f"not for target {target.name}: {reason}", where=f"--{precision}", allowed=allowed)


def deliver(float_model: Path, out: Path, order: Order) -> Delivery:
    """Make a target's version of a float model, and put it in place unless float is the better one.

    Args:
        float_model: the float file.
        out: where the new one goes, whole or not at all.
        order: what to make.

    Raises:
        BadSetting: the target is none for this precision.
        BadModel, BadData, EdgekdError: as `edgekd.quantize.static.quantized` does.
    """
    require_precision(order.target, order.precision)
    with scratch() as folder:
        made = folder / out.name
        outcome, file = _made(float_model, made, order)
        label = order.precision if outcome is None or not outcome.candidate.in_float else "mixed"
        table = rows({"float": float_model, label: made}, order.held, order.terms.stopwatch)
        against = objections(table, order.terms.max_drop)
        report = _coverage(outcome, order)
        kept = not against or order.terms.force
        extra = None
        if kept:
            extra = converted(made, out.with_suffix(".ort"), order.target)
            with atomic(out) as target:
                target.write(made.read_bytes())
    quantization = {key: value for key, value in outcome.record.items() if key not in file} if outcome else None
    warnings = [*(outcome.warnings if outcome else []), *_warnings(against, kept, order)]
    return Delivery(file if kept else None, extra, quantization, table, report, warnings)


def _made(float_model: Path, made: Path, order: Order) -> tuple[Outcome | None, dict[str, Any]]:
    target = order.target
    if order.precision == "fp16":
        return None, half_precision(float_model, made, limits=target.model, metadata=order.metadata)
    if order.calibration is None or order.recipe is None:
        raise BadSetting("INT8 needs samples to calibrate on", where="--int8", hint="give --generator or --samples")
    wishes = Wishes(
        judged_on=order.judged_on,
        allowed=order.terms.max_drop,
        task=order.held.task,
        layout=order.held.layout,
        cache=order.terms.cache,
        others=order.terms.others,
        tuning=order.tuning,
    )
    outcome = quantized(
        float_model,
        made,
        order.calibration,
        quantization=target.quantization,
        recipe=order.recipe,
        metadata=order.metadata,
        limits=target.model,
        wishes=wishes,
    )
    return outcome, {key: outcome.record[key] for key in ("path", "sha256", "bytes")}


def _coverage(outcome: Outcome | None, order: Order) -> dict[str, Any] | None:
    if outcome is None or order.reference is None or order.calibration is None:
        return None
    reference, name = order.reference
    flavour = order.target.quantization
    return coverage(outcome.float_model, flavour, order.calibration, reference, name, outcome.histograms)


def _warnings(against: list[str], kept: bool, order: Order) -> list[str]:
    if not against:
        return []
    said = f"{order.precision} on target {order.target.name}: {'; '.join(against)}"
    if kept:
        return [f"{said}; written because of --force"]
    return [f"{said}; float is kept; to have it all the same: --force"]
