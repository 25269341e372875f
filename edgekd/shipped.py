"""Find the TOML files that ship with edgekd: targets (devices), calibration recipes, presets of published methods.

An installed wheel carries the first two in `edgekd/_shipped/<kind>`; a checkout keeps them beside the package. Presets
lie within the package, beside the objectives whose weights they are.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from edgekd.errors import BadSetting, UnknownName

Kind = Literal["targets", "calibration", "presets"]
_PACKAGE = Path(__file__).resolve().parent
_CALLED: dict[Kind, str] = {"targets": "target", "calibration": "calibration recipe", "presets": "preset"}


def folder(kind: Kind) -> Path:
    """The folder that holds the shipped files of one kind.

    Raises:
        BadSetting: the installation lacks it.
    """
    installed, checkout = _PACKAGE / "_shipped" / kind, _PACKAGE.parent / kind
    if kind == "presets":
        return _PACKAGE / "objectives" / "presets"
    if installed.is_dir():
        return installed
    if checkout.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return checkout
    raise BadSetting(f"the shipped {kind} are missing", where=_PACKAGE, hint="install edgekd again")


def names(kind: Kind) -> list[str]:
    """Names of the shipped files of one kind, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.toml"))


def find(kind: Kind, name: str) -> Path:
    """The shipped file of that name, or the user's own file when `name` ends in `.toml`.

    Raises:
        UnknownName: neither exists.
    """
    own = Path(name)
    if own.suffix == ".toml" and (own.is_file() or kind == "presets"):
        return own
    if name not in names(kind):
        raise UnknownName(_CALLED[kind], name, names(kind))
    return folder(kind) / f"{name}.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        BadSetting: it is unreadable or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSetting(f"not readable as TOML: {error}", where=path) from error
