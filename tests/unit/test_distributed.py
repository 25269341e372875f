"""Several processes: what each holds, that together they are as one, and how they end together."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import distil_several
import numpy as np
import pytest
import safetensors.torch
import torch
from test_distill import SMALL, interrupted, settings
from torch import Tensor, nn

from edgekd.devices import load_recipe, load_target
from edgekd.distill import distill
from edgekd.distributed import ALONE, Ranks
from edgekd.errors import BadSetting
from edgekd.export import export
from edgekd.networks.synchronized import synchronize
from edgekd.run_folder import RunFolder
from edgekd.synthesis.bank import Bank

# ------------------------------------------------------------------------------------------------ one of several


class Lonely(Ranks):
    """One of several processes whose others have nothing to add: what it sums is its own summand."""

    def sum(self, values: Tensor) -> Tensor:
        return values

    def whole(self, own: Tensor, count: int) -> Tensor:
        return own[: -(-count // self.size)]


def together(size: int) -> list[Lonely]:
    return [Lonely(rank, size) for rank in range(size)]


def test_shares_make_up_the_batch() -> None:
    batch = torch.arange(22.0).view(11, 2)
    for size in (1, 2, 3, 11, 16):
        parts = [ranks.gather(ranks.share(batch), 11) for ranks in together(size)]
        assert torch.equal(torch.stack(parts).sum(dim=0), batch)


@dataclass(frozen=True)
class Threads(Ranks):
    """One of two that are threads of one process, so that their sums are in one graph."""

    table: dict[int, Tensor] = field(default_factory=dict)
    barrier: threading.Barrier = field(default_factory=partial(threading.Barrier, 2))

    def sum(self, values: Tensor) -> Tensor:
        self.table[self.rank] = values
        self.barrier.wait(10)
        total = self.table[0] + self.table[1]
        self.barrier.wait(10)
        return total


def test_batch_normalization_sees_the_whole_batch() -> None:
    torch.manual_seed(0)
    batch, upstream = torch.randn(6, 3, 4, 5) * 3 + 2, torch.randn(6, 3, 4, 5)
    for layer in (nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False, momentum=None)):
        first = Threads(0, 2)
        layers = [copy.deepcopy(layer) for _ in range(2)]
        both = list(zip(layers, (first, replace(first, rank=1)), strict=True))
        for one, ranks in both:
            synchronize(one, ranks)
        whole, shared = batch.clone().requires_grad_(), batch.clone().requires_grad_()
        parts = [ranks.share(shared) for _, ranks in both]
        with ThreadPoolExecutor(2) as pool:
            found = torch.cat(list(pool.map(lambda one, part: one(part), layers, parts)))
        expected = layer(whole)
        torch.testing.assert_close(found, expected)
        for out in (found, expected):
            out.backward(upstream)
        torch.testing.assert_close(shared.grad, whole.grad)
        for one in layers:
            for name, value in layer.state_dict().items():
                torch.testing.assert_close(one.state_dict()[name], value)
            one.eval()
        layer.eval()
        torch.testing.assert_close(layers[0](batch), layer(batch))


def numbered(first: int, count: int) -> tuple[Tensor, Tensor]:
    column = torch.arange(first, first + count, dtype=torch.float32)
    return (column / 255).view(-1, 1, 1, 1), column.view(-1, 1)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_shared_bank_holds_each_image_once_and_draws_what_a_bank_of_one_draws(size: int) -> None:
    """Through the ring's end, and through a checkpoint of one bank."""
    alone, *shared = (Bank(11, (1, 1, 1), (1,), 0.0, 1.0, ranks) for ranks in (ALONE, *together(size)))
    for bank in (alone, *shared):
        bank.add(*numbered(1, 7))
        bank.add(*numbered(8, 9))
    assert {len(bank.codes) for bank in shared} == {-(-11 // size)}
    restored = [Bank(11, (1, 1, 1), (1,), 0.0, 1.0, ranks) for ranks in together(size)]
    for bank in restored:
        bank.load_state_dict(alone.state_dict())
        bank.add(*numbered(17, 2))
    for bank in (alone, *shared):
        bank.add(*numbered(17, 2))
    for banks in (shared, restored):
        torch.manual_seed(3)
        expected = [*alone.draw(32), *alone.in_order(), alone.of_targets(torch.square)]
        found: list[list[Tensor]] = []
        for bank in banks:
            torch.manual_seed(3)
            found.append([*bank.draw(32), *bank.in_order(), bank.of_targets(torch.square)])
        for one, parts in zip(expected, zip(*found, strict=True), strict=True):
            assert torch.equal(one, torch.stack(parts).sum(dim=0).to(one.dtype))


def test_batches_that_cannot_be_shared_out_are_refused_together() -> None:
    ALONE.check_even(one=33, other=7)
    Ranks(0, 2).check_even(one=32, other=8)
    said = r"recipe: one 33, other 7 cannot be shared out evenly to 2 processes; allowed: multiples of 2"
    with pytest.raises(BadSetting, match=said):
        Ranks(0, 2).check_even(one=33, other=7)


# ---------------------------------------------------------------------------------------------------- torchrun


def torchrun(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Two processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {key: value for key, value in os.environ.items() if key != "EDGEKD_DEBUG"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*launcher, *map(str, arguments)], cwd=folder, env=environment, **pipes)


LEAVING = """import atexit
from torch import distributed
from edgekd.distributed import processes
def look():
    assert not distributed.is_initialized()
    print("left")
atexit.register(look)  # called last, as it is registered first
processes().meet()
"""


@pytest.mark.slow
def test_the_group_is_left_before_python_ends(tmp_path) -> None:
    """Of one that is not left, a thread of gloo's aborted every fourth run."""
    (tmp_path / "leaving.py").write_text(LEAVING)
    running = torchrun(tmp_path, "leaving.py")
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert out.count("left") == 2


TOLD = ("state", "stopped", "queries")
SET = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


def losses(run: RunFolder, since: int = 0) -> dict[tuple[int, str], float]:
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    told = ((line["step"], name, value) for line in lines for name, value in line.items())
    return {(step, name): value for step, name, value in told if name not in ("step", "seconds") and step > since}


@pytest.mark.slow
def test_two_processes_are_as_one_and_take_up_what_one_has_left(teacher_file, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edgekd.journal.LOG_SECONDS", 0.0)
    monkeypatch.setattr("edgekd.training.bfloat16_is_fast", lambda _: False)
    monkeypatch.setattr("test_distill.settings", lambda: distil_several.CHOSEN["edgekd"])
    interrupted(teacher_file, RunFolder(tmp_path / "resumed"), 3, monkeypatch)
    running = torchrun(tmp_path, distil_several.__file__, tmp_path)
    (tmp_path / "alone").mkdir()
    distil_several.distil_all(teacher_file, tmp_path / "alone")
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert out.count("next: edgekd export runs/teacher-") == 1
    assert err.count("access gradient: exact gradients") == 1
    states = {}
    for name in (*distil_several.CHOSEN, distil_several.SAMPLED):
        two, one = RunFolder(tmp_path / name), RunFolder(tmp_path / "alone" / name)
        record, expected = two.record(), one.record()
        states[name] = record["state"]
        assert [record[key] for key in TOLD] == [expected[key] for key in TOLD], name
        assert record["progress"]["images"] == expected["progress"]["images"]
        if record["progress"]["step"]:
            assert losses(two) == pytest.approx(losses(one), rel=1e-3, abs=1e-5), name
            same_state(two, one)
    known = ("edgekd", "refined", "committee", "dafl", "nayer-style", "cdfkd-mfs", "cdfkd")
    ended = dict.fromkeys((*known, "teacher-class", "teacher-class-gan", "sampled"), "finished")
    assert states == ended | {"limited": "interrupted", "spent": "interrupted"}
    resumed = RunFolder(tmp_path / "resumed")
    assert losses(resumed, 3) == pytest.approx(losses(RunFolder(tmp_path / "edgekd"), 3), rel=1e-3, abs=1e-5)
    assert resumed.record()["state"] == "finished"


def same_state(two: RunFolder, one: RunFolder) -> None:
    """Students, samples and checkpoints of two runs, but for rounding."""
    ours, theirs = (safetensors.torch.load_file(run.student_weights) for run in (two, one))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=2e-3)
    assert two.held_out().codes.shape == one.held_out().codes.shape
    assert np.abs(two.held_out().codes.astype(int) - one.held_out().codes).mean() < 0.1
    assert two.procedural((1, 12, 12)).shape == one.procedural((1, 12, 12)).shape
    ours, theirs = (torch.load(run.checkpoint_file, weights_only=True) for run in (two, one))
    assert torch.equal(ours["random"]["cpu"], theirs["random"]["cpu"])
    for name, value in ours["parts"]["objective"].items():
        torch.testing.assert_close(value, theirs["parts"]["objective"][name], rtol=1e-3, atol=2e-3)
    for bank in ("bank", "prior", "held_out"):
        kept, expected = ours["parts"][bank], theirs["parts"][bank]
        assert kept["written"] == expected["written"]
        assert kept["codes"].shape == expected["codes"].shape
        if kept["codes"].numel():
            assert (kept["codes"].float() - expected["codes"].float()).abs().mean() < 0.1


@pytest.mark.slow
def test_ctrl_c_stops_all_and_one_process_goes_on(teacher_file, tmp_path) -> None:
    run = RunFolder(tmp_path / "run")
    flags = ["--out", "run", "--minutes", 5, "--threads", 1, *SET]
    running = torchrun(tmp_path, "-m", "edgekd", "distill", teacher_file, *flags)
    while not run.metrics_file.is_file():
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=300)
    assert "next: edgekd export" not in out
    assert err.count("interrupted; go on with: edgekd distill") == 1
    record = run.record()
    assert record["state"] == "interrupted"
    assert record["progress"]["step"] > 0

    def watch(progress: Any) -> None:
        if progress.step > record["progress"]["step"]:
            signal.raise_signal(signal.SIGINT)

    chosen = settings(steps=None, minutes=5.0)
    with pytest.raises(KeyboardInterrupt):
        distill(teacher_file, chosen, run, resume=True, watch=watch)
    assert run.record()["progress"]["step"] > record["progress"]["step"]
    exported = export(run, int8=False, target=load_target("cpu"), recipe=load_recipe("percentile"))
    assert exported["files"]["student"]["bytes"] > 0


FAILING = """import os, torch
class Failing(torch.nn.Sequential):
    seen = 0
    def forward(self, images):
        self.seen += self.training
        if self.seen > 2 and os.environ["RANK"] == "1":
            raise RuntimeError("one of two")
        return super().forward(images)
def make(shape, classes, width):
    return Failing(torch.nn.Flatten(), torch.nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""


@pytest.mark.slow
def test_one_that_fails_ends_all_and_the_record_says_so(teacher_file, tmp_path) -> None:
    (tmp_path / "own.py").write_text(FAILING)
    flags = ["--out", "run", "--steps", 6, "--student", "own:make", *SET]
    running = torchrun(tmp_path, "-m", "edgekd", "distill", teacher_file, *flags)
    _, err = running.communicate(timeout=300)
    assert running.returncode != 0
    assert [line for line in err.splitlines() if line.startswith("edgekd: ")] == [
        "edgekd: error: another process of this run has ended; EDGEKD_DEBUG=1 lets every process tell what went wrong"
    ]
    assert RunFolder(tmp_path / "run").record()["state"] == "failed"


@pytest.mark.slow
def test_what_is_refused_is_refused_in_one_line(teacher_file, tmp_path) -> None:
    flags = ["--out", "run", "--steps", 6, *SET, "--set", "generator_batch=33"]
    running = torchrun(tmp_path, "-m", "edgekd", "distill", teacher_file, *flags)
    _, err = running.communicate(timeout=300)
    told = [line for line in err.splitlines() if line.startswith("edgekd: ")]
    assert len(told) == 1
    assert "recipe: generator_batch 33 cannot be shared out evenly to 2 processes; allowed: multiples of 2" in told[0]
    assert "exitcode  : 2" in err
    assert not (tmp_path / "run").exists()
