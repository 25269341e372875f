"""The run folder: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from records import run_record

from edgekd import onnx_file, run_folder
from edgekd.errors import BadRun, EdgekdError
from edgekd.run_folder import HeldOut, RunFolder, atomic, latest, read_json, write_json


def start(path: Path, **record: Any) -> RunFolder:
    run = RunFolder(path)
    write_json(run.record_file, run_record(**record))
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


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "; free some space$"), (errno.EACCES, "; choose a folder that you may"), (errno.EIO, "error$")],
)
def test_a_failed_write_leaves_no_folder_and_the_cure_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(run_folder.os, "fsync", failing)
    with pytest.raises(EdgekdError, match=hint):
        write_json(tmp_path / "kept" / "new" / "deep" / "a.json", {})
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_a_usable_folder_is_found_so_and_left_as_it_was(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new" / "deep"):
        RunFolder(folder).check_writable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file", "file/run", "link", "x" * 300])
def test_an_unusable_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadRun, match="; choose another folder"):
        RunFolder(tmp_path / path).check_writable()


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(**_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(run_folder.tempfile, "TemporaryFile", refusing)
    with pytest.raises(BadRun, match="Permission denied; choose a folder that you may write to"):
        RunFolder(tmp_path / "run").check_writable()


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


def test_a_record_that_lacks_something_names_it(tmp_path: Path) -> None:
    record = run_record({"layout": "CHWN"}, started=3)
    del record["teacher"]["sha256"], record["generator"]
    write_json(tmp_path / "run.json", record)
    with pytest.raises(BadRun, match=r"run\.json: damaged \(") as raised:
        RunFolder(tmp_path).record()
    for word in ("started: ", "teacher.sha256: ", "teacher.layout: ", "generator: "):
        assert word in str(raised.value)


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


def test_procedural_images_come_back_and_older_runs_have_none(tmp_path: Path) -> None:
    run, codes = RunFolder(tmp_path), np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    assert run.procedural((1, 2, 2)).shape == (0, 1, 2, 2)
    run.write_procedural(codes)
    np.testing.assert_array_equal(run.procedural((1, 2, 2)), codes)
    with pytest.raises(BadRun, match=r"no usable procedural images: uint8 \[2, 1, 2, 2\], not uint8 \[2, 3, 2, 2\]"):
        run.procedural((3, 2, 2))
    run.procedural_file.write_bytes(b"PK")
    with pytest.raises(BadRun, match="no usable procedural images"):
        run.procedural((1, 2, 2))


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


def test_a_damaged_run_is_passed_by_unless_there_is_no_other(tmp_path: Path) -> None:
    for name, content in (("a", "{"), ("b", '{"schema": "edgekd.run/1"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    with pytest.raises(BadRun, match=r"no run here that could be used: .*run\.json: damaged"):
        latest(tmp_path)
    good = start(tmp_path / "c")
    assert latest(tmp_path).path == good.path


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


def test_students_of_older_weights_are_refused(tmp_path: Path, make_picker: Any) -> None:
    run = start(tmp_path / "my run")
    for name in ("student.onnx", "student.int8.onnx"):
        model = onnx.load(make_picker(f"my run/{name}"))
        onnx_file.set_metadata(model, {"edgekd.weights.sha256": "0" * 64})
        onnx.save(model, run.path / name)
    assert list(run.models()) == ["student", "student.int8"]  # as on a device, where the weights are not
    run.student_weights.write_bytes(b"trained on")
    for path in (run.student_onnx, run.student_int8_onnx):
        with pytest.raises(BadRun, match=r"onnx is of older weights .*; export again: edgekd export '.*my run' --int8"):
            run.exported(path)
    with pytest.raises(BadRun, match="older weights"):
        run.models()


def test_a_teacher_is_told_from_another_by_its_external_data(tmp_path: Path, make_picker: Any) -> None:
    run = exported(tmp_path)
    teacher = tmp_path / "teacher.onnx"
    onnx.save(onnx.load(make_picker()), teacher, save_as_external_data=True, location="w.bin", size_threshold=0)
    digest = onnx_file.model_sha256(teacher)
    write_json(run.record_file, run_record({"path": str(teacher), "sha256": digest}))
    assert "teacher" in run.models()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    assert "teacher" not in run.models()
    (tmp_path / "w.bin").unlink()
    assert "teacher" not in run.models()


def test_a_run_not_yet_exported_names_the_command(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    with pytest.raises(BadRun, match=r"student\.onnx is missing; run first: edgekd export .*run"):
        run.models()
