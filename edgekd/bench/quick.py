"""A short measurement side by side, for an export that has to know whether its file is the faster one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime

from edgekd.bench.protocol import bench
from edgekd.bench.where import foreign
from edgekd.devices import Protocol, Target
from edgekd.errors import EdgekdError

_SHORT = Protocol(processes=3, warmup_runs=5, warmup_seconds=0.1, runs=50, seconds=0.3)


def not_here(target: Target) -> str:
    """Why a time measured on this machine would be none of the target's; empty if it would."""
    provider = target.runtime.provider
    if target.runner.kind != "local":
        return f"its runner is {target.runner.kind}"
    if provider not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {provider}"
    return foreign(target.machine)


def stopwatch(target: Target) -> Callable[[Mapping[str, Path]], dict[str, float]]:
    """A function that measures models by label: median latency in ms; empty where one of them cannot be measured."""

    def measured(models: Mapping[str, Path]) -> dict[str, float]:
        short = target.model_copy(update={"bench": _SHORT})
        try:
            record = bench(models, short)
        except EdgekdError:  # a free dimension, say: an export does without times
            return {}
        if record["not_measured"]:
            return {}
        return {label: entry["latency_ms"]["p50"] for label, entry in record["models"].items()}

    return measured
