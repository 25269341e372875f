"""Ranges found earlier, kept in a file of one's own, and taken only for the very same model, samples and recipe.

ONNX Runtime's own cache goes by tensor names alone, so that ranges of another model's tensors would be taken in
silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.devices import CalibrationRecipe, Quantization
from edgekd.errors import BadData
from edgekd.quantize.ranges import Range
from edgekd.run_folder import atomic

SCHEMA = "edgekd.calibration/1"


@dataclass(frozen=True)
class Key:
    """What ranges belong to, as hex digests: the float model's, the samples', the recipe's and what it serves."""

    model: str
    samples: str
    recipe: str


def key_of(model: str, samples: str, recipe: CalibrationRecipe, flavour: Quantization) -> Key:
    """The key of a calibration.

    Args:
        model: sha256 of the float model.
        samples: sha256 of the samples.
        recipe: how ranges are found.
        flavour: number of levels, symmetry and operators left in float, on which they depend too.
    """
    asked = flavour.model_dump(include={"activation", "activation_symmetric", "float_operators"}, mode="json")
    told = json.dumps([recipe.model_dump(exclude={"title"}, mode="json"), asked], sort_keys=True)
    return Key(model, samples, hashlib.sha256(told.encode()).hexdigest())


def read(path: Path, key: Key) -> dict[str, Range] | None:
    """Ranges by tensor name; None where there is no such file yet.

    Raises:
        BadData: it is damaged, or belongs to something else; says to what.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            raise BadData(f"schema {record['schema']!r} is not {SCHEMA}", where=path)
        told, ranges = (
            record["key"],
            {name: (float(low), float(high)) for name, (low, high) in record["ranges"].items()},
        )
        others = [part for part in ("model", "samples", "recipe") if told[part] != getattr(key, part)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData("not a calibration cache", where=path, hint="name another file") from error
    if others:
        what = f"it is of another {' and another '.join(others)}"
        raise BadData(what, where=path, hint="name another file for --calibration-cache, or remove this one")
    return ranges


def write(path: Path, key: Key, ranges: Mapping[str, Range]) -> None:
    """Keep ranges for another time, atomically."""
    told = {
        "schema": SCHEMA,
        "key": key.__dict__,
        "ranges": {name: list(ends) for name, ends in sorted(ranges.items())},
    }
    with atomic(path) as file:
        file.write((json.dumps(told, indent=1) + "\n").encode())
