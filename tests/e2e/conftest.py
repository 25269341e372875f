"""An environment as a device has it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))  # for tiny_teacher


@pytest.fixture(scope="session")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with edgekd's wheel and its dependencies, but no torch, outside the checkout.

    Dependencies are links to those of this environment, so that nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("bare")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    home = folder / "env"
    venv.create(home, with_pip=False)
    python, site = home / "bin" / "python", Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    kept_out = ("torch", "functorch", "onnxscript", "onnxsim", "edgekd", "_edgekd", "__editable__", "__pycache__")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(kept_out) and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    return python
