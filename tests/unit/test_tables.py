"""Rows of a table in place of images: what a forest answers to `[N, F]`, and a student that takes the same rows."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from forests import CLASSES, FEATURES, forest
from test_distill import interrupted, settings, weights

from edgekd import codes, flags
from edgekd.bench.of_run import bench_run
from edgekd.config import DistillSettings, Reach
from edgekd.devices import Protocol, load_recipe, load_target
from edgekd.distill import distill
from edgekd.errors import BadData, BadModel, BadSetting
from edgekd.evaluate import evaluate_run
from edgekd.export import export
from edgekd.inference import agreement, logits
from edgekd.run_folder import RunFolder
from edgekd.teachers.function import FunctionSource
from edgekd.teachers.pixels import Stated
from edgekd.teachers.spec import read_spec

GUIDED = {"asked": 16, "bred": 0.5, "doubted": 1.0, "prior": 256}
LONG = {"student_steps": 8, "prior": 2048, "bank": 2048, "student_optimizer": "adam", "student_rate": 0.01}
BOUNDS = ((0.0, 1.0), (-1.0, 1.0), (100.0, 900.0), (0.0, 1e-3), (0.0, 1.0), (5.0, 6.0))
LOW, HIGH = np.array(BOUNDS).T


def guided(**changes: Any) -> DistillSettings:
    return settings(recipe=GUIDED | changes.pop("recipe", {}), **changes)


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    onnx.save(forest(), tmp_path / "forest.onnx")
    return tmp_path / "forest.onnx"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A forest whose features have units of their own."""
    onnx.save(forest(low=LOW, high=HIGH), tmp_path / "units.onnx")
    return tmp_path / "units.onnx"


def rows(count: int, low: Any = 0.0, high: Any = 1.0) -> np.ndarray:
    return np.random.default_rng(5).uniform(low, high, (count, FEATURES)).astype(np.float32)


# ------------------------------------------------------------------------------------------------------- what is told


def test_an_input_of_rows_is_a_table_unless_it_is_said_to_be_an_image(trees: Path) -> None:
    spec = read_spec(trees)
    assert (spec.layout, spec.channels, spec.height, spec.width) == ("NF", FEATURES, 1, 1)
    assert read_spec(trees, input_shape=(FEATURES, 1, 1)).layout == "NF"
    image = read_spec(trees, input_shape=(1, 2, 3))
    assert (image.layout, image.channels, image.height, image.width) == ("NCHW", 1, 2, 3)
    with pytest.raises(BadSetting, match="it takes 6 numbers; allowed: 6, or an image of so many"):
        read_spec(trees, input_shape=(1, 2, 2))


def test_what_was_taken_for_granted_is_told(trees: Path, run: RunFolder) -> None:
    seen: list[Any] = []
    distill(trees, guided(steps=1), run, watch=seen.append)
    told = "\n".join(one.message for one in seen if one.message)
    assert "teacher: rows of 6 features (if they are pixels, say --input-shape C,H,W), 3 classes" in told
    assert "layout" not in told
    assert "no gradient, therefore access scores: " in told


def test_bounds_of_every_feature_are_told_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bounds.csv"
    file.write_text("# low, high\n0,1\nheight, -1, 1\n\n100,9e2\n")
    assert flags.every_bound(file) == ((0.0, 1.0), (-1.0, 1.0), (100.0, 900.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,1\n1,0\n", "line 2: 1,0 is no range; allowed: a line LOW,HIGH or NAME,LOW,HIGH for each feature"),
        ("low,high\n0,1\n", "line 1 is 'low,high'"),
        ("0,inf\n", "line 1: 0,inf is no range"),
        ("5\n", "line 1 is '5'"),
        ("# nothing\n", "it holds no ranges"),
        (None, "cannot be read: No such file"),
    ],
)
def test_bounds_that_are_none_are_one_line(call, tmp_path: Path, trees: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "bounds.csv").write_text(text)
    done = call("distill", trees, "--bounds", "bounds.csv", "--out", "run")
    assert (done.code, said in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bounds": BOUNDS[:2]}, "--bounds: 2 ranges for 6 features; allowed: 6 lines of LOW,HIGH"),
        ({"bounds": BOUNDS, "input_range": (0.0, 1.0)}, "--input-range: --bounds tells it already"),
        ({"bounds": BOUNDS, "gradient": "estimate", "method": "edgekd"}, "an estimate takes steps of one size"),
        ({"student": "lenet5"}, "student lenet5: it takes images, the teacher rows of a table; allowed: auto, mlp"),
    ],
)
def test_what_does_not_fit_a_table_is_refused(trees: Path, run: RunFolder, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        distill(trees, settings(**changes), run)
    assert not run.path.exists()


def test_a_table_s_student_is_none_for_images(teacher_file: Path, run: RunFolder) -> None:
    with pytest.raises(BadSetting, match="student mlp: it takes rows of a table, the teacher images"):
        distill(teacher_file, settings(student="mlp"), run)


# ---------------------------------------------------------------------------------------------- bounds of each feature


def test_codes_cover_each_feature_s_own_range() -> None:
    import torch

    from edgekd.teachers.codes import from_codes, rounded, to_codes

    ends = np.array([[0] * FEATURES, [255] * FEATURES], np.uint8)[:, :, None, None]
    low, high = tuple(LOW), tuple(HIGH)
    found = codes.from_codes(ends, low, high)
    np.testing.assert_allclose(found[:, :, 0, 0], [LOW, HIGH], rtol=1e-6)
    values = torch.from_numpy(rows(50, LOW, HIGH))[:, :, None, None]
    stored = to_codes(values, low, high)
    torch.testing.assert_close(
        from_codes(stored, low, high), torch.from_numpy(codes.from_codes(stored.numpy(), low, high))
    )
    assert torch.equal(to_codes(rounded(values, low, high), low, high), stored)
    step = torch.tensor((HIGH - LOW) / 255, dtype=torch.float32)[:, None, None]
    assert ((from_codes(stored, low, high) - values).abs() <= 0.51 * step).all()


def test_every_feature_is_asked_about_all_over_its_range_and_nowhere_else(units: Path, run: RunFolder) -> None:
    distill(units, guided(steps=12, bounds=BOUNDS), run)
    held = run.held_out()
    asked = np.concatenate([held.images(), codes.from_codes(run.procedural((FEATURES, 1, 1)), held.low, held.high)])
    asked = asked[:, :, 0, 0]
    assert (asked >= LOW - 1e-6 * (HIGH - LOW)).all()
    assert (asked <= HIGH + 1e-6 * (HIGH - LOW)).all()
    np.testing.assert_array_less(0.9 * (HIGH - LOW), np.ptp(asked, axis=0))
    np.testing.assert_array_equal(held.logits.argmax(1), logits(units, held.images()).argmax(1))
    assert run.record()["teacher"]["low"] == list(LOW)


def test_a_run_of_a_table_is_resumed_to_the_same_bits(units: Path, tmp_path: Path, monkeypatch) -> None:
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    chosen = guided(max_queries=400, bounds=BOUNDS)
    distill(units, chosen, whole)
    interrupted(units, parts, 3, monkeypatch, chosen)
    distill(units, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)
    assert parts.record()["queries"] == whole.record()["queries"]


# ----------------------------------------------------------------------------------------------------- from end to end


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    """A run of a forest in units of its own, exported and quantized, and its teacher."""
    folder = tmp_path_factory.mktemp("learned")
    onnx.save(forest(low=LOW, high=HIGH), folder / "units.onnx")
    run = RunFolder(folder / "run")
    distill(folder / "units.onnx", guided(steps=200, max_queries=3000, width=0.25, bounds=BOUNDS, recipe=LONG), run)
    recipe = load_recipe("minmax").model_copy(update={"samples": 256})
    export(run, int8=True, target=load_target("cpu"), recipe=recipe)
    return folder / "units.onnx", run


def test_a_student_of_a_forest_takes_its_rows_and_says_what_it_says(learned: tuple[Path, RunFolder]) -> None:
    teacher, run = learned
    entry = onnx.load(run.student_onnx).graph.input[0]
    assert entry.name == "X"
    assert [dim.dim_value for dim in entry.type.tensor_type.shape.dim][1:] == [FEATURES]
    shown = rows(2000, LOW, HIGH)
    assert agreement(logits(teacher, shown), logits(run.student_onnx, shown)) > 0.85
    assert run.record()["student"]["name"] == "mlp"


def test_its_int8_student_is_evaluated_measured_and_gated(learned, tmp_path: Path, call) -> None:
    teacher, run = learned
    shown = rows(500, LOW, HIGH)
    np.savez(tmp_path / "rows.npz", images=shown, labels=logits(teacher, shown).argmax(axis=1))
    found = evaluate_run(run, tmp_path / "rows.npz")
    assert found["student.onnx"]["teacher"]["accuracy"] == 1.0
    assert found["student.int8.onnx"]["accuracy"] > found["student.onnx"]["accuracy"] - 0.05
    quick = Protocol(runs=10, seconds=0.001, warmup_runs=1, warmup_seconds=0, processes=1)
    measured = bench_run(run, load_target("cpu").model_copy(update={"bench": quick}))["models"]
    assert set(measured) == {"teacher", "student", "student.int8"}
    assert measured["student.int8"]["latency_ms"]["p50"] > 0
    assert measured["teacher"]["agreement"] == 1.0
    assert [call("gate", run.path, "--max-size", size).code for size in ("1MB", "1kB")] == [0, 1]


def test_uint8_rows_could_mean_numbers_or_codes_and_are_refused(
    learned: tuple[Path, RunFolder], tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", images=np.zeros((4, FEATURES), np.uint8), labels=np.zeros(4, int))
    with pytest.raises(BadData, match=r"images are uint8 of shape \[4, 6\]; allowed: .*float32 \[N, F\] of a table"):
        evaluate_run(learned[1], tmp_path / "rows.npz")


# -------------------------------------------------------------------------------------------------- outside the process


def test_a_student_of_one_s_own_is_shown_rows(trees: Path, run: RunFolder, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\ndef rows(shape, classes, width):\n    return nn.Linear(shape[0], classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    distill(trees, guided(steps=2, student="own:rows"), run)
    assert run.record()["student"]["parameters"] == FEATURES * CLASSES + CLASSES


def test_the_mlp_scales_its_three_layers() -> None:
    from edgekd.networks import build_student, parameters

    sizes = [parameters(build_student("mlp", width, (64, 1, 1), 10)) for width in (1.0, 0.25)]
    assert sizes == [(64 * h + h) + 2 * (h * h + h) + (h * 10 + 10) for h in (256, 64)]


def test_a_server_of_rows_is_a_table(server, run: RunFolder) -> None:
    server.input = {"name": "x", "datatype": "FP32", "shape": [-1, 144]}
    distill(server.url, guided(max_queries=200, steps=12), run)
    assert run.record()["teacher"]["layout"] == "NF"
    assert run.record()["queries"]["asked"] == server.asked == 200


def test_a_function_of_rows_is_told_how_many_features_they_have(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "rowed.py").write_text(
        "import numpy as np\ndef answer(rows):\n    assert rows.ndim == 2\n    return rows[:, :3]\n"
    )
    monkeypatch.chdir(tmp_path)
    stated = Stated(input_shape=flags.shape("6"), input_range=(0.0, 2.0))
    source = FunctionSource("python:rowed:answer", stated, Reach(trust_callable=True), {})
    assert (source.spec.layout, source.spec.classes) == ("NF", CLASSES)
    np.testing.assert_array_equal(source.ask(rows(5)[:, :, None, None], lambda _: None), rows(5)[:, :3])


def test_a_row_of_unknown_length_has_to_be_told(tmp_path: Path) -> None:
    model = forest()
    model.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
    onnx.save(model, tmp_path / "free.onnx")
    with pytest.raises(BadModel, match=r"leaves the number of features free; say how many .* with --input-shape F"):
        read_spec(tmp_path / "free.onnx")
    assert read_spec(tmp_path / "free.onnx", input_shape=(FEATURES, 1, 1)).channels == FEATURES


def test_what_is_asked_is_counted_row_by_row(trees: Path, run: RunFolder) -> None:
    distill(trees, guided(max_queries=300, steps=12), run)
    file = sqlite3.connect(run.ledger_file)
    (kept,) = file.execute("SELECT COUNT(*) FROM answers").fetchone()
    file.close()
    assert kept == run.record()["queries"]["asked"] == 300
    last = json.loads(run.metrics_file.read_text().splitlines()[-1])
    assert last["queries"] == 300
    assert not list(run.samples.glob("*.png"))  # a row is no picture
