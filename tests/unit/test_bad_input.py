"""Bad input at the command line: one line, the right exit code, nothing half-written."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from calling import Call, Result
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tiny_teacher import classifier

from edgekd import run_folder
from edgekd.config import DistillSettings
from edgekd.distill import distill, resolve_settings
from edgekd.run_folder import RunFolder

SMALL = {"generator_batch": 32, "student_batch": 32, "bank": 64, "prior": 32, "latent": 8, "generator_width": 4}
SET = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher and a tiny run of it, interrupted, and not exported."""
    folder = tmp_path_factory.mktemp("finished")
    onnx.save(classifier(), folder / "teacher.onnx")
    settings: DistillSettings = resolve_settings({"steps": 2, "threads": 1, "recipe": SMALL})
    run = RunFolder(folder / "runs" / "one")
    distill(folder / "teacher.onnx", settings, run)
    run_folder.write_json(run.record_file, run.record() | {"state": "interrupted"})
    return folder


@pytest.fixture
def here(tmp_path: Path, finished: Path) -> Path:
    """`finished`, copied to the folder that commands run in."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def on_disk(folder: Path) -> dict[str, str]:
    """Every file with its digest, and every folder."""
    digest: Callable[[Path], str] = lambda p: hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "folder"  # noqa: E731
    return {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*"))}


def changed(folder: Path, edit: Callable[[onnx.ModelProto], None], name: str = "bad.onnx") -> Path:
    model = classifier()
    edit(model)
    onnx.save(model, folder / name)
    return folder / name


def of_pixels(model: onnx.ModelProto) -> None:
    """It divides by 255 itself."""
    model.graph.node[0].input[0] = "scaled"
    model.graph.node.insert(0, helper.make_node("Div", ["image", "most"], ["scaled"]))
    model.graph.initializer.append(helper.make_tensor("most", TensorProto.FLOAT, [1], [255.0]))


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, [1]))


def of_integers(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    model.graph.node[0].input[0] = "cast"
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT))


def sequence(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("SequenceConstruct", ["logits"], ["list"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, ["N", 4]))


def detection(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["f"], ["boxes"]))
    model.graph.output.append(helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 8]))


def free_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"


def unsupported(model: onnx.ModelProto) -> None:
    """Two operators that no importer knows, in the middle."""
    odd: list[NodeProto] = []
    for operator, name, source, result in (("Bernoulli", "coin", "r", "r1"), ("Multinomial", "dice", "r1", "r2")):
        odd.append(helper.make_node(operator, [source], [result], name))
    position = next(i for i, node in enumerate(model.graph.node) if node.op_type == "GlobalAveragePool")
    model.graph.node[position].input[0] = "r2"
    for node in reversed(odd):
        node.domain = "com.example"
        model.graph.node.insert(position, node)
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def not_finite(model: onnx.ModelProto) -> None:
    """A weight beyond float16, as half precision leaves it."""
    weights = model.graph.initializer[0]
    broken = numpy_helper.to_array(weights).copy()
    broken.flat[0] = np.inf
    weights.CopyFrom(numpy_helper.from_array(broken, weights.name))


def garbage(folder: Path) -> Path:
    (folder / "bad.onnx").write_text("<html>404 Not Found</html>")
    return folder / "bad.onnx"


def truncated(folder: Path) -> Path:
    whole = (folder / "teacher.onnx").read_bytes()
    (folder / "bad.onnx").write_bytes(whole[: len(whole) // 2])
    return folder / "bad.onnx"


TEACHERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "not an ONNX file": (garbage, "not an ONNX file"),
    "truncated": (truncated, "ONNX"),
    "two inputs": (lambda f: changed(f, two_inputs), "2 inputs (image, size)"),
    "not float": (lambda f: changed(f, of_integers), "is int32; allowed: float32 or uint8 images"),
    "sequence": (lambda f: changed(f, sequence), "an output is a sequence"),
    "object detection": (lambda f: changed(f, detection), "look like object detection"),
    "free size": (lambda f: changed(f, free_size), "say it with --input-shape C,H,W"),
    "not finite": (lambda f: changed(f, not_finite), "its answers to 4 of 4 images are not finite"),
    "missing": (lambda f: f / "none.onnx", "no such file"),
}


def refused(shown: Result, code: int, said: str) -> None:
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert len(shown.err.splitlines()) == 1
    assert (shown.code, shown.out) == (code, "")


@pytest.mark.parametrize("name", TEACHERS)
def test_a_bad_teacher_is_one_line_and_leaves_nothing(call: Call, here: Path, name: str) -> None:
    make, said = TEACHERS[name]
    path = make(here)
    before = on_disk(here)
    refused(call("distill", path, "--steps", 1, *SET), 2, said)
    assert on_disk(here) == before


def test_unsupported_operators_are_all_listed_with_their_nodes(call: Call, here: Path) -> None:
    path = changed(here, unsupported)
    before = on_disk(here)
    shown = call("distill", path, "--steps", 1, *SET)
    refused(shown, 2, "Bernoulli")
    for word in ("coin", "Multinomial", "dice"):
        assert word in shown.err
    assert on_disk(here) == before


def labelled(folder: Path, **changes: np.ndarray) -> Path:
    good = {"images": np.zeros((3, 1, 12, 12), np.uint8), "labels": np.arange(3)}
    np.savez(folder / "data.npz", **(good | changes))
    return folder / "data.npz"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": np.zeros((3, 1, 9, 9), np.uint8)}, "do not fit input"),
        ({"images": np.zeros((3, 1, 12, 12), np.float64)}, "images are float64"),
        ({"labels": np.array([0, 1, 4])}, "label 4 of image 2 is no class"),
        ({"labels": np.array([0.0, 1.0, 2.0])}, "labels are float64"),
        ({"images": np.array([{}, {}, {}], object)}, "pickled objects"),
    ],
    ids=["shape", "dtype", "class", "label dtype", "pickled"],
)
def test_bad_evaluation_data_is_one_line(call: Call, here: Path, changes: dict[str, np.ndarray], said: str) -> None:
    data = labelled(here, **changes)
    before = on_disk(here)
    refused(call("eval", "teacher.onnx", "--data", data), 2, said)
    assert on_disk(here) == before


def budget(folder: Path) -> None:
    (folder / "budget.toml").write_text('[budget]\nmax_sise = "3 kB"\n')


def another_teacher(folder: Path) -> None:
    onnx.save(classifier(seed=1), folder / "other.onnx")


def damaged_checkpoint(folder: Path) -> None:
    checkpoint = folder / "runs" / "one" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])


def letters(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "letter.txt").write_text("dear")


def lacking(folder: Path) -> None:
    record = RunFolder(folder / RUN).record()
    del record["settings"]
    run_folder.write_json(folder / RUN / "run.json", record)


def nothing(folder: Path) -> None:
    pass


def order(folder: Path) -> None:
    (folder / "order.json").write_text("[null, [0, 1, 2, 2]]")


def second(**changes: object) -> Callable[[Path], None]:
    """Another teacher, which differs from the first in something."""

    def make(folder: Path) -> None:
        onnx.save(classifier(seed=1, **changes), folder / "other.onnx")  # type: ignore[arg-type]

    return make


def larger(folder: Path) -> None:
    model = classifier()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 16
    onnx.save(model, folder / "other.onnx")


def in_bytes(folder: Path) -> None:
    changed(folder, of_pixels, "other.onnx")


MFS = ["distill", "teacher.onnx", "other.onnx", "--method", "cdfkd-mfs", "--steps", "1", *SET]
RUN = "runs/one"
COMMANDS: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "a file for a folder": (
        lambda folder: onnx.save(classifier(), folder / "t.onnx"),
        ["distill", "t.onnx", "--out", "t.onnx", "--overwrite"],
        "is not a folder",
    ),
    "existing run": (nothing, ["distill", "teacher.onnx", "--out", RUN], "the run folder exists already"),
    "existing folder of another kind": (
        letters,
        ["distill", "teacher.onnx", "--out", "mine", "--overwrite"],
        "not a run folder",
    ),
    "resume with another teacher": (
        another_teacher,
        ["distill", "other.onnx", "--out", RUN, "--resume"],
        "started with another teacher",
    ),
    "resume with other settings": (
        nothing,
        ["distill", "teacher.onnx", "--out", RUN, "--resume", "--seed", "3"],
        "seed 0 -> 3",
    ),
    "corrupted checkpoint": (
        damaged_checkpoint,
        ["distill", "teacher.onnx", "--out", RUN, "--resume"],
        "checkpoint.pt",
    ),
    "resume of nothing": (nothing, ["distill", "teacher.onnx", "--out", "none", "--resume"], "not a run folder"),
    "resume and overwrite": (nothing, ["distill", "teacher.onnx", "--resume", "--overwrite"], "allowed: one of them"),
    "unknown method": (nothing, ["distill", "teacher.onnx", "--method", "dafi"], "did you mean dafl?"),
    "unknown student": (nothing, ["distill", "teacher.onnx", "--student", "cnn-smal"], "did you mean cnn-small?"),
    "unknown weight": (nothing, ["distill", "teacher.onnx", "--set", "adversery=1"], "recipe.adversery"),
    "weight without a value": (nothing, ["distill", "teacher.onnx", "--set", "entropy"], "KEY=VALUE"),
    "a range of three": (nothing, ["distill", "teacher.onnx", "--input-range", "0,1,2"], "allowed: 2 numbers"),
    "an empty range": (nothing, ["eval", "teacher.onnx", "--data", "d.npz", "--input-range", "1,1"], "'1,1' is empty"),
    "no finite range": (nothing, ["distill", "teacher.onnx", "--input-range", "0,inf"], "'0,inf' is not finite"),
    "no finite mean": (nothing, ["distill", "teacher.onnx", "--mean", "nan", "--std", "1"], "'nan' is not finite"),
    "no finite shape": (nothing, ["bench", "teacher.onnx", "--input-shape", "nan,1,1"], "'nan,1,1' is not finite"),
    "no finite time": (nothing, ["distill", "teacher.onnx", "--minutes", "nan"], "minutes: "),
    "no finite weight": (nothing, ["distill", "teacher.onnx", "--set", "adversary=inf"], "adversary: "),
    "no finite limit": (nothing, ["gate", RUN, "--max-size", "9" * 400], "is beyond any size"),
    "the shape of a run": (nothing, ["bench", RUN, "--input-shape", "1,8,8"], "--input-shape: the run's record tells"),
    "the range of a run": (
        labelled,
        ["eval", RUN, "--data", "data.npz", "--input-range", "0,255"],
        "--input-range: the run's record tells it",
    ),
    "a run that lacks keys": (lacking, ["export", RUN], "run.json: damaged (settings: Field required)"),
    "no shape": (nothing, ["inspect", "teacher.onnx", "--input-shape", "1,1.5,2"], "is not a shape"),
    "unknown target": (nothing, ["bench", RUN, "--target", "cpuu"], "did you mean cpu?"),
    "unknown recipe": (nothing, ["export", RUN, "--calibration", "minmaks"], "did you mean minmax?"),
    "unknown metric": (budget, ["gate", RUN, "--budget", "budget.toml"], "did you mean max_size?"),
    "no limit": (nothing, ["gate", RUN], "without a limit"),
    "not a size": (nothing, ["gate", RUN, "--max-size", "big"], "max_size"),
    "not exported, bench": (nothing, ["bench", RUN], "run first: edgekd export"),
    "not exported, eval": (labelled, ["eval", RUN, "--data", "data.npz"], "run first: edgekd export"),
    "not exported, gate": (nothing, ["gate", RUN, "--max-size", "1MB"], "run first: edgekd export"),
    "one teacher for headers": (
        nothing,
        ["distill", "teacher.onnx", "--method", "cdfkd-mfs", *SET],
        "a header for every teacher: one teacher alone; allowed: two and more",
    ),
    "headers of a method without": (
        second(),
        ["distill", "teacher.onnx", "other.onnx", "--headers", "plain", *SET],
        "--headers: method edgekd has one answer for all teachers",
    ),
    "teachers of other classes": (second(columns=3), MFS, "other.onnx: classes 3, but "),
    "teachers of another size": (larger, MFS, "other.onnx: height 16, but "),
    "teachers of another range": (in_bytes, MFS, "other.onnx: high 255, but "),
    "features of a teacher that is asked": (
        second(),
        [*MFS, "--access", "scores", "--gradient", "estimate"],
        "it offers none; do without: --set features=0",
    ),
    "features of other widths": (
        second(),
        [*MFS, "--width", "0.25", "--set", "projection=false"],
        "allowed: equal widths, projection=true or features=0",
    ),
    "a weight of headers": (nothing, ["distill", "teacher.onnx", "--set", "heads=1"], "recipe: heads: this method"),
    "a class order that is none": (
        lambda folder: (second()(folder), order(folder)),
        [*MFS, "--class-order", "order.json"],
        "--class-order: that of teacher 2 is no permutation of 4",
    ),
    "no class order": (second(), [*MFS, "--class-order", "none.json"], "none.json: not readable as JSON"),
    "unknown preset": (nothing, ["distill", "teacher.onnx", "--config", "cdfkd-mnits"], "did you mean cdfkd-mnist?"),
    "joining without headers": (nothing, ["aggregate", RUN], "its student has one answer for all teachers"),
    "keeping without headers": (nothing, ["export", RUN, "--keep-headers", "0"], "one answer and no headers"),
    "keeping half a header": (nothing, ["export", RUN, "--keep-headers", "0.5"], "'0.5' are not whole numbers"),
    "no data": (nothing, ["eval", RUN], "--data: missing"),
    "no run": (nothing, ["bench", "none"], "not a run folder"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_input_is_one_line_and_leaves_nothing(call: Call, here: Path, name: str) -> None:
    prepare, arguments, said = COMMANDS[name]
    prepare(here)
    before = on_disk(here)
    refused(call(*arguments), 2, said)
    assert on_disk(here) == before


def test_a_run_folder_left_out_is_the_latest_and_is_told(call: Call, here: Path) -> None:
    shown = call("gate", "--max-size", "1MB")
    assert shown.err.splitlines()[0] == f"using {Path('runs') / 'one'}"


def test_a_full_disk_while_writing_is_one_line(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = on_disk(here)
    monkeypatch.setattr(run_folder.os, "fsync", full)
    refused(call("distill", "teacher.onnx", "--steps", 1, "--out", "full", *SET), 4, "No space left on device")
    assert on_disk(here) == before


def test_without_torch_distilling_names_what_to_install(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.extras.find_spec", lambda name: None)
    refused(call("distill", "teacher.onnx"), 3, "edgekd[distill]")


@pytest.mark.parametrize("part", ["torch", "safetensors", "PIL", "onnxscript"])
def test_a_missing_part_of_the_extra_is_no_bug(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr("edgekd.extras.find_spec", lambda name: None if name == part else there(name))
    refused(call("distill", "teacher.onnx"), 3, f"of which {part} cannot be found; pip install 'edgekd[distill]'")


def test_uint8_data_is_fed_in_the_range_of_the_graph_unless_a_flag_says_otherwise(call: Call, here: Path) -> None:
    path, data = changed(here, of_pixels), labelled(here)
    for flags, high in (([], 255.0), (["--input-range", "0,2"], 2.0)):
        shown = json.loads(call("eval", path, "--data", data, "--json", *flags).out)
        assert shown["models"]["bad.onnx"]["data"]["high"] == high
