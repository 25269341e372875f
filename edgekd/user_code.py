"""How the user's own code is named, and where it is looked for: a student's factory, a teacher's function."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FUNCTION = "python:"
"""What the name of a teacher begins with that is a function."""


def is_file_name(named: object) -> bool:
    """Whether a teacher's name is that of a file: neither a URL nor a function."""
    return "://" not in str(named) and not str(named).startswith(FUNCTION)


@contextmanager
def working_directory_on_path() -> Iterator[None]:
    """Imports look into the working directory first, as with `python -m`, and no longer afterwards."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have taken it away
            sys.path.remove(here)
