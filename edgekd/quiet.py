"""Silence the libraries that print and log while they work: what matters reaches the user as an exception.

ONNX Runtime's calibrators print, its C++ side and torch's exporter log to stderr. It does not silence a native crash.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import onnxruntime

_ERROR, _WARNING = 3, 2  # ONNX Runtime's severities; WARNING is what it starts with, and it has no getter


@contextmanager
def quiet() -> Iterator[None]:
    """No prints, no log lines, no warnings inside; affects the whole process, so keep what is inside short."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    onnxruntime.set_default_logger_severity(_ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
        logging.disable(disabled)
