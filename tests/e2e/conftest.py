"""Environments as users and devices have them: edgekd from its wheel, outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))  # for tiny_teacher


OWN = ("edgekd", "_edgekd", "__editable__", "__pycache__")
EXTRA = ("torch", "functorch", "onnxscript", "onnxsim")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """edgekd's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The Python of an environment with edgekd's wheel and its dependencies, but no torch."""
    return _installed(wheel, tmp_path_factory.mktemp("bare") / "env", (*OWN, *EXTRA))


@pytest.fixture(scope="session")
def with_torch(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The Python of an environment with edgekd's wheel and all of edgekd[distill]."""
    return _installed(wheel, tmp_path_factory.mktemp("full") / "env", OWN)


def _installed(wheel: Path, home: Path, kept_out: tuple[str, ...]) -> Path:
    """A new environment; dependencies are links to those of this one, so that nothing is downloaded."""
    venv.create(home, with_pip=False)
    python, site = home / "bin" / "python", Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(kept_out) and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    return python
