"""edgekd distils a trained ONNX model into a small INT8 model for edge devices, without its training data.

    run = edgekd.distill("teacher.onnx", minutes=4)
    edgekd.export(run, int8=True)
    edgekd.bench(run)
    edgekd.gate(run, max_size="300kB")

The functions are in `edgekd.api`. Four rooms of the house bear their names, `edgekd.distill` among them, and Python
binds an imported module to its name in the package. So these modules can be called: `edgekd.distill(...)` is the
function, `edgekd.distill.resolve_settings` what is in the room, in whichever order they were imported.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.api import bench, distill, export, gate

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "distill", "export", "gate"]

_CALLED = frozenset({"bench", "distill", "export", "gate"})


class _Room(ModuleType):
    """A module that is called as the function of its name in `edgekd.api`."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        function = getattr(importlib.import_module("edgekd.api"), self.__name__.rpartition(".")[2])
        return function(*arguments, **named)


class _Package(ModuleType):
    """Makes rooms callable at the moment the import system binds them, and imports them when first asked for."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLED and type(value) is ModuleType:
            value.__class__ = _Room
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _CALLED:
            return importlib.import_module(f"edgekd.{name}")
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")


sys.modules[__name__].__class__ = _Package
