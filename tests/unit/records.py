"""What the records of a run say: a run.json with everything that later stages rely on, an export's agreement."""

from __future__ import annotations

from typing import Any

import numpy as np

TEACHER: dict[str, Any] = {
    **{"path": "/far/teacher.onnx", "sha256": "ab" * 32, "bytes": 1000, "parameters": 1300, "input_name": "image"},
    **{"channels": 1, "height": 2, "width": 2, "layout": "NCHW", "classes": 4},
    **{"low": 0.0, "high": 1.0, "mean": None, "std": None},
}


def run_record(teacher: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The record of a finished run; `teacher` and `changes` replace what it would say."""
    record = {
        **{"schema": "edgekd.run/1", "started": "2026-01-01T00:00:00+00:00", "state": "finished"},
        **{"student": {"name": "cnn-small", "width": 0.125}, "generator": {"latent": 6, "width": 4}},
        "settings": {"seed": 5},
    }
    return record | {"teacher": TEACHER | (teacher or {})} | changes


def agreements(teacher: np.ndarray, student: np.ndarray, int8: np.ndarray) -> dict[str, float]:
    """The agreement that an export records, by numpy alone, of what the three models choose, of any one shape."""
    return {
        "student_teacher": (student == teacher).mean(),
        "student_int8_teacher": (int8 == teacher).mean(),
        "student_int8_student": (int8 == student).mean(),
    }
