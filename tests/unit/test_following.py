"""A student that learns from the images of a finished run: nothing is generated, nothing is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_distill import settings

from edgekd.config import DistillSettings
from edgekd.distill import distill
from edgekd.errors import BadRun, BadSetting
from edgekd.run_folder import RunFolder
from edgekd.settings import following
from edgekd.training import Training


@pytest.fixture
def first(teacher_file: Path, run: RunFolder) -> RunFolder:
    distill(teacher_file, settings(), run)
    return run


def parts(run: RunFolder) -> dict:
    return torch.load(run.checkpoint_file, weights_only=True)["parts"]


def test_it_learns_from_the_very_images_of_the_other(teacher_file: Path, first: RunFolder, tmp_path: Path) -> None:
    second = RunFolder(tmp_path / "second")
    distill(teacher_file, following(settings(student="lenet5-tiny", steps=4)), second, bank=first)
    record, before, after = second.record(), parts(first), parts(second)
    assert (record["state"], record["bank"], record["student"]["name"]) == ("finished", "../run", "lenet5-tiny")
    assert record["progress"]["images"] == 4 * 2 * 32
    for name in ("bank", "prior", "held_out"):
        assert torch.equal(before[name]["codes"], after[name]["codes"])
        assert torch.equal(before[name]["targets"], after[name]["targets"])
    assert all(torch.equal(value, after["generator"][name]) for name, value in before["generator"].items())
    assert np.array_equal(second.held_out().logits, first.held_out().logits)
    assert second.procedural_file.read_bytes() == first.procedural_file.read_bytes()
    losses = [json.loads(line) for line in second.metrics_file.read_text().splitlines()]
    assert "soft_labels" in losses[-1]
    assert not {"one_hot", "entropy", "adversary"} & set(losses[-1])


def test_killed_and_resumed_it_ends_where_it_would_have(
    teacher_file: Path, first: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    told = following(settings(student="lenet5-tiny", steps=5))
    distill(teacher_file, told, whole, bank=first)
    real, count = Training.student_step, 0

    def failing(self: Training, images: torch.Tensor, targets: torch.Tensor) -> dict:
        nonlocal count
        count += 1
        if count == 7:
            raise RuntimeError("power cut")
        return real(self, images, targets)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "student_step", failing)
        with pytest.raises(RuntimeError):
            distill(teacher_file, told, broken, bank=first, checkpoint_seconds=0.0)
    distill(teacher_file, told, broken, resume=True)  # it knows by itself whose images they are
    assert broken.student_weights.read_bytes() == whole.student_weights.read_bytes()
    assert broken.record()["progress"]["step"] == 5


def test_images_of_another_teacher_method_or_of_an_unfinished_run_are_refused(
    make_classifier, teacher_file: Path, first: RunFolder, tmp_path: Path
) -> None:
    second, told = RunFolder(tmp_path / "second"), following(settings())
    other = make_classifier("other.onnx", dims=("N", 1, 12, 12))
    with pytest.raises(BadRun, match="other teachers"):
        distill(other, told, second, bank=first)
    none = {"generator_batch": 16, "student_batch": 16, "bank": 0, "prior": 0, "prior_share": 0.0}
    dafl = following(settings(method="dafl", recipe=none))
    with pytest.raises(BadRun, match="--method edgekd"):
        distill(teacher_file, dafl, second, bank=first)
    record = first.record() | {"state": "interrupted"}
    first.record_file.write_text(json.dumps(record))
    with pytest.raises(BadRun, match="not finished"):
        distill(teacher_file, told, second, bank=first)
    shutil.rmtree(first.path)
    with pytest.raises(BadRun, match="not a run folder"):
        distill(teacher_file, told, second, bank=first)
    with pytest.raises(BadSetting, match="without images"):
        distill(teacher_file, told, second)
    assert not second.path.exists()


def test_a_checkpoint_that_is_gone_is_told(teacher_file: Path, first: RunFolder, tmp_path: Path) -> None:
    first.checkpoint_file.write_bytes(b"no checkpoint")
    second = RunFolder(tmp_path / "second")
    with pytest.raises(BadRun, match="damaged"):
        distill(teacher_file, following(settings()), second, bank=first)
    assert not second.path.exists()


def test_questions_that_every_batch_asks_cannot_be_counted_out(tmp_path: Path) -> None:
    moving = settings(max_queries=1000, recipe={"shift": 2})
    with pytest.raises(BadSetting, match="every batch of every student"):
        following(moving)
    still = following(settings(max_queries=1000))
    assert (still.max_queries, still.recipe.generator_steps) == (None, 0)
    assert following(settings(method="dafl", recipe={"bank": 0, "prior": 0, "prior_share": 0.0})).recipe.fresh


def test_a_teacher_that_is_only_asked_is_asked_nothing_more(teacher_file: Path, run: RunFolder, tmp_path: Path) -> None:
    asked = {"access": "scores", "max_queries": 400, "recipe": {"asked": 16, "prior": 64}}
    distill(teacher_file, settings(method="student-guided", steps=3, **asked), run)
    before = run.record()["queries"]["asked"]
    assert 64 <= before <= 400
    second = RunFolder(tmp_path / "second")
    first = DistillSettings.model_validate(run.record()["settings"])
    distill(
        teacher_file, following(first.model_copy(update={"student": "lenet5-tiny", "width": 0.5})), second, bank=run
    )
    assert second.record()["state"] == "finished"
    assert second.record()["queries"] is None
    assert not second.ledger_file.exists()
    assert run.record()["queries"]["asked"] == before
