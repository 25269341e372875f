"""An earlier measurement to hold a new one against: find it, see that it fits, and say what changed.

A baseline is a record of `edgekd bench`, kept as a file or in the history of a git repository.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import BadRun, BadSetting
from edgekd.timing import LEAST_FLOOR, TIMES, Change, Samples, change

Entry = Mapping[str, Any]

MACHINE = ("cpu", "isa", "cores", "cores_allowed", "governor", "machine", "onnxruntime")
"""Facts of the environment without which times cannot be compared."""

RUNTIME = ("provider", "provider_options", "intra_op_threads", "inter_op_threads", "session_config")

EXACT = {"size": "bytes", "gzip_size": "gzip_bytes", "parameters": "parameters", "macs": "macs"}
"""Metrics that are the same whenever they are computed, and their keys in an entry."""


def read(text: str | bytes, where: object) -> dict[str, Any]:
    """A bench record from JSON.

    Raises:
        BadRun: no JSON, of another schema, or something is missing.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - slow to import, and most budgets need no record

    from edgekd.bench_record import SCHEMA, BenchRecord  # noqa: PLC0415

    again = "write it again: edgekd bench … --save-baseline FILE"
    try:
        record = json.loads(text)
    except ValueError as error:
        raise BadRun(f"not readable as JSON: {error}", where=where, hint=again) from error
    found = record.get("schema") if isinstance(record, dict) else None
    if found != SCHEMA:
        raise BadRun(f"its schema is {found!r}", where=where, allowed=SCHEMA, hint=again)
    try:
        BenchRecord.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadRun(f"not a record of {SCHEMA}: {what}", where=where, hint=again) from error
    return dict(record)


def read_file(path: Path) -> dict[str, Any]:
    """A bench record from a file. Raises as `read` does, and when there is none."""
    try:
        return read(path.read_bytes(), path)
    except OSError as error:
        hint = "write one: edgekd bench … --save-baseline FILE"
        raise BadRun(f"cannot be read: {error.strerror}", where=path, hint=hint) from error


def find(name: str) -> dict[str, Any]:
    """A bench record from a file, or as `REV:FILE` from the history of a git repository. Raises as these do."""
    revision, colon, path = name.partition(":")
    if colon and not Path(name).exists():
        return read(at_revision(revision, Path(path)), name)
    return read_file(Path(name))


def at_revision(revision: str, path: Path) -> bytes:
    """A file as it was in a commit, branch or tag of the git repository it lies in.

    Raises:
        BadSetting: git is missing, this is no repository, there is no such revision, or the file was not in it.
    """
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    name = path.absolute().relative_to(folder).as_posix()
    command = ["git", "-C", str(folder), "show", f"{revision}:./{name}"]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - git, and no shell
    except OSError as error:
        raise BadSetting("git is not installed", where=f"{revision}:{path}", hint="install git") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        what = said[-1].removeprefix("fatal: ") if said else f"git ended with {done.returncode}"
        hint = "in CI, fetch the branch first: a shallow checkout has one commit only"
        raise BadSetting(what, where=f"{revision}:{path}", hint=hint)
    return done.stdout


# ------------------------------------------------------------------------------------------------------ does it fit


def entry_of(record: Mapping[str, Any], label: str, where: object) -> Entry:
    """A baseline's entry for a model: of the same label, or the only one.

    Raises:
        BadRun: there is none.
    """
    models: Mapping[str, Entry] = record["models"]
    if label not in models and (len(models) != 1 or label == "teacher"):
        raise BadRun(f"it holds no {label!r}", where=where, allowed=", ".join(models))
    return models[label] if label in models else next(iter(models.values()))


def require_same_task(now: Entry, then: Entry, where: object) -> None:
    """Refuse to compare models that are fed something else.

    Raises:
        BadRun: their inputs differ in shape or type.
    """
    fed = [[(tuple(i["shape"]), i["dtype"]) for i in entry["inputs"]] for entry in (now, then)]
    if fed[0] != fed[1]:
        shown = [", ".join(f"{dtype} {list(shape)}" for shape, dtype in inputs) for inputs in fed]
        what = f"it is of another model: {then['file']} takes {shown[1]}, {now['file']} {shown[0]}"
        raise BadRun(what, where=where, hint="choose the baseline of this model")


def differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """What of machine and session differs between two records, so that their times are not comparable."""
    pairs = [(key, now["environment"].get(key), then["environment"].get(key)) for key in MACHINE]
    simulated = ["times are a simulator's"] if now.get("simulated") or then.get("simulated") else []
    runtimes = [record["target"].get("runtime", {}) for record in (now, then)]
    pairs += [(key, runtimes[0].get(key), runtimes[1].get(key)) for key in RUNTIME]
    return simulated + [f"{key} is {new}, was {old}" for key, new, old in pairs if new != old]


# ------------------------------------------------------------------------------------------------------ what changed


def samples(entry: Entry, name: str) -> list[Samples]:
    """What a time was computed from, per process, in ns."""
    if name == "load":
        return [np.array([round(1e6 * one["load_ms"])]) for one in entry["processes"]]
    return [np.rint(1000 * np.array(one)).astype(np.int64) for one in entry["samples_us"]]


def floor(record: Mapping[str, Any], label: str, name: str) -> float:
    """How large a change of a time must be to be one: what an A/A run of the baseline measured."""
    noise: Mapping[str, Mapping[str, float]] = record.get("noise", {})
    of_label = noise.get(label) or (next(iter(noise.values())) if len(noise) == 1 else {})
    return max(LEAST_FLOOR, of_label.get(name, LEAST_FLOOR))


def change_of(now: Entry, then: Entry, name: str, *, paired: bool = False) -> Change | None:
    """How p50, p90 or load changed; None where one of the two was not measured."""
    both = samples(now, name), samples(then, name)
    if not all(both) or not all(len(one) for group in both for one in group):
        return None
    return change(*both, percent=TIMES[name], paired=paired)


def compare(now: Mapping[str, Any], then: Mapping[str, Any], where: str, *, paired: bool = False) -> dict[str, Any]:
    """Hold every model of a record against a baseline.

    Args:
        now, then: records of schema `edgekd.bench/1`.
        where: what to call the baseline.
        paired: both were measured in turn, in one session: then the machine is the same and so were its moments.

    Returns:
        against, paired, `differences` of the machines (times are then inconclusive), and per label and metric
        {now, baseline, ratio, and for times interval, floor and verdict}. Times are in ms, sizes in bytes.

    Raises:
        BadRun: the baseline lacks a model, or is of another one.
    """
    unlike = [] if paired else differences(now, then)
    models = {}
    common = [label for label in now["models"] if label in then["models"]]
    for label in common or now["models"]:
        entry = now["models"][label]
        earlier = entry_of(then, label, where)
        require_same_task(entry, earlier, where)
        models[label] = {name: _exact(entry[key], earlier[key]) for name, key in EXACT.items()}
        for name in TIMES:
            found = change_of(entry, earlier, name, paired=paired)
            least = floor(then, label, name)
            models[label][name] = _time(entry, name) | {"baseline": _time(earlier, name)["now"]}
            models[label][name] |= _verdict(found, least, unlike)
    return {"against": where, "paired": paired, "differences": unlike, "models": models}


def _exact(now: float | None, then: float | None) -> dict[str, Any]:
    return {"now": now, "baseline": then, "ratio": now / then if now is not None and then else None}


def _time(entry: Entry, name: str) -> dict[str, Any]:
    return {"now": entry["load_ms"] if name == "load" else (entry["latency_ms"] or {}).get(name)}


def _verdict(found: Change | None, least: float, unlike: Sequence[str]) -> dict[str, Any]:
    if found is None:
        return {"ratio": None, "interval": None, "floor": least, "verdict": "not measured"}
    interval = [found.low, found.high] if found.low is not None else None
    verdict = "inconclusive" if unlike else found.verdict(1 + least)
    return {"ratio": found.ratio, "interval": interval, "floor": least, "verdict": verdict}
