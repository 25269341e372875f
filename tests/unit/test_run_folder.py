"""The run folder: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd import onnx_file, run_folder
from edgekd.errors import BadRun, EdgekdError
from edgekd.run_folder import SCHEMA, HeldOut, RunFolder, atomic, latest, read_json, write_json


def start(path: Path, **record: Any) -> RunFolder:
    run = RunFolder(path)
    write_json(run.record_file, {"schema": SCHEMA, **record})
    return run


# ---------------------------------------------------------------------------------------------------------- writing


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with atomic(tmp_path / "deep" / "a.bin") as file:
        file.write(b"abc")
        assert not (tmp_path / "deep" / "a.bin").exists()
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"abc"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def interrupted() -> None:
        with atomic(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_folder.os, "fsync", full)
    with pytest.raises(EdgekdError, match=r"a\.json: cannot be written: No space left on device; free some space"):
        write_json(path, {"new": 1})
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("content", ["", "[1]", '{"a": ', "\ufeff{}"])
def test_a_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(BadRun, match="JSON"):
        RunFolder(tmp_path).record()


def test_no_run_and_a_run_of_another_schema(tmp_path: Path) -> None:
    with pytest.raises(BadRun, match=r"not a run folder \(no run.json\); start one with"):
        RunFolder(tmp_path).record()
    (tmp_path / "run.json").write_text(json.dumps({"schema": "edgekd.run/99"}))
    with pytest.raises(BadRun, match=r"'edgekd.run/99' is not edgekd.run/1"):
        RunFolder(tmp_path).record()


def test_held_out_samples_come_back(tmp_path: Path) -> None:
    codes = np.array([0, 128, 255], np.uint8).reshape(1, 3, 1, 1)
    samples = HeldOut(codes, np.ones((1, 2), np.float32), -1.0, 1.0)
    run = RunFolder(tmp_path)
    run.write_held_out(samples)
    back = run.held_out()
    np.testing.assert_array_equal(back.codes, codes)
    np.testing.assert_allclose(back.images().ravel(), [-1, 1 / 255, 1], atol=1e-6)
    assert (back.low, back.high, back.logits.dtype) == (-1.0, 1.0, np.float32)


def test_damaged_held_out_samples_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.samples.mkdir()
    whole = tmp_path / "whole.npz"
    np.savez(whole, images=np.zeros((2, 1, 2, 2), np.uint8))
    for content in (b"", b"PK\x03\x04 nothing", whole.read_bytes()[:60], whole.read_bytes()):
        run.held_out_file.write_bytes(content)
        with pytest.raises(BadRun, match="no usable held-out samples"):
            run.held_out()


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.samples.mkdir()
    np.savez(run.held_out_file, images=np.array([{"a": 1}], object), logits=np.zeros(1), range=np.zeros(2))
    with pytest.raises(BadRun, match="no usable held-out samples"):
        run.held_out()


# ------------------------------------------------------------------------------------------------- finding things


def test_the_latest_run_is_the_one_started_last_whatever_its_name(tmp_path: Path) -> None:
    start(tmp_path / "z", started="2026-01-01T00:00:00+00:00")
    newest = start(tmp_path / "a", started="2026-01-02T00:00:00+00:00")
    (tmp_path / "not-a-run").mkdir()
    assert latest(tmp_path).path == newest.path


def test_without_any_run_the_first_command_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadRun, match=r"no run here; .*edgekd distill"):
        latest(tmp_path)


def exported(tmp_path: Path, *, int8: bool = True) -> RunFolder:
    teacher = tmp_path / "teacher.onnx"
    teacher.write_bytes(b"teacher")
    run = start(tmp_path / "run", teacher={"path": str(teacher), "sha256": onnx_file.sha256(teacher)})
    run.student_onnx.write_bytes(b"s")
    if int8:
        run.student_int8_onnx.write_bytes(b"i")
    return run


def test_the_models_of_a_run(tmp_path: Path) -> None:
    run = exported(tmp_path)
    assert list(run.models()) == ["teacher", "student", "student.int8"]
    run.student_int8_onnx.unlink()
    assert list(run.models()) == ["teacher", "student"]


def test_a_teacher_that_changed_is_left_out_unless_it_was_named(tmp_path: Path) -> None:
    run = exported(tmp_path)
    teacher = tmp_path / "teacher.onnx"
    moved = teacher.rename(tmp_path / "moved.onnx")
    assert "teacher" not in run.models()
    assert run.models(moved)["teacher"] == moved
    teacher.write_bytes(b"another")
    assert "teacher" not in run.models()
    with pytest.raises(BadRun, match="it was not distilled from"):
        run.models(teacher)


def test_a_run_not_yet_exported_names_the_command(tmp_path: Path) -> None:
    run = start(tmp_path / "run", teacher={})
    with pytest.raises(BadRun, match=r"student\.onnx is missing; run first: edgekd export .*run"):
        run.models()
