"""Students side by side: what a run leaves, how it resumes, what is added to it, and what it learns from."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import numpy_helper
from test_distill import interrupted, settings, weights
from tiny_teacher import classifier

from edgekd import networks
from edgekd.config import DistillSettings
from edgekd.distill import distill
from edgekd.errors import BadData, BadModel, BadRun, BadSetting
from edgekd.inference import logits
from edgekd.networks import Standardized
from edgekd.networks.joined import Joined
from edgekd.run_folder import RunFolder
from edgekd.training import Training


def side_by_side(**changes: object) -> DistillSettings:
    return settings(**({"method": "teacher-class", "students": 3} | changes))


def loaded(run: RunFolder) -> Standardized:
    return networks.load_student(run.record(), run.student_weights)


@pytest.mark.parametrize("method", ["teacher-class", "teacher-class-gan"])
def test_a_run_leaves_students_side_by_side(teacher_file, run, method):
    seen = []
    distill(teacher_file, side_by_side(method=method), run, watch=seen.append)
    record = run.record()
    assert record["student"]["parts"]["chunks"] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert record["student"]["parts"]["rectified"]
    told = [progress.message for progress in seen if progress.message]
    assert "3 students for 8 numbers, which does not divide evenly: 3 and 2 each" in told
    own = {"regression"} if method == "teacher-class" else {"fooling", "discriminating"}
    assert set(seen[-1].losses) == own | {"joined", "one_hot", "entropy", "statistics", "adversary"}
    student = loaded(run)
    assert record["student"]["parameters"] == networks.parameters(student)
    images = torch.rand(3, 1, 12, 12)
    torch.testing.assert_close(student(images), student.answer(images)[:, 8:])


def test_the_last_layer_begins_as_the_teacher_s_own(teacher_file, run):
    chosen = side_by_side(steps=1, recipe={"joined": 0.0}, chunks="balanced")
    distill(teacher_file, chosen, run)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(teacher_file).graph.initializer}
    network = loaded(run).network
    assert isinstance(network, Joined)
    np.testing.assert_allclose(network.head.last.weight.detach(), stored["dense"].T[:, network.parts.order], atol=1e-5)
    np.testing.assert_allclose(network.head.last.bias.detach(), stored["bias"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["teacher-class", "teacher-class-gan"])
def test_an_interrupted_run_resumes_to_the_same_bits(teacher_file, tmp_path, monkeypatch, method):
    chosen = side_by_side(method=method)
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(teacher_file, chosen, whole)
    interrupted(teacher_file, parts, 3, monkeypatch, chosen)
    distill(teacher_file, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)
    objective = torch.load(whole.checkpoint_file, weights_only=True)["parts"]["objective"]
    assert bool(objective) == (method == "teacher-class-gan")


# ------------------------------------------------------------------------------------------------- one more student


def students_of(run: RunFolder) -> dict[str, torch.Tensor]:
    found = safetensors.torch.load_file(run.student_weights)
    return {name: value for name, value in found.items() if ".students." in name}


def test_a_student_that_is_added_leaves_the_others_as_they_are(teacher_file, run, tmp_path, monkeypatch):
    distill(teacher_file, side_by_side(width=0.125), run)
    more = RunFolder(tmp_path / "more")
    chosen = settings(added_to=str(run.path))
    assert chosen.method == "teacher-class"
    distill(teacher_file, chosen, more)
    student = more.record()["student"]
    assert len(student["parts"]["added"]) == 1
    assert (student["name"], student["width"]) == ("cnn-small", 0.125)
    before, after = students_of(run), students_of(more)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.split(".")[2] for name in after.keys() - before.keys()} == {"3"}
    again = RunFolder(tmp_path / "again")
    interrupted(teacher_file, again, 3, monkeypatch, chosen)
    distill(teacher_file, chosen, again, resume=True)
    assert weights(again) == weights(more)


def test_a_student_that_is_added_brings_the_answers_nearer(teacher_file, run, tmp_path):
    """It begins with what the others miss, and learns it."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "real.npz", images=rng.integers(0, 256, (256, 1, 12, 12), dtype=np.uint8))
    diet = {"samples": str(tmp_path / "real.npz"), "recipe": {"joined": 0.0}}
    distill(teacher_file, side_by_side(students=1, steps=10, **diet), run)
    more = RunFolder(tmp_path / "more")
    distill(teacher_file, settings(added_to=str(run.path), steps=60, **diet), more)
    images = torch.from_numpy(run.held_out().images())
    theirs = torch.from_numpy(logits(teacher_file, images.numpy()))
    errors = [(loaded(one)(images) - theirs).square().mean().item() for one in (run, more)]
    assert errors[1] < errors[0]


def test_a_student_is_added_to_a_run_of_the_same_teacher_alone(teacher_file, run, tmp_path):
    distill(teacher_file, side_by_side(), run)
    onnx.save(classifier(seed=1), tmp_path / "other.onnx")
    with pytest.raises(BadRun, match=r"it was distilled from another teacher \(.*teacher\.onnx\)"):
        distill(tmp_path / "other.onnx", settings(added_to=str(run.path)), RunFolder(tmp_path / "more"))
    with pytest.raises(BadSetting, match=r"--students: that is as the other students have it"):
        settings(added_to=str(run.path), students=2)
    with pytest.raises(BadRun, match="not a run folder"):
        settings(added_to=str(tmp_path / "nowhere"))
    assert not (tmp_path / "more").exists()


def test_a_student_is_added_to_several_alone(teacher_file, run, tmp_path):
    distill(teacher_file, settings(), run)
    chosen = settings(added_to=str(run.path), method="teacher-class")
    with pytest.raises(BadRun, match=r"it has one student, to which none can be added; .*teacher-class"):
        distill(teacher_file, chosen, RunFolder(tmp_path / "more"))


