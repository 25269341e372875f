from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekd import onnx_file
from edgekd.errors import BadData, BadModel, CannotLoad
from edgekd.evaluate import SCHEMA, evaluate, input_range, remember
from edgekd.run_folder import RunFolder, read_json
from edgekd.scoring import wilson

TRUE = [0, 1, 2, 3, 0, 1, 2, 3, 0, 0]
SAID = [0, 1, 2, 3, 0, 1, 2, 0, 1, 0]  # eight of ten right


def pictures(brightest=SAID) -> np.ndarray:
    """uint8 `[N, 1, 2, 2]`: the picker model answers the brightest pixel."""
    images = np.full((len(brightest), 4), 10, np.uint8)
    images[np.arange(len(brightest)), brightest] = 200
    return images.reshape(-1, 1, 2, 2)


@pytest.fixture
def save(tmp_path):
    def save(**arrays) -> Path:
        np.savez_compressed(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return save


def test_accuracy_per_class_and_interval(make_picker, save):
    model, data = make_picker(), save(images=pictures(), labels=np.array(TRUE))
    record = json.loads(json.dumps(evaluate(model, data)))
    assert record["schema"] == SCHEMA
    assert (record["correct"], record["n"], record["accuracy"]) == (8, 10, 0.8)
    assert record["interval"] == pytest.approx([0.490162, 0.943318], abs=1e-6)  # the textbook's 8 of 10
    assert [row["accuracy"] for row in record["per_class"]] == [0.75, 1, 1, 0.5]
    assert [row["n"] for row in record["per_class"]] == [4, 2, 2, 2]
    assert record["model"]["sha256"] == onnx_file.sha256(model)
    assert record["data"]["sha256"] == onnx_file.sha256(data)
    assert record["teacher"] is None


def test_a_class_without_images_has_no_accuracy(make_picker, save):
    record = evaluate(make_picker(), save(images=pictures([0, 1]), labels=np.array([0, 1], np.uint8)))
    assert [row["accuracy"] for row in record["per_class"]] == [1, 1, None, None]


def test_agreement_with_the_teacher(make_picker, save):
    data = save(images=pictures(), labels=np.array(TRUE))
    same = evaluate(make_picker(), data, teacher=make_picker("teacher.onnx"))["teacher"]
    assert (same["agreement"], same["accuracy"], same["file"]) == (1, 0.8, "teacher.onnx")
    other = evaluate(make_picker(), data, teacher=make_picker("teacher.onnx", shift=3))["teacher"]
    assert (other["agreement"], other["accuracy"]) == (
        0,
        0.2,
    )  # it calls 0 what the model calls 1, and 3 what it calls 0


@pytest.mark.parametrize(
    ("dims", "arranged"),
    [
        (("N", 1, 2, 2), lambda x: x),
        (("N", 1, 2, 2), lambda x: x[:, 0]),
        (("N", 1, 2, 2), lambda x: x.transpose(0, 2, 3, 1)),
        (("N", 2, 2, 1), lambda x: x),
        (("N", 2, 2, 1), lambda x: x[:, 0]),
        ((3, 1, 2, 2), lambda x: x),
        (("N", "C", "H", "W"), lambda x: x),
        (("N", 1, 2, 2), lambda x: (x / 255).astype(np.float32)),
    ],
    ids=["NCHW", "NHW", "NHWC data", "NHWC model", "NHW to NHWC", "fixed batch", "free sides", "float32"],
)
def test_layouts_and_types(make_picker, save, dims, arranged):
    data = save(images=arranged(pictures()), labels=np.array(TRUE, np.int32))
    assert evaluate(make_picker(dims=dims), data)["accuracy"] == 0.8


def test_uint8_spans_the_input_range(make_picker, save, monkeypatch):
    fed = []
    answer = np.zeros((2, 4), np.float32)
    monkeypatch.setattr("edgekd.inference.logits", lambda path, images, threads, layout: fed.append(images) or answer)
    data = save(images=np.array([0, 51, 204, 255] * 2, np.uint8).reshape(2, 1, 2, 2), labels=np.zeros(2, np.int64))
    evaluate(make_picker(), data, low=-1, high=1)
    assert fed[0].dtype == np.float32
    np.testing.assert_allclose(fed[0][0].ravel(), [-1, -0.6, 0.6, 1], atol=1e-6)


def test_the_input_range_is_that_of_the_graph(make_picker, tmp_path):
    assert input_range(make_picker()) == (0, 1)
    model = onnx.load(make_picker())
    model.graph.node[0].input[0] = "scaled"
    model.graph.node.insert(0, onnx.helper.make_node("Div", ["image", "most"], ["scaled"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([255]), "most"))
    onnx.save(model, tmp_path / "bytes.onnx")
    assert input_range(tmp_path / "bytes.onnx") == (0, 255)
    assert input_range(tmp_path / "none.onnx") == (0, 1)  # why not, `evaluate` says


def test_large_data_goes_through_in_chunks(make_picker, save, monkeypatch):
    monkeypatch.setattr("edgekd.evaluate._CHUNK_BYTES", 3 * 16)
    assert evaluate(make_picker(), save(images=pictures(), labels=np.array(TRUE)))["accuracy"] == 0.8


GOOD = {"images": pictures(), "labels": np.array(TRUE)}
NAN = (pictures() / 255).astype(np.float32)
NAN[3, 0, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": pictures().astype(np.int64)}, "images are int64; allowed: uint8 or float32"),
        ({"images": pictures().astype(np.float64)}, "images are float64"),
        ({"images": pictures().reshape(10, 4)}, r"images are uint8 of shape \[10, 4\]; allowed: \[N, C, H, W\]"),
        ({"images": np.zeros((10, 1, 3, 3), np.uint8)}, r"images of shape \[1, 3, 3\] do not fit"),
        ({"images": pictures()[:9]}, "9 images but 10 labels"),
        ({"images": pictures()[:0], "labels": np.array([], np.int64)}, "holds no images"),
        ({"images": np.zeros((10, 1, 0, 0), np.uint8)}, "holds no images"),
        ({"images": NAN}, "image 3 holds NaN or infinity"),
        ({"images": np.array([None] * 10, object)}, "pickled objects"),
        ({"labels": np.array(["a"] * 10, object)}, "pickled objects"),
        ({"labels": np.array(TRUE, np.float32)}, "labels are float32"),
        ({"labels": np.array(TRUE, bool)}, "labels are bool"),
        ({"labels": np.array(TRUE)[:, None]}, r"labels are int64 of shape \[10, 1\]; allowed: integers \[N\]"),
        ({"labels": np.array([*TRUE[:9], 4])}, r"label 4 of image 9 is no class of picker\.onnx; allowed: 0 to 3"),
        ({"labels": np.array([-1, *TRUE[:9]])}, "label -1 of image 0"),
    ],
)
def test_data_that_does_not_fit(make_picker, save, changes, message):
    with pytest.raises(BadData, match=message) as caught:
        evaluate(make_picker(), save(**GOOD | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", [["images"], ["labels"], ["images", "labels"]])
def test_missing_arrays_are_named(make_picker, save, missing):
    kept = {key: value for key, value in GOOD.items() if key not in missing}
    with pytest.raises(BadData, match=f"no {' and no '.join(missing)}; it holds .*; allowed: an .npz with images"):
        evaluate(make_picker(), save(**kept, x_test=np.zeros(3)))


def test_files_that_are_no_archive(make_picker, save, tmp_path):
    good = save(**GOOD).read_bytes()
    damaged = bytearray(good)
    damaged[60:90] = bytes(30)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for content in (
        b"",
        b"labels\n1\n2\n",
        good[: len(good) // 2],
        bytes(damaged),
        (tmp_path / "array.npy").read_bytes(),
    ):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(BadData, match=r"bad\.npz: "):
            evaluate(make_picker(), tmp_path / "bad.npz")
    with pytest.raises(BadData, match="no such file"):
        evaluate(make_picker(), tmp_path / "none.npz")


def test_models_that_do_not_fit(make_picker, make_classifier, save, tmp_path):
    data = save(**GOOD)
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(BadModel, match="not an ONNX file"):
        evaluate(tmp_path / "no.onnx", data)
    with pytest.raises(BadModel, match="not an ONNX file"):
        evaluate(make_picker(), data, teacher=tmp_path / "no.onnx")
    with pytest.raises(BadData, match=r"model\.onnx: images of shape \[1, 2, 2\] do not fit"):
        evaluate(make_picker(), data, teacher=make_classifier())
    with pytest.raises(BadModel, match=r"inputs are image: tensor\(int8\); allowed: one input"):
        evaluate(make_classifier(dtype=3), data)


def test_a_model_onnx_runtime_refuses(make_picker, save, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no kernel\nfor that")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    with pytest.raises(CannotLoad, match=r"cannot load it: no kernel$"):
        evaluate(make_picker(), save(**GOOD))


@pytest.mark.parametrize(("correct", "n"), [(0, 5), (5, 5), (1, 1), (900, 1000)])
def test_wilson_solves_its_own_equation(correct, n):
    z = 1.959964
    for end in wilson(correct, n):
        assert 0 <= end <= 1
        assert (correct / n - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, abs=1e-12)


def test_a_run_keeps_one_evaluation_per_model(make_picker, save, tmp_path):
    run, data = RunFolder(tmp_path / "run"), save(**GOOD)
    for name in ("student.onnx", "student.int8.onnx", "student.onnx"):
        remember(run, evaluate(make_picker(name), data))
    kept = read_json(run.evaluation_file)["models"]
    assert list(kept) == ["student.onnx", "student.int8.onnx"]
    assert kept["student.int8.onnx"]["accuracy"] == 0.8
