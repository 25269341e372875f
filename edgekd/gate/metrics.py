"""What can be limited: where each metric's value is found, for the model, its teacher and a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgekd import onnx_file, units
from edgekd.baseline import Entry
from edgekd.gate.evidence import Evidence

Unit = Literal["B", "ms", "", "share"]
Source = Literal["model", "bench", "samples", "evaluation"]

READERS: dict[Unit, Callable[[object], float]] = {
    "B": units.read_size,
    "ms": units.read_time,
    "": units.read_count,
    "share": units.read_share,
}


@dataclass(frozen=True)
class Metric:
    """One quantity.

    Attributes:
        unit: "B" (bytes), "ms", "" (a count) or "share".
        source: which file the model's own value comes from.
        actual: of the model.
        teacher: of its teacher, where that means anything.
        at: keys of the value in an entry of a bench record, for the baseline's.
        more_is_better: agreement and accuracy have a least value, all else a greatest.
        timed: it varies from run to run, so that only an interval can tell whether it changed.
    """

    unit: Unit
    source: Source
    actual: Callable[[Evidence], float]
    at: tuple[str, ...]
    teacher: Callable[[Evidence], float] | None = None
    more_is_better: bool = False
    timed: bool = False

    def of_entry(self, entry: Entry) -> object:
        """The value in an entry of a bench record; None where it is missing."""
        value: object = entry
        for key in self.at:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def _of_file(unit: Unit, key: str, actual: Callable[[Evidence], float], teacher: Callable[[Evidence], float]) -> Metric:
    return Metric(unit, "model", actual, (key,), teacher)


def _measured(unit: Unit, *keys: str, timed: bool = True) -> Metric:
    return Metric(unit, "bench", lambda e: e.measurement(*keys), keys, lambda e: e.of_teacher(*keys), timed=timed)


METRICS: dict[str, Metric] = {
    "size": _of_file("B", "bytes", lambda e: onnx_file.size(e.file), lambda e: e.recorded_of_teacher("bytes")),
    "gzip_size": _of_file(
        "B", "gzip_bytes", lambda e: onnx_file.gzip_size(e.file), lambda e: e.of_teacher("gzip_bytes")
    ),
    "parameters": _of_file(
        "", "parameters", lambda e: onnx_file.parameters(e.model), lambda e: e.recorded_of_teacher("parameters")
    ),
    "macs": _of_file("", "macs", lambda e: e.macs(), lambda e: e.of_teacher("macs")),
    "p50": _measured("ms", "latency_ms", "p50"),
    "p90": _measured("ms", "latency_ms", "p90"),
    "memory": _measured("B", "memory_bytes", "peak", timed=False),
    "load": _measured("ms", "load_ms"),
    "fallback": Metric("share", "bench", lambda e: e.measurement("fallback"), ("fallback",)),
    "agreement": Metric("share", "samples", lambda e: e.agreement(), ("agreement",), more_is_better=True),
    "accuracy": Metric(
        "share",
        "evaluation",
        lambda e: e.accuracy(),
        ("accuracy",),
        lambda e: e.teacher_accuracy(),
        more_is_better=True,
    ),
}
