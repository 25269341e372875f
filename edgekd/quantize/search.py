"""From a float model to the INT8 one worth having: recipes tried, remedies where INT8 hurts, each measured.

    recipe                      every one that is to be tried; the closest to the float model stays
    cross-layer equalization    if still too far off: weights, or activations where weights have a scale per channel
    bias correction             if still too far off
    mixed precision             if still too far off: the costliest layers stay in float, as few as will do
    quantization-aware          if that too is too far off or leaves most layers in float, or where it was asked for:
    distillation                weights learn to be rounded (torch does it, so it comes from outside)

A remedy stays only if it brings the answers closer. Labels are not needed: the reference is the float model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekd.devices import CalibrationRecipe, Quantization
from edgekd.errors import EdgekdError
from edgekd.quantize import bias, equalization
from edgekd.quantize.histogram import Histogram
from edgekd.quantize.insertion import float_nodes, inserted, levels, quantizable
from edgekd.quantize.judging import Fidelity, Judge
from edgekd.quantize.observation import observe, runs
from edgekd.quantize.ranges import Range, bins_of, tensor_ranges
from edgekd.quantize.samples import Source, Stored, batches
from edgekd.quantize.sensitivity import Sensitivity, fewest, sensitivities

_FEW = 256  # samples for means and for the extremes of channels
_TRIED_BINS = 4096  # the same histograms serve all recipes that are tried
Quantize = Callable[[ModelProto], ModelProto]


@dataclass(frozen=True)
class Tuning:
    """Quantization-aware fine-tuning.

    Attributes:
        tuned: makes of a float model, and of what quantizes it, the fine-tuned float model.
        asked: whether it is to be tried even where cheaper steps will do.
        told: what to write down of it: `steps`, `examples`, `taught_by`.
    """

    tuned: Callable[[ModelProto, Quantize], ModelProto]
    asked: bool
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One thing tried: what it was, how close it came, and whether it stayed."""

    name: str
    agreement: float | None
    sqnr_db: float
    float_nodes: int
    kept: bool

    def record(self) -> dict[str, Any]:
        """As it goes into export.json, decibels to two decimals."""
        return asdict(self) | {"sqnr_db": round(self.sqnr_db, 2)}


@dataclass(frozen=True)
class Candidate:
    """A way to quantize, built and judged.

    Attributes:
        base: the float model it was made from, equalized or not.
        ranges: of its activations, and `recipe` by which.
        in_float: names of nodes left in float.
        model: the quantized one, `fidelity` how close it is.
        corrected: its biases were; `tuned`: its weights were fine-tuned.
    """

    base: ModelProto
    ranges: Mapping[str, Range]
    recipe: CalibrationRecipe
    in_float: tuple[str, ...]
    model: ModelProto
    fidelity: Fidelity
    corrected: bool = False
    tuned: bool = False


