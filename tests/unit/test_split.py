"""Students side by side as files: that all together are the joined one, INT8 too, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_distill import settings
from tiny_teacher import classifier

from edgekd import split
from edgekd.bench.of_run import bench_run
from edgekd.bench.table import rows
from edgekd.bench_record import BenchRecord
from edgekd.devices import load_recipe, load_target
from edgekd.distill import distill
from edgekd.errors import BadRun, BadSetting
from edgekd.export import export
from edgekd.inference import logits
from edgekd.part_files import exported_parts, without_stale
from edgekd.quantize import Terms
from edgekd.run_folder import RunFolder, read_json

RECIPE = load_recipe("minmax").model_copy(update={"samples": 64})
TARGET = load_target("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two students of a run on samples and one that was added to them, exported whole and apart, and as INT8."""
    folder = tmp_path_factory.mktemp("split")
    onnx.save(classifier(), folder / "teacher.onnx")
    images = np.random.default_rng(0).integers(0, 256, (160, 1, 12, 12), dtype=np.uint8)
    np.savez(folder / "real.npz", images=images)
    diet = {"samples": str(folder / "real.npz")}
    run, more = RunFolder(folder / "run"), RunFolder(folder / "more")
    chosen = settings(method="teacher-class", students=2, chunks="balanced", steps=20, **diet)
    distill(folder / "teacher.onnx", chosen, run)
    distill(folder / "teacher.onnx", settings(added_to=str(run.path), **diet), more)
    # So few rounds make answers that lie near to each other: INT8 is written all the same.
    export(more, int8=True, target=TARGET, recipe=RECIPE, apart=True, terms=Terms(force=True))
    return more


@pytest.fixture
def exported(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy to do with as one likes."""
    shutil.copytree(whole.path, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


@pytest.mark.slow
def test_the_joined_file_is_what_its_parts_are_together(whole):
    files = exported_parts(whole, whole.record())
    assert list(files) == ["student_0", "student_1", "student_2", "head"]
    record = read_json(whole.export_file)
    assert {f"parts/{name}.onnx" for name in files} <= {one["path"] for one in record["files"].values()}
    images = whole.held_out().images()
    joined = logits(whole.student_onnx, images)
    np.testing.assert_allclose(split.joined_answer(list(files.values()), images), joined, rtol=1e-4, atol=1e-4)
    assert not np.allclose(joined[0], joined[1])
    for path in files.values():
        model = onnx.load(path)
        assert [len(model.graph.input), len(model.graph.output)] == [1, 1]


@pytest.mark.slow
def test_parts_are_quantized_each_and_judged_together(whole):
    files = exported_parts(whole, whole.record(), ".int8")
    images = whole.held_out().images()
    joined, found = logits(whole.student_onnx, images), split.joined_answer(list(files.values()), images)
    assert 0 < np.abs(found - joined).mean() < 0.2 * np.abs(joined).mean()
    for path in files.values():
        assert "QuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.slow
def test_parts_whose_int8_answers_otherwise_are_kept_in_float(exported, monkeypatch):
    for path in exported.parts.glob("*.int8.onnx"):
        path.unlink()
    monkeypatch.setattr(split, "_alike", lambda *_: 0.5)
    terms = Terms(max_drop=0.3)
    record = export(exported, int8=True, target=TARGET, recipe=RECIPE, apart=True, terms=terms)
    (told,) = [line for line in record["warnings"] if "parts" in line]
    assert "joined they answer otherwise than float on 50.0% of the held-out samples, allowed: 30.0%" in told
    assert "only float ones are written" in told
    assert not list(exported.parts.glob("*.int8.onnx"))
    assert len(list(exported.parts.glob("*.onnx"))) == 4


@pytest.mark.slow
def test_a_missing_part_is_named(exported):
    (exported.parts / "student_1.onnx").unlink()
    with pytest.raises(BadRun, match=r"student_1\.onnx is missing; export again: edgekd export .* --split$"):
        exported_parts(exported, exported.record())


@pytest.mark.slow
def test_bench_tells_what_parts_take_one_by_one_and_all_at_once(exported):
    protocol = {"processes": 2, "warmup_runs": 1, "warmup_seconds": 0, "runs": 5, "seconds": 0}
    quick = TARGET.model_copy(update={"bench": TARGET.bench.model_copy(update=protocol)})
    record = bench_run(exported, quick)
    for label in ("student", "student.int8"):
        apart = record["models"][label]["apart"]
        assert apart["students"] == 3
        for way in ("one_by_one", "parallel"):
            assert apart[way]["processes"] == 2
            assert apart[way]["samples"] >= 10
            assert 0 < apart[way]["min"] <= apart[way]["p50"]
    BenchRecord.model_validate(read_json(exported.bench_file))
    shown = {row[0]: row[1:] for row in rows(record)}
    assert shown["parts in parallel, p50"][0] == "-"  # the teacher has none
    assert shown["parts in parallel, p50"][1] != "-"
    (exported.parts / "student_1.int8.onnx").unlink()
    with pytest.raises(BadRun, match=r"student_1\.int8\.onnx is missing; export again: .* --split --int8"):
        bench_run(exported, quick)


@pytest.mark.slow
def test_parts_of_older_weights_are_removed(exported):
    with exported.student_weights.open("ab") as file:
        file.write(b" ")
    with pytest.raises(BadRun, match=r"student_0\.onnx is of older weights than student\.safetensors"):
        exported_parts(exported, exported.record())
    assert any("older weights" in line for line in without_stale(exported))
    assert not list(exported.parts.iterdir())
    assert without_stale(exported) == []


@pytest.mark.slow
def test_a_run_on_samples_is_exported_without_a_generator(whole):
    assert not whole.generator_weights.exists()
    record = read_json(whole.export_file)
    assert "generator" not in record["files"]
    assert record["quantization"]["samples"]["count"] == 64
    with np.load(whole.path.parent / "real.npz") as data:
        real = {image.tobytes() for image in data["images"]}
    assert {image.tobytes() for image in whole.procedural((1, 12, 12))} <= real


def test_one_student_cannot_be_split(teacher_file, run):
    distill(teacher_file, settings(), run)
    with pytest.raises(BadSetting, match=r"--split: its student is one network; .*teacher-class"):
        export(run, int8=False, target=TARGET, recipe=RECIPE, apart=True)
    assert not run.student_onnx.exists()
