"""Targets and recipes are found in a checkout and in an installed wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from edgekd import shipped
from edgekd.config import load_recipe, load_target
from edgekd.errors import BadSetting, UnknownName

ROOT = Path(__file__).parents[2]


def test_every_shipped_file_is_valid_and_named_after_itself() -> None:
    assert [load_target(name).name for name in shipped.names("targets")] == shipped.names("targets")
    assert [load_recipe(name).name for name in shipped.names("calibration")] == shipped.names("calibration")
    assert "cpu" in shipped.names("targets")
    assert {"entropy", "minmax", "percentile"} <= set(shipped.names("calibration"))


def test_a_file_of_ones_own_is_taken_by_its_path(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text((shipped.folder("targets") / "cpu.toml").read_text().replace('name = "cpu"', 'name = "mine"'))
    assert load_target(str(own)).name == "mine"


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(UnknownName, match=r"unknown calibration recipe 'percentil'.*did you mean percentile\?"):
        shipped.find("calibration", "percentil")
    with pytest.raises(UnknownName, match=r"unknown target 'missing\.toml'"):
        shipped.find("targets", "missing.toml")


def test_a_folder_that_only_looks_like_a_checkout_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "edgekd").mkdir()
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "edgekd")
    with pytest.raises(BadSetting, match="the shipped targets are missing"):
        shipped.folder("targets")


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe"])
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(BadSetting, match="not readable as TOML"):
        shipped.read_toml(tmp_path / "x.toml")


@pytest.mark.slow
def test_an_installed_wheel_carries_them(tmp_path: Path) -> None:
    """Installed into an environment of its own, outside the checkout; its dependencies are borrowed from here."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    python, site = scripts / "python", Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [str(scripts / "edgekd"), "targets", "list", "--json"]
    listed = subprocess.run(command, check=True, capture_output=True, cwd=elsewhere, text=True)
    assert list(json.loads(listed.stdout)) == shipped.names("targets")
    where = subprocess.run(
        [str(python), "-c", "from edgekd import shipped; print(shipped.folder('calibration'))"],
        check=True,
        capture_output=True,
        cwd=elsewhere,
        text=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site.resolve())
