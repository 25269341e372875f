"""Where the parts are that `.ci/parts` fetches: what the tests of foreign targets run when it is there."""

from __future__ import annotations

import os
from pathlib import Path

PARTS = Path(os.environ.get("EDGEKD_TEST_PARTS") or Path(__file__).parents[3] / ".parts")
"""A missing one is skipped by its test, which says what to install: `.ci/parts` installs them all."""