@dataclass
class Search:
    """One search for a target's INT8 model.

    Attributes:
        prepared: the float model, see `edgekd.quantize.preparation`.
        source: samples to calibrate on.
        flavour: the target's.
        judge: of the float model's answers, on other samples; None: nothing is measured, and the first recipe it is.
        tuning: what fine-tunes, if anything does.
        steps: what was tried.
        sensitivity: of every node, the costliest first, where mixed precision was tried.
        histograms: of the float model's activations.
        warnings: for the user.
    """

    prepared: ModelProto
    source: Source
    flavour: Quantization
    judge: Judge | None
    tuning: Tuning | None = None
    steps: list[Step] = field(default_factory=list)
    sensitivity: list[Sensitivity] = field(default_factory=list)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def run(self, recipes: Sequence[CalibrationRecipe], allowed: float, known: Mapping[str, Range] | None) -> Candidate:
        """The closest INT8 model that was found.

        Args:
            recipes: to choose from, at least one.
            allowed: the drop at which remedies stop.
            known: ranges found earlier by the one recipe; nothing is observed then.
        """
        best = self._by_recipe(recipes, known)
        for remedy in (self._equalized, self._corrected, self._mixed):
            if self.judge is None or best.fidelity.drop <= allowed:
                break
            best = remedy(best, allowed)
        return best if self.judge is None else self._tuned(best, allowed)

    # ------------------------------------------------------------------------------------------------- recipes

    def _by_recipe(self, recipes: Sequence[CalibrationRecipe], known: Mapping[str, Range] | None) -> Candidate:
        bins = max(map(bins_of, recipes)) if len(recipes) == 1 else _TRIED_BINS
        if known is None:
            self.histograms = self._observed(self.prepared, bins)
        best: Candidate | None = None
        for recipe in recipes:
            ranges = known if known is not None else self.ranges(self.histograms, recipe)
            tried = self._built(self.prepared, ranges, recipe)
            best = self._kept(f"calibration {recipe.name}", tried, best)
        assert best is not None
        return best

    def _observed(self, model: ModelProto, bins: int) -> dict[str, Histogram]:
        return observe(model, self.source, quantizable(self.flavour), bins)

    def ranges(self, histograms: Mapping[str, Histogram], recipe: CalibrationRecipe) -> dict[str, Range]:
        """By a recipe, for the target's number of levels and symmetry."""
        symmetric = self.flavour.activation_symmetric
        return tensor_ranges(histograms, recipe, levels=levels(self.flavour), symmetric=symmetric)

    def _built(
        self, base: ModelProto, ranges: Mapping[str, Range], recipe: CalibrationRecipe, in_float: Sequence[str] = ()
    ) -> Candidate:
        model = inserted(base, ranges, self.flavour, in_float=in_float)
        return Candidate(base, ranges, recipe, tuple(in_float), model, self._judged(model))

    def _judged(self, model: ModelProto) -> Fidelity:
        return Fidelity(None, 0.0) if self.judge is None else self.judge(model)

    # ------------------------------------------------------------------------------------------------ remedies

    def _equalized(self, best: Candidate, _: float) -> Candidate:
        found = equalization.pairs(best.base)
        if not found:
            return best
        extremes = self._extremes([pair.between for pair in found]) if self.flavour.per_channel else None
        base = equalization.equalized(best.base, found, extremes)
        ranges = self._again(base, best)
        name = f"cross-layer equalization of {'weights' if extremes is None else 'activations'}"
        return self._kept(name, self._built(base, ranges, best.recipe), best)

    def _extremes(self, names: list[str]) -> dict[str, NDArray[np.float32]]:
        """The largest magnitude in every channel of some activations."""
        found: dict[str, NDArray[np.float32]] = {}
        for values in runs(self.prepared, self._some(), names):
            for name in names:
                value = np.abs(values[name])
                largest = value.max(axis=(0, *range(2, value.ndim)))
                found[name] = np.maximum(found.get(name, largest), largest)
        return found

    def _corrected(self, best: Candidate, _: float) -> Candidate:
        model = bias.corrected(best.model, best.base, self._some())
        if model == best.model:  # no layer has a bias
            return best
        tried = replace(best, model=model, fidelity=self._judged(model), corrected=True)
        return self._kept("bias correction", tried, best)

    def _mixed(self, best: Candidate, allowed: float) -> Candidate:
        assert self.judge is not None
        self.sensitivity = sensitivities(best.base, best.ranges, self.flavour, self.judge)
        found = fewest([one.node for one in self.sensitivity], self._builder(best), self.judge, allowed)
        if found is None:
            return best
        names, model, fidelity = found
        tried = replace(best, in_float=tuple(names), model=model, fidelity=fidelity)
        return self._kept("mixed precision", tried, best)

    def _builder(self, best: Candidate) -> Callable[[list[str]], ModelProto]:
        some = self._some() if best.corrected else None

        def build(names: list[str]) -> ModelProto:
            model = inserted(best.base, best.ranges, self.flavour, in_float=names)
            return model if some is None else bias.corrected(model, best.base, some)

        return build

    def _tuned(self, best: Candidate, allowed: float) -> Candidate:
        """All in INT8 again, with weights that learned it; instead of a mixture that will do only if it will do too."""
        if self.tuning is None:
            return best
        mostly_float = 2 * len(best.in_float) > len(self.sensitivity)
        if not (self.tuning.asked or best.fidelity.drop > allowed or mostly_float):
            return best
        try:
            base = self.tuning.tuned(best.base, lambda model: inserted(model, self._again(model, best), self.flavour))
        except EdgekdError as error:
            if self.tuning.asked:
                raise
            self.warnings.append(f"quantization-aware distillation was left out: {error}")
            return best
        tried = replace(self._built(base, self._again(base, best), best.recipe), tuned=True)
        instead = bool(best.in_float) and tried.fidelity.drop <= allowed
        return self._kept("quantization-aware distillation", tried, best, instead=instead)

    def _again(self, model: ModelProto, best: Candidate) -> dict[str, Range]:
        """The ranges of a changed model, by the recipe that was chosen."""
        return self.ranges(self._observed(model, bins_of(best.recipe)), best.recipe)

    # ------------------------------------------------------------------------------------------------- shared

    def _some(self) -> Source:
        return Stored(next(batches(self.source, min(_FEW, len(self.source)))))

    def _kept(self, name: str, tried: Candidate, best: Candidate | None, *, instead: bool = False) -> Candidate:
        """The better one, or the one tried `instead`; what was tried is written down."""
        kept = best is None or instead or tried.fidelity.better_than(best.fidelity)
        if kept and best is not None and name.startswith("calibration"):
            self.steps = [replace(step, kept=False) for step in self.steps]
        left = sum(float_nodes(tried.model).values())
        if self.judge is not None:
            told = tried.fidelity
            self.steps.append(Step(name, told.agreement, told.sqnr_db, left, kept))
        return tried if kept or best is None else best
