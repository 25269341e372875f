"""What an earlier export left in a run folder that is not of this one: removed, and said, or it would pass for it."""

from __future__ import annotations

from pathlib import Path

from edgekd import onnx_file
from edgekd.errors import BadModel
from edgekd.run_folder import RunFolder


def students(run: RunFolder) -> dict[str, Path]:
    """Where the students of lower precision lie, by precision."""
    return {"int8": run.student_int8_onnx, "fp16": run.student_fp16_onnx}


def without_stale(run: RunFolder, where: str) -> dict[str, str]:
    """Remove files made from another float student, so that no later stage measures them.

    Args:
        run: whose float student is up to date.
        where: the folder, as a command names it.

    Returns:
        What to say of each, by precision.
    """
    now, told = onnx_file.sha256(run.student_onnx), {}
    for precision, path in students(run).items():
        if path.is_file() and _made_from(path) != now:
            _unlink(path)
            again = f"edgekd export {where} --{precision}"
            told[precision] = f"{path.name} was not made from this student and is removed; make it again with: {again}"
    return told


def without_refused(path: Path, *, kept: bool, ort: bool) -> list[str]:
    """Remove what an earlier export left where this one kept float: bench and gate would take it for the result.

    Args:
        path: of a student of lower precision.
        kept: whether this export wrote it.
        ort: whether it wrote an .ort file beside it; an older one goes.

    Returns:
        What to say.
    """
    if not ort:
        path.with_suffix(".ort").unlink(missing_ok=True)
    if kept or not path.is_file():
        return []
    _unlink(path)
    return [f"{path.name} of an earlier export is removed, since float is kept now"]


def without_bill(run: RunFolder) -> list[str]:
    """Remove a bill of materials where no new one is written: it would list other files."""
    if not run.bill_file.is_file():
        return []
    run.bill_file.unlink()
    return [f"{run.bill_file.name} of an earlier export is removed; for a new one: --bom"]


def _made_from(path: Path) -> str | None:
    """sha256 of the float file that one was made from; None where it is damaged or does not say."""
    try:
        return onnx_file.metadata(onnx_file.load(path)).get("edgekd.float.sha256")
    except BadModel:
        return None


def _unlink(path: Path) -> None:
    for one in (path, path.with_suffix(".ort")):
        one.unlink(missing_ok=True)
