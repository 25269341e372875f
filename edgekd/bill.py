"""A CycloneDX bill of materials of an export: files, digests, what each was made from, and how (ML-BOM, version 1.6).

Written by cyclonedx-python-lib, whose model of a component knows the type `machine-learning-model` but no model card;
so what a card would hold is told as properties. Nothing in it depends on when or where it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from edgekd import __version__
from edgekd.errors import CannotLoad
from edgekd.run_folder import atomic

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.tool import ToolRepository

_INSTALL = "pip install 'edgekd[bom]'"
_MADE_BY = ("onnx", "onnxruntime", "numpy", "torch")
_BEST = ("student_int8", "int8", "student_fp16", "fp16", "student", "float")
"""Files of an export by name, the one that it was asked for first."""
_READS = {
    **{"student_int8": ("student", "generator"), "student_int8_ort": ("student_int8",)},
    **{"student_fp16": ("student",), "student_fp16_ort": ("student_fp16",)},
    **{"int8": ("float",), "int8_ort": ("int8",), "fp16": ("float",), "fp16_ort": ("fp16",)},
}
"""What each file was made from; student and generator from the teachers."""


def can_be_written() -> bool:
    """Whether the extra is installed."""
    return find_spec("cyclonedx") is not None


def require(where: object = None) -> None:
    """Refuse to start what needs the extra.

    Raises:
        CannotLoad: it is not installed.
    """
    if not can_be_written():
        raise CannotLoad("a bill of materials needs edgekd[bom]", where=where, hint=_INSTALL)


def write(path: Path, record: Mapping[str, Any], teachers: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the bill of an export, atomically; equal records give equal bytes.

    Args:
        path: the file, `*.cdx.json`.
        record: of schema edgekd.export/1.
        teachers: `path` and `sha256` of each, as run.json has them.

    Raises:
        CannotLoad: cyclonedx-python-lib is not installed.
        EdgekdError: the file cannot be written.
    """
    require(path)
    with atomic(path) as file:
        file.write((json.dumps(_document(record, teachers), indent=2, ensure_ascii=False) + "\n").encode())


def _document(record: Mapping[str, Any], teachers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from cyclonedx.model.bom import Bom, BomMetaData  # noqa: PLC0415 - an extra
    from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415 - an extra

    files = record["files"]
    best = next(name for name in _BEST if name in files)
    made = {
        name: _model(name, file["path"], file["sha256"], _facts(record, name, file)) for name, file in files.items()
    }
    taught = [_teacher(number, facts) for number, facts in enumerate(teachers)]
    told = json.dumps([files, [one.get("sha256") for one in teachers]], sort_keys=True)
    bom = Bom(
        components=[*(one for name, one in made.items() if name != best), *taught],
        serial_number=uuid5(NAMESPACE_URL, told),
        metadata=BomMetaData(component=made[best], tools=_tools()),
    )
    for name, one in made.items():
        known = [made[read] for read in _READS.get(name, ()) if read in made]
        bom.register_dependency(one, known or taught)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"]  # the library has always one, the format need not
    return document


def _model(ref: str, name: str, sha256: str | None, facts: Mapping[str, str]) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property  # noqa: PLC0415 - an extra
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415 - an extra

    digests = [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=sha256[:12] if sha256 else None,
        bom_ref=ref,
        hashes=digests,
        properties=[Property(name=f"edgekd:{key}", value=value) for key, value in sorted(facts.items())],
    )


def _teacher(number: int, facts: Mapping[str, Any]) -> Component:
    """By its last name alone: where it lies is nobody's business."""
    told, sha256 = str(facts.get("path", "teacher")), str(facts.get("sha256") or "")
    name = re.split(r"[/\\]", told.rstrip("/"))[-1]
    return _model(f"teacher-{number}", name, sha256 if re.fullmatch("[0-9a-f]{64}", sha256) else None, {})


def _facts(record: Mapping[str, Any], name: str, file: Mapping[str, Any]) -> dict[str, str]:
    """What a model card would say of a file."""
    found = {"bytes": str(file["bytes"])}
    precision = name.removeprefix("student_")
    if precision not in ("int8", "fp16"):
        return found
    found |= {"target": str(record["target"]), "precision": precision}
    proof = (record.get("proof") or {}).get(precision) or [{}]
    for key in ("agreement_float", "agreement_teacher"):
        if proof[-1].get(key) is not None:
            found[key] = f"{proof[-1][key]:.4f}"
    quantization = record.get("quantization") or {}
    if precision == "int8" and quantization:
        samples = quantization["samples"]
        found |= {"quantization": _compact(quantization["flavour"]), "calibration": quantization["recipe"]["name"]}
        found["calibration.samples"] = f"{samples['count']} sha256:{samples['sha256']}"
        found["float_nodes"] = _compact(quantization["float_nodes"])
    return found


def _compact(told: Mapping[str, Any]) -> str:
    return json.dumps(told, sort_keys=True, separators=(",", ":"))


def _tools() -> ToolRepository:
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415 - an extra
    from cyclonedx.model.tool import ToolRepository  # noqa: PLC0415 - an extra

    found = [Component(type=ComponentType.APPLICATION, name="edgekd", version=__version__, bom_ref="edgekd")]
    for name in _MADE_BY:
        try:
            made = Component(type=ComponentType.LIBRARY, name=name, version=version(name), bom_ref=f"library-{name}")
        except PackageNotFoundError:  # torch, on a device
            continue
        found.append(made)
    return ToolRepository(components=found)
