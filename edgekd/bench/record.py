"""The record `edgekd.bench/1`: what was measured, of which files, on which machine.

schema, tool, measured (ISO UTC), target, environment
protocol   order, cap_seconds, agreement_images, and the target's own numbers
models     per label:
    file, sha256, bytes, gzip_bytes, parameters, macs, batch, inputs
    latency_ms   p50, p50_interval (95 %, or null), p90, p95, p99 (or null), min, samples, processes
    load_ms, first_run_ms                  medians over processes
    memory_bytes peak, added, baseline     highest over processes; `added` is the peak over what imports took
    agreement    with the class or the labels that the teacher chooses on held-out generated images, or null
    samples_us   per process, thinned to at most 1000, rounded to 0.1 µs
ratios     "student.int8/teacher" and the like: bytes, gzip_bytes, parameters, macs, p50, load, peak_memory;
           null where one side is unknown, and for p50 where the files fix different batches
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onnx import ModelProto

import edgekd
from edgekd import onnx_file
from edgekd.bench.local import CAP_SECONDS, Measurement, Request
from edgekd.bench.statistics import Samples, median_interval, p99, quantile, thinned
from edgekd.config import Target

SCHEMA = "edgekd.bench/1"
KEPT_SAMPLES = 1000
PAIRS = (("student", "teacher"), ("student.int8", "teacher"), ("student.int8", "student"))


def file_facts(model: ModelProto, request: Request) -> dict[str, Any]:
    """What a file tells without running: identity, sizes, parameters, multiply-accumulates of one image, inputs."""
    path, inputs = Path(request.model), request.inputs
    return {
        "file": path.name,
        "sha256": onnx_file.model_sha256(path),
        "bytes": onnx_file.size(path),
        "gzip_bytes": onnx_file.gzip_size(path),
        "parameters": onnx_file.parameters(model),
        "macs": onnx_file.macs(model, inputs[0].shape[1:] if inputs else None),
        "batch": inputs[0].shape[0] if inputs and inputs[0].shape else 1,
        "inputs": [dataclasses.asdict(spec) | {"shape": list(spec.shape)} for spec in inputs],
    }


def times_and_memory(found: Sequence[Measurement]) -> dict[str, Any]:
    """One model's measurements, summed up over its processes."""
    return {
        "latency_ms": _latency([m.samples_ns for m in found]),
        "load_ms": _ms(median(m.load_ns for m in found)),
        "first_run_ms": _ms(median(m.first_ns for m in found)),
        "memory_bytes": {
            "peak": max(m.peak_bytes for m in found),
            "added": max(m.peak_bytes - m.baseline_bytes for m in found),
            "baseline": max(m.baseline_bytes for m in found),
        },
        "samples_us": [[round(ns / 1000, 1) for ns in thinned(m.samples_ns, KEPT_SAMPLES).tolist()] for m in found],
    }


def _ms(nanoseconds: float) -> float:
    return round(nanoseconds / 1e6, 6)


def _latency(processes: Sequence[Samples]) -> dict[str, Any]:
    pooled = np.concatenate(processes)
    interval, tail = median_interval(processes), p99(pooled)
    return {
        "p50": _ms(quantile(pooled, 50)),
        "p50_interval": [_ms(end) for end in interval] if interval else None,
        "p90": _ms(quantile(pooled, 90)),
        "p95": _ms(quantile(pooled, 95)),
        "p99": _ms(tail) if tail is not None else None,
        "min": _ms(float(pooled.min())),
        "samples": len(pooled),
        "processes": len(processes),
    }


def assemble(
    entries: Mapping[str, dict[str, Any]], target: Target, environment: dict[str, Any], agreement_images: int
) -> dict[str, Any]:
    """The whole record."""
    return {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": edgekd.__version__},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": target.model_dump(by_alias=True),
        "environment": environment,
        "protocol": {
            "order": "interleaved",
            "cap_seconds": CAP_SECONDS,
            "agreement_images": agreement_images,
            **target.bench.model_dump(),
        },
        "models": dict(entries),
        "ratios": {f"{a}/{b}": _ratios(entries[a], entries[b]) for a, b in PAIRS if a in entries and b in entries},
    }


def _ratios(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float | None]:
    top, bottom = _amounts(one), _amounts(other)
    if one["batch"] != other["batch"]:
        top["p50"] = None
    return {key: _quotient(top[key], bottom[key]) for key in top}


def _amounts(entry: dict[str, Any]) -> dict[str, float | None]:
    counted = {key: entry[key] for key in ("bytes", "gzip_bytes", "parameters", "macs")}
    times = {"p50": entry["latency_ms"]["p50"], "load": entry["load_ms"]}
    return counted | times | {"peak_memory": entry["memory_bytes"]["peak"]}


def _quotient(top: float | None, bottom: float | None) -> float | None:
    return top / bottom if top is not None and bottom else None
