"""Export, with ONNX Runtime and torch itself as the outside truth."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from distilled_run import RECORD, distilled
from torch import nn

import edgekd
from edgekd import networks, onnx_file, tracing
from edgekd.devices import ModelLimits, load_recipe, load_target
from edgekd.errors import BadRun, CannotLoad, EdgekdError
from edgekd.export import export
from edgekd.inference import agreement, logits, open_session
from edgekd.quantize import Terms, deliver
from edgekd.run_folder import RunFolder, read_json, write_json
from edgekd.tracing import Port, Traced, trace

TARGET, RECIPE = load_target("cpu"), load_recipe("minmax")
IMAGE = Port("image", "logits", (1, 8, 8), task="classes")


def export_int8(run, **options):
    return export(run, int8=True, target=TARGET, recipe=RECIPE, **options)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """One run exported for real, to be copied."""
    run = distilled(tmp_path_factory.mktemp("export") / "run")
    return run, export_int8(run)


@pytest.fixture
def exported(original, tmp_path):
    shutil.copytree(original[0].path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def retraced(exported, monkeypatch):
    """Which files would be traced again, without the seconds it takes: what was there before serves as the result."""
    seen = []

    def instead(network, port, limits, examples):
        kind = {"logits": "student", "image": "generator"}[port.leaving]
        seen.append(kind)
        return Traced(
            onnx.load(exported.path / f"{kind}.onnx"), None, {"examples": len(examples)}, f"{kind}: a warning"
        )

    monkeypatch.setattr(tracing, "trace", instead)
    return seen


# ------------------------------------------------------------------------------------------- what is written


def test_the_record_tells_the_files_as_they_are(original):
    run, record = original
    assert read_json(run.export_file) == json.loads(json.dumps(record))
    assert record["schema"] == "edgekd.export/1"
    assert record["target"] == "cpu"
    paths = {"student": run.student_onnx, "generator": run.generator_onnx, "student_int8": run.student_int8_onnx}
    assert record["files"].keys() == paths.keys()
    for kind, path in paths.items():
        told = record["files"][kind]
        assert (told["path"], told["sha256"], told["bytes"]) == (path.name, onnx_file.sha256(path), path.stat().st_size)
    assert record["files"]["student"]["simplifier"].startswith("onnxsim ")
    assert record["files"]["student"]["check"]["agreement"] == 1.0
    assert record["files"]["student"]["check"]["max_abs"] < 1e-3 * record["files"]["student"]["check"]["scale"]
    assert record["quantization"]["recipe"]["name"] == "minmax"
    assert record["quantization"]["samples"]["count"] == RECIPE.samples


def test_agreement_is_that_of_the_files(original):
    run, record = original
    held = run.held_out()
    student, int8 = logits(run.student_onnx, held.images()), logits(run.student_int8_onnx, held.images())
    assert record["agreement"] == {
        "student_teacher": 1.0,
        "student_int8_teacher": agreement(int8, held.logits),
        "student_int8_student": agreement(int8, student),
    }


@pytest.mark.parametrize("batch", [1, 5])
def test_student_and_generator_answer_as_torch_does(original, batch):
    run, _ = original
    images = np.random.default_rng(1).random((batch, 1, 12, 12), dtype=np.float32)
    with torch.no_grad():
        expected = networks.load_student(RECORD, run.student_weights)(torch.from_numpy(images))
    np.testing.assert_allclose(logits(run.student_onnx, images), expected, rtol=1e-4, atol=1e-5)
    latents = np.random.default_rng(2).standard_normal((batch, 6), dtype=np.float32)
    with torch.no_grad():
        expected = networks.load_generator(RECORD, run.generator_weights)(torch.from_numpy(latents))
    found = open_session(run.generator_onnx).run(["image"], {"latent": latents})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_file_holds_provenance_and_no_local_paths(original):
    run, _ = original
    model, int8 = onnx.load(run.student_onnx), onnx.load(run.student_int8_onnx)
    notes = onnx_file.metadata(model)
    assert notes == {
        "edgekd.version": edgekd.__version__,
        "edgekd.weights.sha256": onnx_file.sha256(run.student_weights),
        "edgekd.teacher.sha256": "ab" * 32,
        "edgekd.student": "cnn-small width 0.125",
        "edgekd.seed": "5",
        "edgekd.simplifier": notes["edgekd.simplifier"],
    }
    assert notes.items() <= onnx_file.metadata(int8).items()
    assert onnx_file.metadata(int8)["edgekd.target"] == "cpu"
    for path in (run.student_onnx, run.generator_onnx, run.student_int8_onnx):
        content = path.read_bytes()
        assert str(Path(edgekd.__file__).parent).encode() not in content
        assert b"stack_trace" not in content
        assert b"site-packages" not in content


def test_the_file_is_within_the_targets_limits_and_keeps_the_teachers_input(original):
    run, _ = original
    model = onnx_file.load(run.student_onnx)
    assert onnx_file.opset(model) == TARGET.model.opset
    assert model.ir_version <= TARGET.model.ir_version
    assert [value.name for value in model.graph.input] == ["pixels"]
    assert onnx_file.dimensions(model.graph.input[0]) == [None, 1, 12, 12]
    assert [value.name for value in model.graph.output] == ["logits"]
    operators = {node.op_type for node in model.graph.node}
    assert "GlobalAveragePool" in operators
    assert not operators & {"ReduceMean", "BatchNormalization"}


def test_nothing_else_is_left_in_the_folder(original):
    run, _ = original
    assert sorted(path.name for path in run.path.iterdir()) == [
        *["export.json", "generator.onnx", "generator.safetensors", "run.json", "samples"],
        *["student.int8.onnx", "student.onnx", "student.safetensors"],
    ]


@pytest.mark.slow
def test_equal_weights_give_equal_bytes(exported):
    names = ("student.onnx", "generator.onnx", "student.int8.onnx")
    before = {name: (exported.path / name).read_bytes() for name in names}
    for name in names:
        (exported.path / name).unlink()
    export_int8(exported)
    assert {name: (exported.path / name).read_bytes() for name in names} == before


# ------------------------------------------------------------------------------------------- what is kept


def test_files_that_are_up_to_date_are_kept(exported, retraced):
    before = read_json(exported.export_file)
    assert export_int8(exported) == before
    assert retraced == []


@pytest.mark.parametrize("kind", ["student", "generator"])
def test_a_file_older_than_its_weights_is_written_again(exported, retraced, kind):
    weights = exported.path / f"{kind}.safetensors"
    state = safetensors.torch.load_file(weights)
    first = next(iter(state))
    safetensors.torch.save_file(state | {first: state[first] + 1}, weights)
    record = export_int8(exported)
    assert retraced == [kind]
    notes = onnx_file.metadata(onnx.load(exported.path / f"{kind}.onnx"))
    assert notes["edgekd.weights.sha256"] == onnx_file.sha256(weights)
    assert record["warnings"] == [f"{kind}: a warning"]
    assert record["files"][kind]["check"] == {"examples": {"student": 64, "generator": 256}[kind]}


def test_a_damaged_file_is_written_again(exported, monkeypatch):
    good = onnx.load(exported.student_onnx)
    exported.student_onnx.write_bytes(b"cut short")
    exported.export_file.write_text("{")
    monkeypatch.setattr(tracing, "trace", lambda *_: Traced(good, None, {}, ""))
    assert export_int8(exported)["agreement"]["student_teacher"] == 1.0
    assert onnx_file.load(exported.student_onnx)


def test_a_file_above_the_targets_limits_is_written_again(exported, retraced):
    lower = TARGET.model_copy(update={"model": ModelLimits(opset=18, ir_version=8)})
    export(exported, int8=False, target=lower, recipe=RECIPE)
    assert retraced == ["student", "generator"]


def test_an_int8_file_of_an_older_student_is_removed(exported):
    model = onnx.load(exported.student_onnx)
    model.doc_string = "another student"
    onnx.save(model, exported.student_onnx)
    record = export(exported, int8=False, target=TARGET, recipe=RECIPE)
    assert not exported.student_int8_onnx.exists()
    assert len(record["warnings"]) == 1
    assert "student.int8.onnx was not made from this student and is removed" in record["warnings"][0]
    assert record["files"].keys() == {"student", "generator"}
    assert record["files"]["student"]["check"] is None  # this file has not been compared with torch


def test_an_int8_file_of_this_student_stays(exported):
    assert export(exported, int8=False, target=TARGET, recipe=RECIPE)["warnings"] == []
    assert exported.student_int8_onnx.is_file()


def without_torch(run, int8=True):
    code = (
        "import sys; sys.modules['torch'] = None;"
        "from pathlib import Path; from edgekd.devices import load_recipe, load_target;"
        "from edgekd.export import export; from edgekd.run_folder import RunFolder;"
        f"export(RunFolder(Path(sys.argv[1])), int8={int8}, target=load_target('cpu'), recipe=load_recipe('minmax'))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code, str(run.path)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("share", "stored", "shown"), [(0.25, 64, 16), (0.25, 9, 9), (0.0, 64, 0), (0.25, 0, 0)])
def test_int8_is_calibrated_on_procedural_images_in_the_share_the_student_saw(
    exported, monkeypatch, share, stored, shown
):
    write_json(exported.record_file, RECORD | {"settings": {"seed": 5, "recipe": {"prior_share": share}}})
    if stored:
        exported.write_procedural(np.full((stored, 1, 12, 12), 77, np.uint8))
    seen = []

    def instead(model, out, order):
        seen.append(np.concatenate(list(order.calibration.parts())))
        return deliver(model, out, order)

    monkeypatch.setattr("edgekd.export.deliver", instead)
    export_int8(exported, samples=64)
    flat = (np.abs(seen[0] - 77 / 255) < 1e-6).all(axis=(1, 2, 3))
    assert (len(seen[0]), flat.sum()) == (64, shown)
    assert flat[:shown].all()  # the first ones: a fixed batch leaves the last ones out


def test_int8_needs_no_torch_where_the_float_files_are_there(exported):
    before = exported.student_int8_onnx.read_bytes()
    exported.student_int8_onnx.unlink()
    done = without_torch(exported)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert exported.student_int8_onnx.read_bytes() == before


def test_a_missing_float_file_without_torch_names_the_cure(exported):
    exported.generator_onnx.unlink()
    done = without_torch(exported)
    assert "CannotLoad" in done.stderr.splitlines()[-1]
    assert "writing generator.onnx from the weights needs edgekd[distill], of which torch cannot" in done.stderr
    assert "pip install 'edgekd[distill]'" in done.stderr
    assert CannotLoad.exit_code == 3


# ------------------------------------------------------------------------------------------- refusals, warnings


def test_a_run_without_weights_names_the_command(exported):
    exported.student_weights.unlink()
    with pytest.raises(
        BadRun, match=r"student.safetensors is missing; run first: edgekd distill /far/teacher.onnx --out"
    ):
        export_int8(exported)


def test_an_interrupted_run_is_exported_with_a_warning_that_names_no_far_folder(exported):
    write_json(exported.record_file, RECORD | {"state": "interrupted"})
    shutil.rmtree(exported.samples)
    record = export_int8(exported)
    assert "the run is interrupted, not finished" in record["warnings"][0]
    assert record["warnings"][0].endswith("go on with: edgekd distill teacher.onnx --out run --resume")
    assert record["agreement"] is None


def test_a_suggested_command_can_be_pasted(exported, monkeypatch):
    run = RunFolder(exported.path.rename(exported.path.with_name("my run")))
    monkeypatch.chdir(run.path.parent)
    write_json(run.record_file, RECORD | {"state": "interrupted"})
    told = export(run, int8=False, target=TARGET, recipe=RECIPE)["warnings"][0]
    assert told.endswith("edgekd distill teacher.onnx --out 'my run' --resume")
    run.student_weights.unlink()
    with pytest.raises(BadRun, match=r"edgekd distill /far/teacher\.onnx --out '/.*/my run' --resume"):
        export_int8(run)


def test_a_failing_quantization_leaves_no_int8_file_of_another_student(exported, monkeypatch):
    def failing(*_, **__):
        raise EdgekdError("ONNX Runtime cannot quantize it")

    monkeypatch.setattr("edgekd.export.deliver", failing)
    with pytest.raises(EdgekdError, match="cannot quantize"):
        export_int8(exported)
    assert exported.student_int8_onnx.is_file()  # it is of this student
    model = onnx.load(exported.student_onnx)
    model.doc_string = "another student"
    onnx.save(model, exported.student_onnx)
    with pytest.raises(EdgekdError, match="cannot quantize"):
        export_int8(exported)
    assert not exported.student_int8_onnx.exists()


@pytest.mark.parametrize("part", ["safetensors", "PIL", "onnxscript"])
def test_a_missing_part_of_the_extra_is_no_bug(exported, monkeypatch, part):
    exported.student_onnx.unlink()
    there = importlib.util.find_spec
    monkeypatch.setattr("edgekd.extras.find_spec", lambda name: None if name == part else there(name))
    with pytest.raises(CannotLoad, match=rf"of which {part} cannot be found; pip install 'edgekd\[distill\]'"):
        export_int8(exported)


def test_code_that_a_run_names_is_run_only_when_trusted(exported, monkeypatch):
    (exported.path.parent / "foreign_net.py").write_text("raise SystemExit('foreign code ran')")
    monkeypatch.chdir(exported.path.parent)
    student = {"name": "foreign_net:make", "width": 1.0}
    write_json(exported.record_file, RECORD | {"student": student})
    export(exported, int8=False, target=TARGET, recipe=RECIPE)  # nothing has to be built
    exported.student_onnx.unlink()
    with pytest.raises(BadRun, match=r"if you trust it: edgekd export .*run --trust-factory"):
        export_int8(exported)
    with pytest.raises(SystemExit, match="foreign code ran"):
        export_int8(exported, trust_factory=True)


def test_a_failing_check_writes_nothing(exported, monkeypatch):
    exported.student_onnx.unlink()
    exported.generator_onnx.unlink()
    before = sorted(path.name for path in exported.path.iterdir())

    def failing(*_):
        raise EdgekdError("ONNX Runtime and torch differ")

    monkeypatch.setattr(tracing, "trace", failing)
    with pytest.raises(EdgekdError, match="torch differ"):
        export_int8(exported)
    assert sorted(path.name for path in exported.path.iterdir()) == before


def test_samples_override_the_recipe(exported):
    assert export_int8(exported, samples=20)["quantization"]["samples"]["count"] == 20
    with pytest.raises(EdgekdError, match="3 are too few for recipe minmax"):
        export_int8(exported, samples=3)


def test_an_int8_student_that_chooses_other_classes_is_told_and_float_is_kept(exported, monkeypatch):
    exported.student_int8_onnx.unlink()
    monkeypatch.setattr("edgekd.quantize.judging.agreement", lambda *_: 0.5)
    record = export_int8(exported, terms=Terms(qat=0))
    said = "int8 on target cpu: it answers otherwise than float on 50.0% of the held-out samples, allowed: 5.0%"
    assert record["warnings"] == [f"{said}; float is kept; to have it all the same: --force"]
    assert not exported.student_int8_onnx.exists()
    assert "student_int8" not in record["files"]
    assert record["agreement"].keys() == {"student_teacher"}
    forced = export_int8(exported, terms=Terms(force=True, qat=0))
    assert forced["warnings"] == [f"{said}; written because of --force"]
    assert exported.student_int8_onnx.is_file()


def clock(**times):
    return Terms(stopwatch=lambda files: dict(zip(files, times.values(), strict=True)))


def test_int8_that_is_slower_is_told_and_float_is_kept(exported):
    other = exported.student_int8_onnx.with_suffix(".ort")
    other.write_bytes(b"of an earlier export")
    record = export_int8(exported, terms=clock(float=0.1, int8=0.25))
    slower, removed = record["warnings"]
    assert "it is slower here: p50 0.250 ms, float 0.100 ms (2.50 x)" in slower
    assert removed == "student.int8.onnx of an earlier export is removed, since float is kept now"
    assert read_json(exported.export_file)["warnings"] == record["warnings"]
    assert "student_int8" not in record["files"]
    assert not exported.student_int8_onnx.exists()  # or bench and gate would take it for this export's result
    assert not other.exists()
    assert exported.models().keys() == {"student"}
    quicker = export_int8(exported, terms=clock(float=0.1, int8=0.1))
    assert quicker["warnings"] == []
    assert [row["p50_ms"] for row in quicker["proof"]["int8"]] == [0.1, 0.1]


def test_half_precision_answers_as_float_does(exported):
    record = export(exported, int8=False, fp16=True, target=TARGET, recipe=RECIPE)
    model = onnx_file.load(exported.student_fp16_onnx)
    assert record["files"]["student_fp16"]["bytes"] < 0.6 * record["files"]["student"]["bytes"]
    assert {t.data_type for t in model.graph.initializer} >= {onnx.TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [1, 1]
    images = exported.held_out().images()
    expected, found = (logits(path, images) for path in (exported.student_onnx, exported.student_fp16_onnx))
    assert agreement(expected, found) == 1.0
    assert np.abs(expected - found).max() > 0
    assert [row["label"] for row in record["proof"]["fp16"]] == ["float", "fp16"]


def test_the_proof_is_that_of_the_files(original):
    record = original[1]
    whole, small = record["proof"]["int8"]
    assert (whole["label"], small["label"]) == ("float", "int8")
    assert small["bytes"] == record["files"]["student_int8"]["bytes"]
    assert small["agreement_float"] == record["agreement"]["student_int8_student"]
    assert small["agreement_teacher"] == record["agreement"]["student_int8_teacher"]
    assert whole["agreement_teacher"] == record["agreement"]["student_teacher"]
    assert (whole["p50_ms"], whole["agreement_float"]) == (None, None)


def test_coverage_compares_the_generator_with_noise(original):
    report = original[1]["coverage"]
    assert report["reference"] == "generated samples of another seed"
    assert report["calibration"]["overlap"] > report["noise"]["overlap"]
    assert 0 <= report["calibration"]["outside"] < 0.01
    assert report["calibration"]["tensors"].keys() == report["noise"]["tensors"].keys()


def test_balanced_samples_are_of_every_class_alike(exported):
    def counts(recipe):
        seen = []
        kept = {"deliver": lambda model, out, order: seen.append(order.calibration) or deliver(model, out, order)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgekd.export.deliver", kept["deliver"])
            export(exported, int8=True, target=TARGET, recipe=recipe, samples=64)
        images = np.concatenate(list(seen[0].parts()))
        return len(images), np.bincount(logits(exported.student_onnx, images).argmax(axis=1), minlength=4)

    drawn, plain = counts(RECIPE)
    chosen, even = counts(RECIPE.model_copy(update={"balanced": True}))
    assert drawn == chosen == 64
    assert even.std() <= plain.std()
    assert even.min() >= plain.min()


def test_real_samples_take_their_share(exported, tmp_path):
    codes = np.random.default_rng(0).integers(0, 256, (80, 1, 12, 12)).astype(np.uint8)
    np.savez(tmp_path / "real.npz", images=codes, labels=np.zeros(80))
    record = export_int8(exported, samples=64, terms=Terms(real=tmp_path / "real.npz", real_share=0.25))
    assert record["quantization"]["samples"]["count"] == 64
    assert record["coverage"]["reference"] == "real samples"


# ------------------------------------------------------------------------------------------- tracing


class Tiny(nn.Module):
    """Convolution and dense layer on `[N, 1, 8, 8]`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))

    def forward(self, images):
        return self.layers(images)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)


