"""Another last layer for students side by side: that labels are learned, that students stay, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
from test_distill import settings
from tiny_teacher import classifier

from edgekd.devices import load_target
from edgekd.distill import distill
from edgekd.errors import BadData, BadRun, BadSetting
from edgekd.inference import logits
from edgekd.run_folder import RunFolder, read_json
from edgekd.transfer import transfer

TARGET = load_target("cpu")


def lit(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Dark, grey and bright images, and which: a task of three classes.

    The teacher's representation, means over its maps, tells these. What it does not tell, a student that answers just
    the same does not either.
    """
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    images = random.integers(0, 100, (count, 1, 12, 12)) + 75 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("transfer")
    onnx.save(classifier(), folder / "teacher.onnx")
    np.savez(folder / "real.npz", images=lit(300)[0])
    chosen = settings(method="teacher-class", students=2, steps=30, samples=str(folder / "real.npz"))
    distill(folder / "teacher.onnx", chosen, RunFolder(folder / "run"))
    return RunFolder(folder / "run")


@pytest.mark.slow
def test_another_task_is_learned_on_the_same_students(run, tmp_path: Path):
    images, labels = lit(400)
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    before = run.student_weights.read_bytes()
    record = transfer(run, tmp_path / "other.npz", tmp_path / "new.onnx", target=TARGET)
    assert run.student_weights.read_bytes() == before
    assert (record["samples"]["classes"], record["began_as"], record["held_out"]["images"]) == (3, "zeros", 50)
    assert record["held_out"]["accuracy"] > 0.9  # a third by chance
    answered = logits(tmp_path / "new.onnx", images.astype(np.float32) / 255)
    assert answered.shape == (400, 3)
    assert (answered.argmax(axis=1) == labels).mean() > 0.9
    assert read_json(tmp_path / "new.json") == record
    with pytest.raises(BadSetting, match="is there already"):
        transfer(run, tmp_path / "other.npz", tmp_path / "new.onnx", target=TARGET)


@pytest.mark.slow
def test_labels_of_the_same_task_begin_with_the_run_s_own_layer(run, tmp_path: Path, monkeypatch):
    images, labels = lit(100)
    labels[0] = 3  # as many classes as the teacher has
    np.savez(tmp_path / "same.npz", images=images, labels=labels)
    monkeypatch.setattr("edgekd.transfer.EPOCHS", 1)
    monkeypatch.setattr("edgekd.transfer.RATE", 1e-9)
    record = transfer(run, tmp_path / "same.npz", tmp_path / "new.onnx", target=TARGET)
    assert record["began_as"] == "the run's own layer"
    own = safetensors.torch.load_file(run.student_weights)["network.head.last.weight"].numpy()
    stored = [onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "new.onnx").graph.initializer]
    same = [one for one in (*stored, *(one.T for one in stored)) if one.shape == own.shape]
    assert any(np.allclose(own, one, atol=1e-5) for one in same)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (None, "no labels; it holds images"),
        (np.zeros(100, np.int64), "all samples are of one class"),
        (np.arange(100) % 3 - 1, "label -1 is below 0"),
        (np.arange(100) % 2 * 2, "no sample is of class 1"),
    ],
)
def test_labels_that_teach_nothing_are_refused(run, tmp_path: Path, labels, said):
    told = {} if labels is None else {"labels": labels}
    np.savez(tmp_path / "other.npz", images=lit(100)[0], **told)
    with pytest.raises(BadData, match=said):
        transfer(run, tmp_path / "other.npz", tmp_path / "new.onnx", target=TARGET)
    assert not (tmp_path / "new.onnx").exists()


def test_a_run_of_one_student_is_refused(teacher_file, tmp_path: Path):
    images, labels = lit(100)
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    one = RunFolder(tmp_path / "one")
    distill(teacher_file, settings(), one)
    with pytest.raises(BadRun, match=r"its student is one network; .*teacher-class"):
        transfer(one, tmp_path / "other.npz", tmp_path / "new.onnx", target=TARGET)
