"""Joining headers: what is learned from samples, what it does to the files, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from records import run_record
from tiny_teacher import classifier

from edgekd import networks, onnx_file, tracing
from edgekd.aggregate import aggregate
from edgekd.bench import bench
from edgekd.devices import load_recipe, load_target
from edgekd.errors import BadData, BadRun, BadSetting
from edgekd.export import export
from edgekd.inference import logits, open_session
from edgekd.quantize import Terms, generator_samples
from edgekd.run_folder import HeldOut, RunFolder, write_json

TARGET, RECIPE = load_target("cpu"), load_recipe("minmax").model_copy(update={"samples": 64})
SIDES = {"input_name": "pixels", "height": 12, "width": 12}


def distilled(path: Path, kind: str = "shared", **teacher: object) -> RunFolder:
    """A run as distill leaves it, of a student with three headers that has random weights."""
    torch.manual_seed(0)
    record = run_record(SIDES | teacher)
    record["student"] |= {"headers": {"kind": kind, "count": 3}}
    run, student, generator = RunFolder(path), networks.student_of(record), networks.generator_of(record)
    with torch.no_grad():
        images = generator.train()(torch.randn(64, 6))
        for classifier_ in student.network.classifiers:
            classifier_.weight *= 20  # headers that are of different minds
        student.train()(images)
    write_json(run.record_file, record)
    safetensors.torch.save_file(student.state_dict(), run.student_weights)
    safetensors.torch.save_file(generator.state_dict(), run.generator_weights)
    codes = (images.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    held = HeldOut(codes, np.zeros((64, 4), np.float32), 0.0, 1.0)
    run.write_held_out(HeldOut(codes, tracing.answers(student.eval(), held.images()), 0.0, 1.0))
    return run


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return distilled(tmp_path_factory.mktemp("aggregate") / "run")


@pytest.fixture
def run(original: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(original.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def heads(run: RunFolder, images: np.ndarray) -> np.ndarray:
    """Every header's logits, `[N, H, K]`."""
    student = networks.load_student(run.record(), run.student_weights)
    with torch.no_grad():
        return student.answer(torch.from_numpy(images))[..., :4].numpy()


def images(count: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 12, 12), dtype=np.float32)


def labelled(run: RunFolder, best: int = 1) -> Path:
    """Samples whose labels are what one of the headers says."""
    shown = images()
    np.savez(run.path.parent / "real.npz", images=shown, labels=heads(run, shown)[:, best].argmax(axis=1))
    return run.path.parent / "real.npz"


def test_labels_teach_which_header_to_trust_by_its_own_logits(run):
    record = aggregate(run, labelled(run))
    assert record == json.loads(run.aggregation_file.read_text())
    assert record["joined"] == "attention"
    assert record["samples"]["images"] == 120
    assert record["samples"]["labels"]
    assert record["loss"]["attention"] < record["loss"]["mean"]
    assert sum(record["shares"]) == pytest.approx(1)
    assert record["student"] == onnx_file.sha256(run.student_weights)


def test_the_student_itself_stays_as_it_is(run):
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    aggregate(run, labelled(run))
    after = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"aggregation.json"}


def test_what_is_learned_is_what_the_equation_says(run):
    weights = np.array(aggregate(run, labelled(run))["scorer"])
    each, shown = heads(run, images(7, seed=3)), images(7, seed=3)
    scores = np.exp(each @ weights)
    expected = (each * (scores / scores.sum(axis=1, keepdims=True))[..., None]).sum(axis=1)
    student = networks.load_student(run.record(), run.student_weights, scorer=run.scorer())
    with torch.no_grad():
        np.testing.assert_allclose(student(torch.from_numpy(shown)), expected, rtol=1e-4, atol=1e-4)


def test_without_samples_it_is_the_mean_again(run):
    aggregate(run, labelled(run))
    assert run.scorer() is not None
    assert aggregate(run, None)["joined"] == "mean"
    assert run.scorer() is None


