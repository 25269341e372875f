"""A short measurement side by side, for an export that has to know whether its file is the faster one."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime

from edgekd.bench.protocol import bench
from edgekd.config import Protocol, Target
from edgekd.errors import EdgekdError

_SHORT = Protocol(processes=3, warmup_runs=5, warmup_seconds=0.1, runs=50, seconds=0.3)
_CPUINFO = Path("/proc/cpuinfo")
_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


def not_here(target: Target) -> str:
    """Why a time measured on this machine would be none of the target's; empty if it would."""
    wanted, provider = target.machine, target.runtime.provider
    if provider not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {provider}"
    found = _NAMES.get(platform.machine().lower(), platform.machine().lower())
    if wanted.architecture not in ("any", found):
        return f"this machine is {found}, the target {wanted.architecture}"
    flags = _flags()
    lacking = [flag for flag in wanted.flags if flag not in flags]
    if lacking:
        return f"this CPU lacks {', '.join(lacking)}"
    beyond = [flag for flag in wanted.flags_absent if flag in flags]
    return f"this CPU has {', '.join(beyond)}, the target has not" if beyond else ""


def _flags() -> set[str]:
    try:
        text = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return {flag for key, _, value in lines if key.strip() in ("flags", "Features") for flag in value.split()}


def stopwatch(
    target: Target, input_shape: tuple[int, ...] | None = None
) -> Callable[[Mapping[str, Path]], dict[str, float]]:
    """A function that measures models by label: median latency in ms; empty where one of them cannot be measured."""

    def measured(models: Mapping[str, Path]) -> dict[str, float]:
        short = target.model_copy(update={"bench": _SHORT})
        try:
            record = bench(models, short, input_shape=input_shape)
        except EdgekdError:  # a free dimension, say: an export does without times
            return {}
        return {label: entry["latency_ms"]["p50"] for label, entry in record["models"].items()}

    return measured
