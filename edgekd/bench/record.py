"""The record `edgekd.bench/1`: what was measured, of which files, on which machine.

schema, tool, measured (ISO UTC), target, environment
simulated      true where times are those of a simulator or emulator, and say nothing about the device
not_measured   null, or why nothing could be run: then times and memory are null
protocol   order, cap_seconds, agreement_images, and the target's own numbers
models     per label:
    file, sha256, bytes, gzip_bytes, parameters, macs, batch, inputs
    latency_ms   p50, p50_interval (95 %, or null), p90, p95, p99 (or null), min, samples, processes
    load_ms, first_run_ms                  medians over processes
    memory_bytes peak, added, baseline     highest over processes; `added` is the peak over what imports took
    agreement    with the class or the labels that the teacher chooses on held-out generated images, or null
    accuracy     from the evaluation of this very file, where there is one
    fallback     share of nodes that another provider than the target's runs, or null where nobody looked
    placement    provider to {nodes, macs}, and the nodes that fell back; only where it was asked for
    difference   from what ONNX Runtime's CPU kernels answer here to one random input: largest absolute, and relative to
                 the largest answer; only where a placement was asked for
    apart        of students exported by `--split`: `students`, and `one_by_one` and `parallel` as latency_ms: one after
                 the other on one thread, and a thread for each; each time with the head that joins them
    instructions of one inference, and the share of it that is uncertain; only under an emulator, and asked for
    operators    per operator {operator, nodes, us, share} and the nodes themselves; only where it was asked for
    processes    per process: load_ms, first_run_ms, warmup_runs, stable, peak_bytes
    samples_us   per process, thinned to at most 1000, rounded to 0.1 µs
ratios     "student.int8/teacher" and the like: bytes, gzip_bytes, parameters, macs, p50, load, peak_memory;
           null where one side is unknown, and for p50 where the files fix different batches
noise      per label, of p50, p90 and load: how far an A/A run was from 1; only where there was one
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
from edgekd.bench.local import CAP_SECONDS, Answer, Measurement, Request, Task
from edgekd.bench.operators import by_operator
from edgekd.bench.placement import placed
from edgekd.bench_record import SCHEMA
from edgekd.devices import Target
from edgekd.timing import TIMES, Samples, change, median_interval, p99, quantile, thinned

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
        "fallback": None,
        "latency_ms": _latency([m.samples_ns for m in found]),
        "load_ms": _ms(median(m.load_ns for m in found)),
        "first_run_ms": _ms(median(m.first_ns for m in found)),
        "memory_bytes": _memory([(m.peak_bytes, m.baseline_bytes) for m in found]),
        "processes": [_process(m) for m in found],
        "samples_us": [[round(ns / 1000, 1) for ns in thinned(m.samples_ns, KEPT_SAMPLES).tolist()] for m in found],
    }


def apart(found: Sequence[Answer]) -> dict[str, Any]:
    """Times of students and their head, summed up over processes that did the task of that name."""
    ways = {"one_by_one": "in_turn_ns", "parallel": "abreast_ns"}
    return {name: _latency([np.array(one[key], np.int64) for one in found]) for name, key in ways.items()}


def _memory(found: Sequence[tuple[int | None, int | None]]) -> dict[str, int] | None:
    known = [(peak, before) for peak, before in found if peak is not None and before is not None]
    if not known:
        return None
    return {
        "peak": max(peak for peak, _ in known),
        "added": max(peak - before for peak, before in known),
        "baseline": max(before for _, before in known),
    }


UNMEASURED: dict[str, Any] = {
    **dict.fromkeys(("fallback", "latency_ms", "load_ms", "first_run_ms", "memory_bytes")),
    **{"processes": [], "samples_us": []},
}
"""What stands in the place of `times_and_memory` where nothing ran."""


def _process(found: Measurement) -> dict[str, Any]:
    return {
        "load_ms": _ms(found.load_ns),
        "first_run_ms": _ms(found.first_ns),
        "warmup_runs": found.warmup_runs,
        "stable": found.stable,
        "peak_bytes": found.peak_bytes,
    }


def noise(again: Sequence[Measurement], first: Sequence[Measurement]) -> dict[str, float]:
    """How far p50, p90 and load time of one file are from themselves, measured twice in turn (an A/A run)."""
    pairs = {name: (_of(again, name), _of(first, name)) for name in TIMES}
    return {name: change(*pair, percent=TIMES[name], paired=True).floor() for name, pair in pairs.items()}


def _of(found: Sequence[Measurement], name: str) -> list[Samples]:
    return [np.array([m.load_ns]) if name == "load" else m.samples_ns for m in found]


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
    entries: Mapping[str, dict[str, Any]],
    target: Target,
    environment: dict[str, Any],
    agreement_images: int,
    not_measured: str | None = None,
) -> dict[str, Any]:
    """The whole record."""
    return {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": edgekd.__version__},
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": target.model_dump(mode="json", by_alias=True),
        "environment": environment,
        "simulated": target.runner.simulated,
        "not_measured": not_measured,
        "protocol": {
            "order": "interleaved",
            "cap_seconds": CAP_SECONDS,
            "agreement_images": agreement_images,
            **target.bench.model_dump(mode="json"),
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
    latency, memory = entry["latency_ms"] or {}, entry["memory_bytes"] or {}
    times = {"p50": latency.get("p50"), "load": entry["load_ms"]}
    return counted | times | {"peak_memory": memory.get("peak")}


def _quotient(top: float | None, bottom: float | None) -> float | None:
    return top / bottom if top is not None and bottom else None


def examined(task: Task, answer: Answer, model: ModelProto, request: Request) -> dict[str, Any]:
    """What a look at one file adds to its entry: by which provider its nodes run, or where its time goes."""
    if task == "placement":
        return placed(answer["parts"], model, request)
    if task == "instructions":
        return {"instructions": answer["instructions"], "instructions_uncertain": answer["uncertain"]}
    return {"operators": by_operator(answer["nodes"])}


def difference(found: Answer, reference: Answer) -> dict[str, Any]:
    """How far apart two answers to one input are, over all outputs."""
    pairs = [(np.array(a), np.array(b)) for a, b in zip(found["outputs"], reference["outputs"], strict=True)]
    largest = max((float(np.abs(a - b).max(initial=0)) for a, b in pairs), default=0.0)
    scale = max((float(np.abs(b).max(initial=0)) for _, b in pairs), default=0.0)
    return {"absolute": largest, "relative": largest / scale if scale else None}