def test_channels_may_come_last_and_bytes_are_spread_over_the_range(tmp_path):
    run = distilled(tmp_path / "run", channels=3, low=-1.0, high=1.0, layout="NHWC")
    codes, random = np.random.default_rng(0).integers(0, 256, (40, 3, 12, 12)).astype(np.uint8), np.arange(40) % 4
    found = []
    for given in (codes, codes.transpose(0, 2, 3, 1), (codes / 255 * 2 - 1).astype(np.float32)):
        np.savez(tmp_path / "real.npz", images=given, labels=random)
        found.append(aggregate(run, tmp_path / "real.npz")["scorer"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)  # kernels differ with how images lie in memory
    np.testing.assert_allclose(found[2], found[0], atol=1e-3)


# ------------------------------------------------------------------------------------------------ without labels


def of_teachers(run: RunFolder, settings: dict[str, object]) -> list[Path]:
    """Give the run three teachers' files."""
    from edgekd.distill import resolve_settings
    from edgekd.teachers.ledger import Ledger
    from edgekd.teachers.open import Reach, opened_teachers

    files = []
    for seed in range(3):
        files.append(run.path.parent / f"{seed}.onnx")
        onnx.save(classifier(seed=seed), files[-1])
    chosen = resolve_settings({"method": "cdfkd-mfs", "steps": 1, **settings})
    with opened_teachers(files, chosen, Ledger(run.ledger_file), Reach()) as opened:
        facts = json.loads(json.dumps([one.facts for one in opened]))
    told = {"teacher": facts[0], "more_teachers": facts[1:], "settings": chosen.model_dump(mode="json")}
    write_json(run.record_file, run.record() | told)
    return files


def test_without_labels_the_teachers_mean_is_the_goal(run):
    files, shown = of_teachers(run, {}), images(90)
    np.savez(run.path.parent / "real.npz", images=shown)
    record = aggregate(run, run.path.parent / "real.npz")
    assert not record["samples"]["labels"]
    mean = np.mean([logits(file, shown) for file in files], axis=0)

    def divergence(joined: np.ndarray) -> float:
        p, q = (np.exp(x - x.max(1, keepdims=True)) for x in (mean.astype(np.float64), joined.astype(np.float64)))
        p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
        return float((p * np.log(p / q)).sum(1).mean())

    assert record["loss"]["mean"] == pytest.approx(divergence(heads(run, shown).mean(axis=1)), rel=1e-3)
    assert record["loss"]["attention"] < record["loss"]["mean"]
    assert not run.ledger_file.is_file()  # of an exact gradient nothing is counted


def test_teachers_that_are_only_asked_are_counted_in_the_run_s_ledger(run):
    from edgekd.teachers.ledger import Ledger

    of_teachers(run, {"access": "scores", "gradient": "estimate"})
    np.savez(run.path.parent / "real.npz", images=images(20))
    for _ in range(2):  # known the second time
        aggregate(run, run.path.parent / "real.npz")
    assert Ledger(run.ledger_file).asked == 60


# ---------------------------------------------------------------------------------------------------------- export


def calibrated(run: RunFolder) -> np.ndarray:
    """Images like those that INT8 ranges were found on: of a student that never learned, others are far outside."""
    return generator_samples(run.generator_onnx, 32, seed=9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shared", "plain"])
def test_the_file_joins_as_torch_does_with_one_output(tmp_path, kind):
    run = distilled(tmp_path / "run", kind)
    aggregate(run, labelled(run))
    record = export(run, int8=True, target=TARGET, recipe=RECIPE, terms=Terms(force=True))
    assert record["headers"] == {"kept": [0, 1, 2], "joined": "attention", "outputs": False}
    assert run.exported(run.student_int8_onnx) == run.student_int8_onnx
    model = onnx.load(run.student_onnx)
    assert [output.name for output in model.graph.output] == ["logits"]
    student = networks.load_student(run.record(), run.student_weights, scorer=run.scorer())
    with torch.no_grad():
        expected = student(torch.from_numpy(images(5)))
    np.testing.assert_allclose(logits(run.student_onnx, images(5)), expected, rtol=1e-4, atol=1e-4)
    near, int8 = (logits(path, calibrated(run)) for path in (run.student_onnx, run.student_int8_onnx))
    np.testing.assert_allclose(int8, near, atol=0.05 * np.abs(near).max())
    assert int8.std(axis=0).max() > 0
    aggregate(run, None)
    with pytest.raises(BadRun, match=r"student\.onnx joins its headers otherwise .*export again: edgekd export"):
        run.exported(run.student_onnx)
    assert onnx_file.parameters(model) <= networks.parameters(student)  # batch normalization is folded


@pytest.mark.slow
def test_headers_are_further_outputs_if_wanted_and_nobody_else_minds(run):
    record = export(
        run,
        int8=True,
        target=TARGET,
        recipe=RECIPE,
        keep_headers=[0, 2],
        header_outputs=True,
        terms=Terms(force=True),
    )
    assert record["headers"] == {"kept": [0, 2], "joined": "mean", "outputs": True}
    shown = calibrated(run)
    expected = heads(run, shown)[:, [0, 2]]
    for path, share in ((run.student_onnx, 1e-4), (run.student_int8_onnx, 0.05)):
        assert [output.name for output in onnx.load(path).graph.output] == ["logits", "header_0", "header_2"]
        found, near = open_session(path).run(None, {"pixels": shown}), share * np.abs(expected).max()
        np.testing.assert_allclose(found[0], expected.mean(axis=1), atol=near)
        np.testing.assert_allclose(found[1], expected[:, 0], atol=near)
        np.testing.assert_allclose(found[2], expected[:, 1], atol=near)
        np.testing.assert_allclose(logits(path, shown), found[0], rtol=1e-6)
    protocol = TARGET.bench.model_copy(update={"processes": 1, "runs": 10, "seconds": 0.01, "warmup_seconds": 0.0})
    measured = bench({"student": run.student_int8_onnx}, TARGET.model_copy(update={"bench": protocol}))
    assert measured["models"]["student"]["latency_ms"]["p50"] > 0


@pytest.mark.slow
def test_fewer_headers_make_a_smaller_file_and_it_is_written_anew_only_when_something_changes(run):
    sizes = [
        export(run, int8=False, target=TARGET, recipe=RECIPE, keep_headers=kept)["files"]["student"]["bytes"]
        for kept in (None, [1])
    ]
    assert sizes[1] < 0.6 * sizes[0]
    np.testing.assert_allclose(logits(run.student_onnx, images(4)), heads(run, images(4))[:, 1], rtol=1e-4, atol=1e-4)
    before = run.student_onnx.stat().st_mtime_ns
    export(run, int8=False, target=TARGET, recipe=RECIPE, keep_headers=[1])
    assert run.student_onnx.stat().st_mtime_ns == before
    aggregate(run, labelled(run))
    export(run, int8=False, target=TARGET, recipe=RECIPE, keep_headers=[1])
    assert run.student_onnx.stat().st_mtime_ns > before


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kept", [[], [3], [-1], [0, 0], [0, 1, 2, 3]])
def test_headers_that_are_not_there_cannot_be_kept(run, kept):
    with pytest.raises(BadSetting, match=r"is no choice of 3 headers; allowed: some of 0 to 2, each once"):
        export(run, int8=False, target=TARGET, recipe=RECIPE, keep_headers=kept)
    assert not run.student_onnx.exists()


@pytest.mark.parametrize("options", [{"keep_headers": [0]}, {"header_outputs": True}])
def test_a_student_without_headers_has_none_to_keep_or_to_join(run, options):
    write_json(run.record_file, run.record() | {"student": {"name": "cnn-small", "width": 0.125}})
    with pytest.raises(BadSetting, match="one answer and no headers"):
        export(run, int8=False, target=TARGET, recipe=RECIPE, **options)
    with pytest.raises(BadRun, match="one answer for all teachers"):
        aggregate(run, None)


def test_what_was_learned_of_other_weights_is_refused(run):
    aggregate(run, labelled(run))
    state = safetensors.torch.load_file(run.student_weights)
    first = next(iter(state))
    safetensors.torch.save_file(state | {first: state[first] + 1}, run.student_weights)
    with pytest.raises(BadRun, match=r"aggregation\.json: it is of older weights .*; join them anew: edgekd aggregate"):
        export(run, int8=False, target=TARGET, recipe=RECIPE)
    aggregate(run, None)
    assert run.scorer() is None


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": "edgekd.aggregation/1", "scorer": ["a"]}'])
def test_a_damaged_record_is_refused(run, text):
    run.aggregation_file.write_text(text)
    with pytest.raises(BadRun, match=r"aggregation\.json"):
        export(run, int8=False, target=TARGET, recipe=RECIPE)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"images": np.zeros((3, 1, 9, 9), np.uint8)},
            r"images of shape \[1, 9, 9\] do not fit .*allowed: \[1, 12, 12\]",
        ),
        ({"images": np.zeros((3, 12, 12), np.uint8), "labels": np.array([0, 1])}, "3 images but 2 labels"),
        ({"images": np.zeros((3, 12, 12), np.uint8), "labels": np.array([0, 1, 4])}, "label 4 is no class"),
        ({"images": np.zeros((3, 12, 12), np.uint8), "labels": np.array([0.0, 1, 1])}, "labels are float64"),
        ({"pictures": np.zeros(3)}, "no images; it holds pictures"),
        ({"images": np.zeros((0, 12, 12), np.uint8)}, "it holds no images"),
        ({"images": np.full((2, 12, 12), np.nan, np.float32)}, "image 0 holds NaN"),
    ],
)
def test_samples_of_another_kind_are_refused(run, arrays, said):
    np.savez(run.path.parent / "real.npz", **arrays)
    with pytest.raises(BadData, match=said):
        aggregate(run, run.path.parent / "real.npz")
    assert not run.aggregation_file.exists()


def test_teachers_that_are_away_are_named(run):
    np.savez(run.path.parent / "real.npz", images=images(3))
    with pytest.raises(BadRun, match=r"/far/teacher\.onnx is no file here; give labels"):
        aggregate(run, run.path.parent / "real.npz")