@pytest.fixture
def no_simplifier(monkeypatch):
    monkeypatch.setattr(tracing, "SIMPLIFIER", (sys.executable, "-c", "raise SystemExit(3)"))


def test_a_channels_last_teacher_gets_a_channels_last_student(images, no_simplifier, tmp_path):
    port = Port("image", "logits", (1, 8, 8), layout="NHWC", task="classes")
    traced = trace(Tiny(), port, ModelLimits(), images)
    onnx.save(traced.model, tmp_path / "student.onnx")
    assert onnx_file.dimensions(traced.model.graph.input[0]) == [None, 8, 8, 1]
    found = logits(tmp_path / "student.onnx", np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(found, tracing.answers(Tiny(), images), rtol=1e-4, atol=1e-5)
    assert traced.simplifier is None
    assert traced.warning == "logits model: went on unsimplified, onnxsim ended with 3"


def test_the_ir_ceiling_holds_and_nothing_is_printed(images, no_simplifier, capfd):
    assert trace(Tiny(), IMAGE, ModelLimits(ir_version=8), images).model.ir_version == 8
    assert capfd.readouterr() == ("", "")


def test_a_network_that_cannot_be_traced_is_one_line(images, no_simplifier):
    class Branching(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(EdgekdError, match="logits model: torch cannot export it") as caught:
        trace(Branching(), IMAGE, ModelLimits(), images)
    assert "\n" not in str(caught.value)


def test_an_opset_above_the_ceiling_is_refused(images, no_simplifier, monkeypatch):
    monkeypatch.setattr(onnx_file, "opset", lambda _: 18)
    with pytest.raises(EdgekdError, match="torch exports it with opset 18, the target takes 17"):
        trace(Tiny(), IMAGE, ModelLimits(opset=17), images)


def test_answers_that_differ_from_torchs_are_refused(make_classifier, images):
    path = make_classifier()
    model, expected = onnx.load(path), logits(path, images)
    check = tracing.compared(model, IMAGE, images, expected)
    assert check == {"examples": 20, "max_abs": 0.0, "scale": float(np.abs(expected).max()), "agreement": 1.0}
    with pytest.raises(EdgekdError, match=r"ONNX Runtime and torch differ \(examples 20, max_abs .*agreement 1\)"):
        tracing.compared(model, IMAGE, images, expected * np.float32(1.01))
    with pytest.raises(EdgekdError, match="differ"):
        tracing.compared(model, IMAGE, images, np.full_like(expected, np.nan))


def test_a_difference_that_nobody_sees_is_none(make_classifier, images):
    path = make_classifier()
    model, expected = onnx.load(path), logits(path, images)
    off = expected + np.float32(0.002 * np.abs(expected).max())
    with pytest.raises(EdgekdError, match="differ"):
        tracing.compared(model, IMAGE, images, off)
    seen = 0.01 * float(np.abs(expected).max())
    assert tracing.compared(model, replace(IMAGE, finest=seen), images, off)["max_abs"] > 0


def test_another_arg_max_is_refused_however_small_the_difference(make_picker):
    images = np.zeros((4, 1, 2, 2), np.float32)
    images[:, 0, 0, 0] = images[:, 0, 0, 1] = 1
    images[:, 0, 0, 0] += 1e-5
    path = make_picker()
    with pytest.raises(EdgekdError, match="agreement 0"):
        tracing.compared(onnx.load(path), IMAGE, images, logits(path, images)[:, [1, 0, 2, 3]])


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", "onnxsim ended with -6"),
        ("import sys; sys.exit('Segmentation fault')", "onnxsim ended with 1: Segmentation fault"),
        ("import time; time.sleep(60)", "onnxsim did not end within 1 s"),
        ("import no_such_module_as_onnxsim", "No module named 'no_such_module_as_onnxsim'"),
        ("import sys; open(sys.argv[2], 'wb').write(b'x')", "not an ONNX file"),
        ("pass", "no such file"),
    ],
)
def test_a_simplifier_that_fails_is_told_and_left_out(make_classifier, monkeypatch, program, reason):
    monkeypatch.setattr(tracing, "SIMPLIFIER", (sys.executable, "-c", program))
    monkeypatch.setattr(tracing, "SIMPLIFIER_SECONDS", 1.0)
    model, why = tracing.simplified(onnx.load(make_classifier()))
    assert model is None
    assert why.startswith("went on unsimplified, ")
    assert reason in why


def test_a_simplifier_that_changes_the_answers_is_told_and_left_out(images, make_classifier, monkeypatch):
    other = make_classifier()
    copy = f"import shutil, sys; shutil.copy({str(other)!r}, sys.argv[2])"
    monkeypatch.setattr(tracing, "SIMPLIFIER", (sys.executable, "-c", copy))
    traced = trace(Tiny(), IMAGE, ModelLimits(), images)
    assert traced.simplifier is None
    assert "what onnxsim wrote is wrong" in traced.warning
    assert traced.check["agreement"] == 1.0
