"""The machine a measurement was made on: what must be equal for two records to be comparable."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

ISA = ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
"""Instruction sets that decide how fast INT8 and float kernels run, by their names in /proc/cpuinfo."""

_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def processor(cpuinfo: str) -> tuple[str, list[str]]:
    """Model name and instruction sets of interest from the text of Linux's /proc/cpuinfo (x86 or ARM)."""
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    has = set((facts.get("flags") or facts.get("Features") or "").split())
    part = " ".join(facts[key] for key in ("CPU implementer", "CPU part") if key in facts)
    name = facts.get("model name") or facts.get("Model") or part
    return name or platform.processor() or platform.machine(), [isa for isa in ISA if isa in has]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def fingerprint() -> dict[str, Any]:
    """CPU, instruction sets, cores, governor, system and versions, and how loaded the machine was."""
    name, isa = processor(_text(_CPUINFO))
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": name,
        "isa": isa,
        "cores": os.cpu_count(),
        "cores_allowed": allowed,
        "governor": _text(_GOVERNOR) or None,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }
