"""Fidelity without data: probes are what they say, shares are exact, and an estimate is made only by a calibration."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from calling import Call
from folders import finished
from onnx import TensorProto, helper, numpy_helper

from edgekd import fidelity
from edgekd.fidelity import CHANGED
from edgekd.run_folder import HeldOut, RunFolder, write_json
from edgekd.unseen import Calibration, Curve, logit, shipped_calibration

Make = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, make_picker: Make) -> RunFolder:
    """A teacher that picks one of four pixels, and a student that picks the same."""
    return finished(tmp_path / "run", make_picker("teacher.onnx"), make_picker("student-file.onnx"))


@pytest.fixture
def unsure(run: RunFolder) -> RunFolder:
    """The same, of a teacher that is not equally sure of 400 images, and a student that agrees where it is sure."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, size=(400, 1, 2, 2), dtype=np.uint8)
    logits = codes.reshape(400, 4).astype(np.float32) / 32
    # Where the two brightest are near each other the teacher had chosen the darker one: its file no longer does.
    places, brightest = np.arange(400), np.argsort(logits, axis=1)[:, ::-1]
    near = logits[places, brightest[:, 0]] - logits[places, brightest[:, 1]] < 0.5
    logits[places[near], brightest[near, 1]] += 1.0
    run.write_held_out(HeldOut(codes, logits, 0.0, 1.0))
    run.metrics_file.write_text(json.dumps({"step": 1, "seconds": 1, "soft_labels": 0.2}))
    return run


CALIBRATION: dict[str, Any] = {
    "schema": "edgekd.fidelity-calibration/3",
    **{"weight": 0.4, "promised": 0.9, "reach": 0.25, "triples": 9, "datasets": ["a", "b"]},
}
FITTED = Calibration.model_validate(CALIBRATION)


def test_probes_are_images_of_the_same_kind_changed_as_they_say() -> None:
    codes = np.random.default_rng(0).integers(0, 256, size=(50, 3, 6, 5), dtype=np.uint8)
    made = {name: change(codes, np.random.default_rng(1)) for name, change in CHANGED.items()}
    assert all(one.dtype == np.uint8 and one.shape == codes.shape for one in made.values())
    again = {name: change(codes, np.random.default_rng(1)) for name, change in CHANGED.items()}
    assert all((made[name] == again[name]).all() for name in made)
    order = np.random.default_rng(1).permutation(50)
    assert (made["blended"] == (codes.astype(int) + codes[order]) // 2).all()
    assert made["faint"].std() < 0.6 * codes.std()
    inside = (codes > 80) & (codes < 175)  # where nothing is cut off
    assert (made["noisy"].astype(int) - codes)[inside].std() == pytest.approx(16, rel=0.1)
    assert all(_moved(old, new) for old, new in zip(codes, made["shifted"], strict=True))


def _moved(old: np.ndarray, new: np.ndarray) -> bool:
    down, up = (new[:, 2:] == old[:, :-2]).all(), (new[:, :-2] == old[:, 2:]).all()
    right, left = (new[:, :, 2:] == old[:, :, :-2]).all(), (new[:, :, :-2] == old[:, :, 2:]).all()
    return bool(down or up or right or left)


def test_a_student_that_is_its_teacher_agrees_on_every_probe(run: RunFolder) -> None:
    (record,) = fidelity.fidelity(run).values()
    assert {name: one["agreement"] for name, one in record["probes"].items()} == dict.fromkeys(
        ["held_out", *CHANGED], 1.0
    )
    assert record["probes"]["held_out"]["interval"] == [pytest.approx(0.912, abs=1e-3), 1.0]
    assert (record["estimate"], record["seldom"]) == (None, [3])
    assert record["why"] == "40 held-out images are too few, it takes 200: distil for longer"
    assert json.loads(run.fidelity_file.read_text())["models"] == {"student.onnx": record}


def test_another_student_agrees_where_it_does(run: RunFolder, make_picker: Make) -> None:
    run.student_onnx.write_bytes(make_picker("other.onnx", shift=1).read_bytes())
    (record,) = fidelity.fidelity(run).values()
    assert {one["agreement"] for name, one in record["probes"].items() if name == "held_out"} == {0.0}
    assert [one["agreement"] for one in record["per_class"]] == [0.0, 0.0, 0.0, None]


def test_without_the_teachers_file_there_are_only_the_answers_that_were_kept(unsure: RunFolder) -> None:
    Path(unsure.record()["teacher"]["path"]).unlink()
    (record,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.9).values()
    assert list(record["probes"]) == ["held_out"]
    assert record["estimate"]["accuracy"] == 0.9


def test_an_estimate_is_of_the_curve_and_the_teachers_accuracy(unsure: RunFolder) -> None:
    (record,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.9).values()
    held = unsure.held_out()
    alike = held.codes.reshape(400, 4).argmax(1) == held.logits.argmax(1)
    curve = Curve.fitted(held.logits, alike)
    assert record["curve"] == curve.model_dump()
    middle, *ends = FITTED.estimate(curve.expected(0.9), alike.mean(), 0.2)
    assert record["estimate"] == {"agreement": middle, "interval": ends, "promised": 0.9, "accuracy": 0.9}
    assert record["why"] is None
    (better,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.99).values()
    assert better["estimate"]["agreement"] > middle


def test_what_a_run_was_told_of_its_teacher_counts(unsure: RunFolder) -> None:
    record = unsure.record()
    write_json(unsure.record_file, record | {"settings": record["settings"] | {"teacher_accuracy": 0.8}})
    (told,) = fidelity.fidelity(unsure, calibration=FITTED).values()
    assert told["estimate"]["accuracy"] == 0.8
    again = fidelity.of_held_out(unsure, lambda images: images.reshape(len(images), 4), FITTED)
    assert again["estimate"] == told["estimate"]


@pytest.mark.parametrize(
    ("accuracy", "why"), [(None, "Tell by --teacher-accuracy"), (0.2, "more often than by chance, 25.00 %")]
)
def test_why_there_is_no_estimate(unsure: RunFolder, accuracy: float | None, why: str) -> None:
    (record,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=accuracy).values()
    assert record["estimate"] is None
    assert why in record["why"]
    assert record["curve"] is not None


def test_there_is_no_estimate_for_a_student_that_has_not_learned_what_it_was_shown(unsure: RunFolder) -> None:
    losses = [2.0] * 90 + [0.25] * 5 + [0.17] * 5  # only the last tenth counts
    lines = [json.dumps({"step": step, "seconds": step, "soft_labels": loss}) for step, loss in enumerate(losses)]
    unsure.metrics_file.write_text("\n".join(lines) + "\n{broken")
    (record,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.9).values()
    assert (record["estimate"], record["loss"]) == (None, pytest.approx(0.21))
    assert "its distillation loss came down to 0.21, it takes 0.2; distil for longer" in record["why"]
    unsure.metrics_file.write_text("\n".join(lines[:-5] + lines[-5:] * 10))
    (better,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.9).values()
    assert better["loss"] == pytest.approx(0.17)
    assert better["estimate"]


def test_there_is_no_estimate_where_no_soft_labels_were_learned(unsure: RunFolder) -> None:
    unsure.metrics_file.write_text(json.dumps({"step": 1, "seconds": 1, "one_hot": 0.2}))
    (record,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.9).values()
    assert (record["estimate"], record["loss"]) == (None, None)
    assert "soft labels" in record["why"]
    unsure.metrics_file.unlink()
    (again,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.9).values()
    assert again["why"] == record["why"]


def test_real_samples_that_were_held_out_are_not_taken_for_generated_ones(unsure: RunFolder) -> None:
    record = unsure.record() | {"samples": {"alone": True, "count": 400}}
    write_json(unsure.record_file, record)
    (told,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.9).values()
    assert (told["estimate"], told["curve"]) == (None, None)
    assert "expect the same share" in told["why"]


def test_probes_of_the_generator_and_of_unseen_procedural_images(run: RunFolder, make_picker: Make) -> None:
    weights = np.full((3, 4), 0.1, np.float32)
    nodes = [
        helper.make_node("MatMul", ["latent", "w"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["bright"]),
        helper.make_node("Reshape", ["bright", "shape"], ["image"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("latent", ["N", 3]), ("image", None))]
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([-1, 1, 2, 2]), "shape")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), run.generator_onnx)
    assert set(fidelity.probes(run, run.held_out(), 0)) == {*CHANGED, "generated"}
    unseen = np.random.default_rng(3).integers(0, 256, (20, 1, 2, 2), dtype=np.uint8)
    run.write_procedural(unseen[:2], unseen)
    found = fidelity.probes(run, run.held_out(), 0)
    assert {*found, "held_out"} == set(fidelity.PROBES)
    assert len(found["generated"]) == fidelity.DRAWN
    assert (found["procedural"] == unseen).all()
    assert (found["mixed"] == (found["generated"][:20].astype(int) + unseen) // 2).all()
    (record,) = fidelity.fidelity(run).values()
    assert record["probes"]["mixed"]["agreement"] == 1.0


def test_classes_are_estimated_by_the_shift_of_all(unsure: RunFolder) -> None:
    (record,) = fidelity.fidelity(unsure, calibration=FITTED, accuracy=0.9).values()
    moved = logit(record["estimate"]["agreement"]) - logit(record["probes"]["held_out"]["agreement"])
    one = record["per_class"][0]
    assert logit(one["estimate"]) == pytest.approx(logit(one["agreement"]) + moved)
    assert "real images" in fidelity.class_rows({"a": record})[0][2]


def test_at_its_end_a_distillation_says_how_far_its_student_agrees(run: RunFolder) -> None:
    told = fidelity.of_held_out(run, lambda images: images.reshape(len(images), 4))
    assert told["probes"]["held_out"]["agreement"] == 1.0
    assert fidelity.cautions(told) == ["the student hardly saw classes 3"]
    often = told | {"collapses": 2, "seldom": list(range(30))}
    assert fidelity.cautions(often)[0].endswith("18, 19 …")
    assert fidelity.cautions(often)[1] == "the generator collapsed 2 times in this run: expect a weaker student"


def test_pixels_of_an_image_are_related() -> None:
    alike = np.repeat([[True], [False]] * 10, 100, axis=1)
    told = fidelity._share(alike)
    assert (told["n"], told["agreement"]) == (2000, 0.5)
    assert told["interval"][1] - told["interval"][0] > 0.3


@pytest.mark.parametrize("wrong", [{"schema": "x"}, {"reach": -1.0}, {"weight": None}, {"more": 1}])
def test_what_is_no_calibration_is_refused(call: Call, run: RunFolder, tmp_path: Path, wrong: dict[str, Any]) -> None:
    file = tmp_path / "calibration.json"
    write_json(file, CALIBRATION | wrong)
    refused = call("eval", run.path, "--no-data", "--calibration", file)
    assert (refused.code, refused.out) == (2, "")
    assert str(file) in refused.err


def test_the_command_tells_probes_and_what_it_cannot_know(call: Call, unsure: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    write_json(file, CALIBRATION)
    run = unsure
    shown = call("eval", run.path, "--no-data", "--calibration", file)
    assert shown.code == 0
    assert "student.onnx  held out" in shown.out
    assert "no estimate for real images: how often is the teacher right on them" in shown.err
    told = call("eval", run.path, "--no-data", "--calibration", file, "--teacher-accuracy", "90 %")
    assert "real images, estimated" in told.out
    for wrong, allowed in (("1.2", "0.9, 90 %"), ("0", "0.93, 93 %"), ("high", "0.9, 90 %")):
        refused = call("eval", run.path, "--no-data", "--teacher-accuracy", wrong)
        assert refused.code == 2
        assert allowed in refused.err
    refused = call("eval", run.path, "--data", "x.npz", "--teacher-accuracy", "0.9")
    assert (refused.code, "--teacher-accuracy: labels tell" in refused.err) == (2, True)
    both = call("eval", run.path, "--no-data", "--data", "x.npz")
    assert (both.code, both.err) == (
        2,
        "edgekd: error: --no-data: --data beside --no-data; allowed: with a run alone\n",
    )
    assert call("eval", run.path).code == 2


def test_the_calibration_that_ships_is_the_one_that_was_judged() -> None:
    judged = json.loads((Path(__file__).parents[2] / "benchmarks/results/fidelity_judged.json").read_text())
    shipped = shipped_calibration()
    assert shipped == Calibration.model_validate(judged["calibration"])
    assert judged["all"]["within_3_points"] >= 0.8
    assert judged["covered"] >= shipped.promised


# ---------------------------------------------------------------------------------------------------------- the fitting


@pytest.fixture(scope="module")
def fit() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks/fidelity/fit.py"
    spec = importlib.util.spec_from_file_location("fidelity_fit", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def triples(count: int, noise: float = 0.1) -> list[dict[str, Any]]:
    """Made up: agreement on real images lies two fifths of the way from what was to be expected to the share on
    held-out ones, in logits, but for noise."""
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        expected, share = random.uniform(0.85, 0.99), random.uniform(0.7, 0.95)
        true = 0.6 * float(logit(expected)) + 0.4 * float(logit(share)) + random.normal(0, noise)
        told = {"pair": "p", "student": "s", "minutes": 1, "file": "f", "dataset": f"set {number % 4}"}
        told |= {"expected": expected, "probes": {"held_out": share}, "loss": 0.1}
        found.append(told | {"true": 1 / (1 + np.exp(-true))})
    return found


def test_a_fit_finds_what_the_triples_were_made_by(fit: ModuleType) -> None:
    found = fit.fitted(triples(400, noise=0.02))
    assert found.weight == pytest.approx(0.4, abs=0.02)
    assert found.datasets == ("set 0", "set 1", "set 2", "set 3")


def test_a_data_set_on_which_students_fail_does_not_move_the_others(fit: ModuleType) -> None:
    many = triples(400)
    failed = [one | {"true": 0.3} if one["dataset"] == "set 0" else one for one in many]
    assert fit.fitted(failed).weight == pytest.approx(0.4, abs=0.25)


def test_every_data_set_counts_alike(fit: ModuleType) -> None:
    many = [one | {"true": 0.6} if one["dataset"] == "set 0" else one for one in triples(40)]
    twice = many + [one for one in many if one["dataset"] == "set 0"] * 5
    joined = [one | {"dataset": "a"} for one in twice]
    assert fit.weight(twice) == fit.weight(many) < fit.weight(joined)


def test_students_that_learned_too_little_are_left_out(fit: ModuleType) -> None:
    one = {**triples(1)[0], "held_out": 500, "curve": {}, "loss": 0.19}
    assert fit.usable(one)
    assert not fit.usable(one | {"loss": 0.21})
    assert not fit.usable(one | {"held_out": 199})
    assert not fit.usable(one | {"curve": None})
    assert not fit.usable(one | {"probes": {"held_out": 0.59}})


def test_left_out_data_sets_are_estimated_by_the_others(fit: ModuleType) -> None:
    found = fit.judged(triples(200))
    assert found["covered"] > 0.9  # four data sets cover by all that any of them missed
    assert found["within_3_points"] > 0.8
    assert all(low < one["estimate"] < high for one in found["scatter"] for low, high in [one["interval"]])
    spoiled = triples(200)
    for one in spoiled:
        if one["dataset"] == "set 0":
            one["true"] = 1 - one["true"]
    worse = fit.judged(spoiled)
    assert worse["datasets"]["set 0"]["covered"] < 0.3
    assert worse["median_width"] > 5 * found["median_width"]


def test_ninety_per_cent_of_other_data_sets_takes_nine_of_them(fit: ModuleType) -> None:
    def of(sets: int) -> list[dict[str, Any]]:
        return [{"dataset": str(k % sets), "missed": float(k)} for k in range(10 * sets)]

    assert [fit.promised(sets) for sets in (4, 8, 9, 30)] == [4 / 5, 8 / 9, 0.9, 0.9]
    assert fit.quantile(of(8)) == 79.0
    assert fit.quantile(of(9)) == 89.0
    assert fit.quantile(of(19)) == 179.0  # 18 of 20 data sets: all but a tenth of one's
    few = [{"dataset": "a", "missed": 9.0}, *({"dataset": "b", "missed": 1.0} for _ in range(99))]
    assert fit.quantile(few) == 9.0
