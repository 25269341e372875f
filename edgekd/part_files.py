"""The files of students side by side in a run's `parts/`: their names, and whether all are there and of the weights."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from edgekd import onnx_file
from edgekd.errors import BadModel, BadRun, BadSetting
from edgekd.run_folder import RunFolder

HEAD = "head"
"""The name of the head's file."""
WEIGHTS = "edgekd.weights.sha256"


def names_of(record: dict[str, Any]) -> list[str]:
    """What the files of a run's students and of its head are called, without suffix, the head last.

    Raises:
        BadSetting: the run has one student.
    """
    parts = record["student"].get("parts")
    if not parts:
        hint = "those of --method teacher-class have several"
        raise BadSetting("its student is one network", where="--split", hint=hint)
    return [*(f"student_{place}" for place in range(len(parts["chunks"]) + len(parts["added"]))), HEAD]


def exported_parts(run: RunFolder, record: dict[str, Any], suffix: str = "") -> dict[str, Path]:
    """The files of all parts, of the weights as they are now.

    Args:
        run, record: of the students.
        suffix: "" or ".int8".

    Raises:
        BadRun: one is missing, or of older weights: they are of use only together.
        BadSetting: the run has one student.
    """
    files = {name: run.parts / f"{name}{suffix}.onnx" for name in names_of(record)}
    again = f"edgekd export {quote(str(run.path))} --split{' --int8' * bool(suffix)}"
    if missing := [path.name for path in files.values() if not path.is_file()]:
        raise BadRun(f"{', '.join(missing)} is missing", where=run.parts, hint=f"export again: {again}")
    now = onnx_file.sha256(run.student_weights) if run.student_weights.is_file() else None
    for path in files.values():
        if now is not None and _made_of(path) not in (None, now):
            what = f"{path.name} is of older weights than {run.student_weights.name}"
            raise BadRun(what, where=run.parts, hint=f"export again: {again}")
    return files


def without_stale(run: RunFolder) -> list[str]:
    """Remove parts made from other weights, so that nobody takes them for those of the joined file."""
    files = sorted(run.parts.glob("*.onnx")) if run.parts.is_dir() else []
    now = onnx_file.sha256(run.student_weights) if run.student_weights.is_file() else None
    if not files or now is None or all(_made_of(path) in (None, now) for path in files):
        return []
    for path in files:
        path.unlink()
    return ["the files in parts/ were of older weights and are removed; make them again with --split"]


def _made_of(path: Path) -> str | None:
    """sha256 of the weights that a file was made of; "" of one that cannot be read."""
    try:
        return onnx_file.metadata(onnx_file.load(path)).get(WEIGHTS)
    except BadModel:
        return ""
