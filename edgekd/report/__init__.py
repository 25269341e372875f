"""A run as one HTML file to look at: what came out, how it was made, and what is not known.

The file holds everything it shows, loads nothing, and runs no script. It is made from the run folder alone, without
torch, of finished runs and of those that stopped half-way. `page` lays it out; what each section says is in a file of
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd import onnx_file
from edgekd.errors import BadSetting
from edgekd.report.facts import Facts
from edgekd.report.origin import Verdicts
from edgekd.report.page import GENERATOR, page
from edgekd.run_folder import RunFolder, atomic
from edgekd.tags import document

__all__ = ["SCHEMA", "read_names", "report"]

SCHEMA = "edgekd.report/1"
_BEGINNING = 4096


def report(
    run: RunFolder,
    out: Path | None = None,
    *,
    verdicts: Verdicts | None = None,
    teacher: Path | None = None,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a run's report.

    Args:
        run: at any moment of its life.
        out: the file; `report.html` in the run folder if left out. An earlier report is replaced, as bench.json is by
            an earlier measurement; any other file is not.
        verdicts: rows of a gate, to show a budget.
        teacher: where the teacher's file is now, if it is not where run.json says.
        names: of the classes, in order; without them those that the teacher's file tells, or numbers.
        overwrite: replace `out` whatever it is.

    Returns:
        A record of schema `edgekd.report/1`: `path`, `sha256`, `bytes`, and `missing`, a list of `what`, `why` and
        `command` of everything that the run does not hold.

    Raises:
        BadRun: no run folder, a damaged run.json, or `teacher` is another one.
        BadSetting: `out` is there and is no report, or there are not as many names as classes.
        EdgekdError: the file cannot be written.
    """
    path = out or run.path / "report.html"
    classes = run.record()["teacher"]["classes"]
    if names is not None and len(names) != classes:
        raise BadSetting(f"{len(names)} names for {classes} classes", where="--class-names", allowed="one for each")
    _check_replaceable(path, overwrite)
    facts = Facts(run, teacher, names)
    content = document(page(facts, verdicts)).encode()
    with atomic(path) as file:
        file.write(content)
    missing = [{"what": one.what, "why": one.why, "command": one.command} for one in facts.missing]
    told = {"path": str(path), "sha256": onnx_file.sha256(path), "bytes": len(content)}
    return {"schema": SCHEMA, **told, "missing": missing}


def _check_replaceable(path: Path, overwrite: bool) -> None:
    if not path.exists() or overwrite:
        return
    if path.is_dir():
        raise BadSetting("it is a folder", where=path, allowed="the name of a file")
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    if f'content="{GENERATOR} '.encode() not in beginning:
        raise BadSetting("it is there, and is no report", where=path, hint="choose another --out, or say --overwrite")


def read_names(path: Path) -> list[str]:
    """Names of classes out of a text file, one a line, in the order of the teacher's columns.

    Raises:
        BadSetting: it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"not readable as text: {error}", where=path, allowed="a name a line, in UTF-8") from error