# -------------------------------------------------------------------------------------------------- real samples


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """96 grey pictures of noise, as bytes."""
    images = np.random.default_rng(0).integers(0, 256, (96, 1, 12, 12), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=images)
    return tmp_path / "real.npz"


def codes(run: RunFolder) -> set[bytes]:
    state = torch.load(run.checkpoint_file, weights_only=True)["parts"]
    return {image.numpy().tobytes() for bank in ("bank", "held_out") for image in state[bank]["codes"]}


def test_students_learn_from_samples_instead_of_generated_images(teacher_file, run, real):
    seen = []
    distill(teacher_file, side_by_side(samples=str(real)), run, watch=seen.append)
    with np.load(real) as data:
        assert codes(run) == {image.tobytes() for image in data["images"]}
    generated = {"one_hot", "entropy", "statistics", "adversary"}
    assert not generated & set(seen[-1].losses)
    record = run.record()
    assert record["samples"]["count"] == 96
    assert "96 real samples instead of generated images; labels are not read" in [p.message for p in seen]
    held = run.held_out()
    np.testing.assert_allclose(held.logits, logits(teacher_file, held.images()), rtol=1e-4, atol=1e-4)


def test_a_run_on_samples_resumes_to_the_same_bits(teacher_file, tmp_path, real, monkeypatch):
    chosen = side_by_side(samples=str(real))
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    distill(teacher_file, chosen, whole)
    step = Training.student_step

    def stopped(self: Training, *batch: torch.Tensor) -> object:
        if self.step == 2 and self.images_seen == 2 * 2 * 32:
            signal.raise_signal(signal.SIGINT)
        return step(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "student_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher_file, chosen, parts)
    assert parts.record()["progress"]["step"] == 3
    distill(teacher_file, chosen, parts, resume=True)
    assert weights(parts) == weights(whole)


def test_resume_refuses_other_samples(teacher_file, tmp_path, run, real, monkeypatch):
    chosen = side_by_side(samples=str(real))
    with monkeypatch.context() as patch:
        patch.setattr("edgekd.training.Training.student_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            distill(teacher_file, chosen, run)
    np.savez(real, images=np.zeros((96, 1, 12, 12), np.uint8))
    with pytest.raises(BadRun, match="other images than it began with"):
        distill(teacher_file, chosen, run, resume=True)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((8, 12, 12), np.uint8), r"it holds 8 images; allowed: 64 and more"),
        (np.zeros((80, 3, 12, 12), np.uint8), r"images have shape \[N, 3, 12, 12\]; allowed: \[N, 1, 12, 12\]"),
        (np.full((80, 12, 12), 200, np.float32), r"values from 200 to 200; allowed: the teacher's 0 to 1, or uint8"),
        (np.zeros((80, 30), np.int64), r"images are int64; allowed: uint8 or float32"),
    ],
)
def test_samples_of_another_kind_are_refused(teacher_file, run, tmp_path, images, said):
    np.savez(tmp_path / "real.npz", images=images)
    with pytest.raises(BadData, match=said):
        distill(teacher_file, side_by_side(samples=str(tmp_path / "real.npz")), run)
    assert not run.path.exists()


def test_folders_without_pictures_are_refused(teacher_file, run, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadData, match="it holds no images"):
        distill(teacher_file, side_by_side(samples=str(tmp_path / "folder")), run)
    (tmp_path / "folder" / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadData, match=r"a\.png: not readable as an image"):
        distill(teacher_file, side_by_side(samples=str(tmp_path / "folder")), run)
    with pytest.raises(BadData, match="no such file"):
        distill(teacher_file, side_by_side(samples=str(tmp_path / "nowhere.npz")), run)


DIET = {"prior": 64, "prior_share": 0.9, "prior_fall": 0.2, "children": 8, "doubted": 0.5}


def test_samples_alone_are_learned_alike_whatever_is_said_of_procedural_images(teacher_file, tmp_path, real):
    one, other = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "other")
    distill(teacher_file, side_by_side(samples=str(real)), one)
    distill(teacher_file, side_by_side(samples=str(real), recipe=DIET), other)
    assert weights(one) == weights(other)


def test_samples_alone_are_no_generated_batches(teacher_file, run, real):
    with pytest.raises(BadSetting, match="without a generator no batch is generated; allowed: share_batch=false"):
        distill(teacher_file, side_by_side(samples=str(real), recipe={"share_batch": True}), run)


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "told", [{"students": 2}, {"chunks": "balanced"}, {"representation": "f"}], ids=["students", "chunks", "tensor"]
)
def test_methods_with_one_student_cut_nothing(teacher_file, run, told):
    with pytest.raises(BadSetting, match=r"has one student and cuts nothing; .*--method teacher-class"):
        distill(teacher_file, settings(**told), run)
    assert not run.path.exists()


def test_what_cannot_be_cut_is_refused(teacher_file, run):
    with pytest.raises(BadSetting, match=r"--students: 9 students for a representation of 8 numbers; allowed: 1 to 8"):
        distill(teacher_file, side_by_side(students=9), run)
    with pytest.raises(BadModel, match="it has no tensor 'nothing'"):
        distill(teacher_file, side_by_side(representation="nothing"), run)
    with pytest.raises(BadModel, match=r"it shows none; allowed: ONNX files with --access gradient"):
        distill(teacher_file, side_by_side(access="scores", gradient="estimate"), run)
    with pytest.raises(BadSetting, match="method teacher-class: 2 teachers; allowed: one"):
        distill([teacher_file, teacher_file], side_by_side(), run)
    assert not run.path.exists()
