"""Run folders as commands leave them, of models whose answers are known: images of four pixels, class k is the k-th."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from records import run_record

from edgekd import onnx_file
from edgekd.run_folder import HeldOut, RunFolder, write_json

METRICS = [
    {"step": step, "seconds": 2.0 * step, "class_entropy": 0.5 + step / 100, "soft_labels": 4.0 / step, "one_hot": 0.5}
    | ({"disagreement": 0.4, "diversity": 0.2} if step % 5 == 0 else {})
    for step in range(1, 21)
]


def begun(path: Path, teacher: Path, **changes: Any) -> RunFolder:
    """A run that has just been started: run.json and nothing else."""
    run = RunFolder(path)
    run.path.mkdir()
    facts = {"path": str(teacher), "sha256": onnx_file.model_sha256(teacher), "bytes": onnx_file.size(teacher)}
    changes = {"state": "running", "progress": {"step": 0, "seconds": 0.0, "images": 0, "collapses": 0}} | changes
    write_json(run.record_file, run_record(facts | changes.pop("teacher", {}), **changes))
    return run


def held_out(count: int = 40, seed: int = 0) -> HeldOut:
    """Random images, with the answers of a teacher that picks the brightest pixel; class 3 is never the brightest."""
    codes = np.random.default_rng(seed).integers(0, 200, size=(count, 1, 2, 2), dtype=np.uint8)
    codes[:, 0, 1, 1] = 0
    return HeldOut(codes, codes.reshape(count, 4).astype(np.float32), 0.0, 1.0)


def finished(path: Path, teacher: Path, student: Path, **changes: Any) -> RunFolder:
    """A run that is distilled and exported, of a student that is a file of one's own."""
    progress = {"step": 20, "seconds": 40.0, "images": 5120, "collapses": 0}
    run = begun(path, teacher, **({"state": "finished", "progress": progress} | changes))
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    run.student_onnx.write_bytes(student.read_bytes())
    run.write_held_out(held_out())
    write_json(run.export_file, {"schema": "edgekd.export/1", "target": "cpu", "files": {}, "warnings": []})
    return run


def measured(run: RunFolder, p50: float = 0.25) -> dict[str, Any]:
    """An entry of bench.json for the run's student, under its digest."""
    latency = {"p50": p50, "p50_interval": [p50 * 0.9, p50 * 1.1], "p90": p50 * 2, "p99": None, "samples": 50}
    return {"sha256": onnx_file.model_sha256(run.student_onnx), "latency_ms": latency, "load_ms": 3.0, "batch": 1}
