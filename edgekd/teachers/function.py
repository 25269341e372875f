"""A Python function as a teacher: numpy in, numpy out. It runs the user's code, and so only when they say so."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgekd import inference
from edgekd.config import Reach
from edgekd.errors import BadSetting, EdgekdError
from edgekd.teachers.pixels import PIXEL, Stated
from edgekd.teachers.source import Again, Floats, Sizes, as_logits, checked, outside, tried
from edgekd.user_code import FUNCTION, working_directory_on_path

BATCH = 256


class FunctionSource:
    """`function(images: float32 [N, C, H, W], [N, H, W, C] or [N, F]) -> scores [N, K]`: logits or probabilities.

    Of every pixel of a grid they are `[N, K, h, w]` or `[N, h, w, K]`, as the images are.

    Args:
        name: `python:package.module:function`, looked for in the working directory first, as `python -m` does.
        stated: what the user says about the images; the shape has to be.
        reach: whether its code is trusted; samples in one call, at most.
        known: the record of an earlier start, if any: then the function is not asked what it answers.

    Raises:
        BadSetting: not trusted, no shape, or it cannot be imported.
        BadModel: it is no classifier.
    """

    def __init__(self, name: str, stated: Stated, reach: Reach, known: Mapping[str, Any]) -> None:
        if not reach.trust_callable:
            raise BadSetting("it is code, which would be run", where=name, hint="if you trust it, say --trust-callable")
        if stated.input_shape is None:
            hint = "say it with --input-shape C,H,W, or F of a table"
            raise BadSetting("a function does not tell what it takes", where=name, hint=hint)
        module, self._function = _imported(name)
        self.batch = reach.batch or BATCH
        table = stated.input_shape[1:] == PIXEL
        axes = inference.fed_shape(stated.input_shape, "NF" if table else stated.layout or "NCHW")
        self.spec = outside(name, _digest(name, module), "images", (None, *axes), "scores", stated, known, name)
        self.probed = 0
        if not known:
            self.spec, self.probed = tried(self.spec, self._scores, stated.task)

    def ask(self, images: Floats, again: Again) -> Floats:  # noqa: ARG002 - a call is not repeated
        """Logits of images `[N, C, H, W]`."""
        return as_logits(self._scores(images, self.spec.answer_shape), self.spec.ending, self.spec.name)

    def _scores(self, images: Floats, sizes: Sizes | None) -> Floats:
        try:
            answer = np.asarray(self._function(inference.fed(images, self.spec.layout)))
        except Exception as error:  # the user's own code may raise anything
            raise EdgekdError(f"it raised {type(error).__name__}: {error}", where=self.spec.name) from error
        return checked(answer, len(images), sizes, self.spec.name, self.spec.layout)

    def close(self) -> None:
        """Nothing to close."""


def _imported(name: str) -> tuple[ModuleType, Callable[[Floats], Any]]:
    path, _, attribute = name.removeprefix(FUNCTION).rpartition(":")
    if not path or not attribute:
        raise BadSetting("not a function", where=name, allowed="python:package.module:function")
    try:
        with working_directory_on_path():
            module = importlib.import_module(path)
            function = getattr(module, attribute)
    except Exception as error:  # the user's own code may raise anything
        raise BadSetting(f"{type(error).__name__}: {error}", where=name) from error
    if not callable(function):
        raise BadSetting("it cannot be called", where=name, allowed="a function of images")
    return module, function


def _digest(name: str, module: ModuleType) -> str:
    """Of the function's name and its module's source: with other source it is another teacher."""
    source = getattr(module, "__file__", None)
    content = Path(source).read_bytes() if source and Path(source).is_file() else b""
    return hashlib.sha256(name.encode() + b"\0" + content).hexdigest()
