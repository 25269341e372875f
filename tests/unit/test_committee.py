"""Several students that learn apart and answer together: equal to those students alone, and one file in the end."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_distill import exported, interrupted, settings, weights

from edgekd.distill import distill
from edgekd.errors import BadSetting, UnknownName
from edgekd.networks import build_student, choose_student, load_student, parameters
from edgekd.networks.committee import Committee
from edgekd.networks.generators import Generator
from edgekd.networks.latents import GaussianLatents
from edgekd.networks.standardized import Standardized
from edgekd.objectives import METHODS
from edgekd.run_folder import RunFolder
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.lesson import lesson_of
from edgekd.teachers.spec import read_spec
from edgekd.training import Training

SHAPE = (1, 12, 12)
RATE = 0.1


def trained(network: torch.nn.Module, teacher_file: Path, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """A network after the student's steps on these batches, by plain gradient descent."""
    teacher = GraphTeacher(read_spec(teacher_file))
    changed = {"student_optimizer": "sgd", "student_rate": RATE, "student_decay": 0.0, "anneal": "none", "prior": 64}
    recipe = METHODS["edgekd"].recipe.model_copy(update=changed)
    student = Standardized(network, [0.5], [0.2])
    generator = Generator(GaussianLatents(8, 10), SHAPE, 4, mean=[0.5], std=[0.2], low=0.0, high=1.0)
    objective = METHODS["edgekd"].objective(recipe, lesson_of([teacher], student.header, *student.cut))
    training = Training([teacher], student, generator, objective, recipe)
    for images, targets in batches:
        training.student_step(images, targets)


def test_each_member_learns_what_it_would_learn_alone(teacher_file: Path) -> None:
    torch.manual_seed(0)
    committee = build_student("3xcnn-small", 0.25, SHAPE, 4)
    assert isinstance(committee, Committee)
    alone = [copy.deepcopy(member) for member in committee.members]
    batches = [(torch.rand(16, *SHAPE), torch.randn(16, 4)) for _ in range(3)]
    for network in (committee, *alone):
        trained(network, teacher_file, batches)
    for member, one in zip(committee.members, alone, strict=True):
        for (name, own), (_, expected) in zip(member.named_parameters(), one.named_parameters(), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-5, msg=name)
    assert not torch.equal(next(alone[0].parameters()), next(alone[1].parameters()))


@pytest.mark.slow
def test_a_file_answers_the_members_mean(teacher_file: Path, tmp_path: Path) -> None:
    run, record = exported(teacher_file, student="2xcnn-small", width=0.25)
    assert run.record()["student"]["name"] == "2xcnn-small"
    assert {"student", "student_int8"} <= set(record["files"])
    student = load_student(run.record(), run.student_weights)
    assert isinstance(student.network, Committee)
    images = np.random.default_rng(0).random((5, *SHAPE), np.float32)
    session = onnxruntime.InferenceSession(run.student_onnx)
    (answered,) = session.run(None, {session.get_inputs()[0].name: images})
    with torch.no_grad():
        shown = student.standardized(torch.from_numpy(images))
        expected = sum(member(shown) for member in student.network.members) / 2
    np.testing.assert_allclose(answered, expected, rtol=1e-3, atol=1e-4)
    assert len(onnx.load(run.student_onnx).graph.output) == 1


def test_an_interrupted_run_ends_in_the_same_bits(teacher_file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    chosen = settings(student="2xcnn-small", width=0.25, recipe={"rivals": 1})
    distill(teacher_file, chosen, whole)
    assert {"soft_labels", "soft_labels_1", "soft_labels_3"} <= set(whole.metrics_file.read_text().split('"'))
    interrupted(teacher_file, halves, 3, monkeypatch, chosen)
    distill(teacher_file, chosen, halves, resume=True)
    assert weights(halves) == weights(whole)


def test_its_size_is_that_of_all_members() -> None:
    assert choose_student("4xlenet5-half", None, (1, 28, 28), 10, 61_706) == ("4xlenet5-half", 0.5)
    assert parameters(build_student("4xlenet5-half", 0.5, (1, 28, 28), 10)) == 4 * 15_738


@pytest.mark.parametrize("name", ["0xlenet5", "1xlenet5", "17xlenet5", "2xauto", "2x3xlenet5"])
def test_a_committee_that_is_none_is_refused(name: str) -> None:
    with pytest.raises((BadSetting, UnknownName), match="student"):
        build_student(name, 1.0, (1, 28, 28), 10)


def test_an_unknown_member_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean cnn-small"):
        build_student("2xcnn-smal", 1.0, (1, 28, 28), 10)


@pytest.mark.parametrize(("method", "files"), [("cdfkd-mfs", 2), ("teacher-class", 1)])
def test_methods_that_take_a_student_apart_refuse_it(
    method: str, files: int, teacher_file: Path, run: RunFolder
) -> None:
    with pytest.raises(
        BadSetting, match="neither headers nor chunks of its own; allowed: cnn-small with such a method"
    ):
        distill([teacher_file] * files, settings(method=method, student="2xcnn-small"), run)
    assert not run.path.exists()
