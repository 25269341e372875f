"""The bill of materials, held against the schema by the library that wrote it."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from distilled_run import distilled

from edgekd import bill
from edgekd.devices import load_recipe, load_target
from edgekd.errors import CannotLoad
from edgekd.export import export
from edgekd.quantize import Terms
from edgekd.run_folder import RunFolder, read_json

MINMAX, TARGET = load_recipe("minmax"), load_target("cpu")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    run = distilled(tmp_path_factory.mktemp("bill") / "run")
    export(run, int8=True, target=TARGET, recipe=MINMAX, samples=32, terms=Terms(force=True, bill=True, qat=0))
    return run


@pytest.fixture
def run(original, tmp_path):
    shutil.copytree(original.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def again(run, **terms):
    options = {"target": TARGET, "recipe": MINMAX, "samples": 32}
    return export(run, int8=True, terms=Terms(force=True, qat=0, **terms), **options)


def test_it_is_valid_and_every_digest_is_that_of_a_file(original):
    text = original.bill_file.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    main = found["metadata"]["component"]
    assert main["name"] == "student.int8.onnx"
    models = [main, *found["components"]]
    assert {one["type"] for one in models} == {"machine-learning-model"}
    digests = {one["name"]: one["hashes"][0]["content"] for one in models if "hashes" in one}
    teacher = original.record()["teacher"]["sha256"]
    expected = {
        name: hashlib.sha256((original.path / name).read_bytes()).hexdigest()
        for name in ("student.onnx", "student.int8.onnx", "generator.onnx")
    }
    assert digests == expected | {"teacher.onnx": teacher}
    reads = {one["ref"]: set(one.get("dependsOn", [])) for one in found["dependencies"]}
    assert reads["student_int8"] == {"student", "generator"}
    assert reads["student"] == reads["generator"] == {"teacher-0"}
    told = {one["name"]: one["value"] for one in main["properties"]}
    record = read_json(original.export_file)
    assert told["edgekd:target"] == "cpu"
    assert told["edgekd:calibration.samples"] == f"32 sha256:{record['quantization']['samples']['sha256']}"
    assert float(told["edgekd:agreement_float"]) == pytest.approx(
        record["proof"]["int8"][-1]["agreement_float"], abs=1e-4
    )
    assert str(original.path.parent) not in text
    assert "/far/" not in text  # where the teacher lies


def test_equal_exports_give_equal_bytes_and_others_another_number(run):
    before = json.loads(run.bill_file.read_text())
    again(run, bill=True)
    assert json.loads(run.bill_file.read_text()) == before
    export(run, int8=False, target=TARGET, recipe=MINMAX, terms=Terms(bill=True))
    other = json.loads(run.bill_file.read_text())
    assert other["serialNumber"] != before["serialNumber"]
    assert other["metadata"]["component"]["name"] == "student.onnx"


def test_one_of_an_earlier_export_does_not_stay(run):
    warnings = again(run)["warnings"]
    assert "bom.cdx.json of an earlier export is removed; for a new one: --bom" in warnings
    assert not run.bill_file.exists()


def test_a_model_of_no_run_gets_one_beside_it(call, make_classifier, tmp_path):
    np.savez(tmp_path / "s.npz", images=np.random.default_rng(0).random((80, 1, 8, 8), dtype=np.float32))
    options = ("--int8", "--samples", "s.npz", "--calibration", "minmax", "--bom", "--no-measure", "--force")
    assert call("export", make_classifier("m.onnx"), *options).code == 0
    text = (tmp_path / "m.int8.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.loads(text)["metadata"]["component"]["name"] == "m.int8.onnx"
    assert call("export", "m.onnx", *(one for one in options if one != "--bom"), "--overwrite").code == 0
    assert not (tmp_path / "m.int8.cdx.json").exists()  # it was of another file


def test_without_the_extra_nothing_is_begun(run, monkeypatch):
    before = run.export_file.read_bytes()
    monkeypatch.setattr(bill, "find_spec", lambda _: None)
    with pytest.raises(CannotLoad, match=r"a bill of materials needs edgekd\[bom\]"):
        again(run, bill=True)
    assert run.export_file.read_bytes() == before
