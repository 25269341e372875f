"""What `pip install 'edgekd[distill]'` brings, asked for before it is imported: a missing part is no bug."""

from __future__ import annotations

from importlib.util import find_spec

from edgekd.errors import CannotLoad

INSTALL = "pip install 'edgekd[distill]'"
PARTS = ("torch", "safetensors", "PIL", "onnxscript")
"""Modules of the extra. onnxsim is not among them: an export goes on without it."""


def has_distill() -> bool:
    """Whether the whole extra is there."""
    return not _missing()


def require_distill(purpose: str, where: object = None) -> None:
    """Refuse to start what needs the extra.

    Raises:
        CannotLoad: a part is not installed; names all that are missing.
    """
    missing = _missing()
    if missing:
        what = f"{purpose} needs edgekd[distill], of which {', '.join(missing)} cannot be found"
        raise CannotLoad(what, where=where, hint=INSTALL)


def _missing() -> list[str]:
    return [name for name in PARTS if find_spec(name) is None]
