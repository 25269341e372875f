"""Several students of one run: which of them is kept, reckoned again from the checkpoint alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from test_distill import interrupted, settings, weights

from edgekd.distill import distill
from edgekd.errors import BadSetting
from edgekd.networks import student_of
from edgekd.run_folder import RunFolder


def agreement(state: dict[str, Any], record: dict[str, Any], parts: dict[str, Any]) -> float:
    """With the stored answers to all that the banks of a short run hold, each bank for its share of the batches."""
    student = student_of(record)
    student.load_state_dict(state)
    student.eval()

    def of(bank: str) -> float:
        with torch.no_grad():
            own = student(parts[bank]["codes"].float() / 255)
        return float((own.argmax(1) == parts[bank]["targets"].argmax(1)).float().mean())

    return 0.8 * of("prior") + 0.2 * of("bank")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_one_that_follows_the_teacher_best_is_kept(teacher_file: Path, run: RunFolder, seed: int) -> None:
    distill(teacher_file, settings(seed=seed, recipe={"rivals": 3, "prior_share": 0.8}), run)
    parts = torch.load(run.checkpoint_file, weights_only=True)["parts"]
    rivals = [
        {name.removeprefix(f"{number}."): value for name, value in parts["rivals"].items() if name[0] == str(number)}
        for number in range(3)
    ]
    states = [parts["student"], *rivals]
    shares = [agreement(state, run.record(), parts) for state in states]
    assert len(set(shares)) > 1
    kept = safetensors.torch.load_file(run.student_weights)
    best = states[int(np.argmax(shares))]
    assert kept.keys() == best.keys()
    assert all(torch.equal(kept[name], best[name]) for name in kept)


def test_an_interrupted_run_keeps_the_same_one(teacher_file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    whole, halves = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halves")
    chosen = settings(recipe={"rivals": 2})
    distill(teacher_file, chosen, whole)
    interrupted(teacher_file, halves, 3, monkeypatch, chosen)
    distill(teacher_file, chosen, halves, resume=True)
    assert weights(halves) == weights(whole)


def test_maps_of_features_have_one_student(teacher_file: Path, run: RunFolder) -> None:
    told = settings(method="cdfkd-mfs", recipe={"rivals": 1})
    with pytest.raises(BadSetting, match="allowed: features=0 where there are rivals"):
        distill([teacher_file, teacher_file], told, run)
    assert not run.path.exists()


def test_headers_without_features_may_have_rivals(teacher_file: Path, run: RunFolder) -> None:
    told = settings(method="cdfkd-mfs", recipe={"rivals": 1, "features": 0})
    distill([teacher_file, teacher_file], told, run)
    assert {"heads", "heads_1"} <= set(run.metrics_file.read_text().split('"'))
