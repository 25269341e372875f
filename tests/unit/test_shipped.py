"""Targets and recipes are found in a checkout; tests/e2e finds them in an installed wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import shipped
from edgekd.devices import load_recipe, load_target
from edgekd.errors import BadSetting, UnknownName


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
