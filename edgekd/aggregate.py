"""How the headers of a trained student are joined: by their mean, or weighed by attention learned from real samples.

One layer K -> 1, the same for all headers, scores each header's logits; the softmax of the scores weighs them (CDFKD:
Hao et al., ICME 2021, attention-train.py). The student stays as it is, and so does its run: what is found goes into
`aggregation.json` beside it, from where `export` takes it. This is a step of its own because it alone sees real data: a
distillation stays free of them, and can be followed by this as often as there are other samples.

The record `edgekd.aggregation/1`:

    schema, tool, made (ISO UTC)
    student    sha256 of the weights whose headers are joined
    joined     "mean" or "attention"
    samples    null, or {file, sha256, images, labels (whether those were used)}
    scorer     null, or the K weights of the layer; a bias would cancel in the softmax
    loss       null, or {mean, attention}: cross-entropy, or divergence from the teachers, on the samples themselves
    shares     null, or how much each header counts, mean over the samples
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd import __version__, onnx_file
from edgekd.config import DistillSettings, Reach, validated
from edgekd.errors import BadData, BadRun
from edgekd.networks import load_student
from edgekd.networks.headers import MultiHeader
from edgekd.networks.standardized import Standardized
from edgekd.run_folder import AGGREGATION, RunFolder, task_of, write_json
from edgekd.samples import Images, fitting, read_samples
from edgekd.synthesis import losses, questions
from edgekd.tasks import Task
from edgekd.teachers.codes import from_codes
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.lesson import mean_logits
from edgekd.teachers.open import opened_teachers

EPOCHS, RATE, BATCH = 100, 0.01, 100
"""As the authors' code has them for MNIST."""
_PART = 256


def aggregate(run: RunFolder, samples: Path | None, *, seed: int = 0, trust_factory: bool = False) -> dict[str, Any]:
    """Learn how to join a student's headers from real samples, or go back to their mean.

    Args:
        run: of a student with headers.
        samples: an `.npz` with `images` and, if there are any, `labels`; without labels the teachers are asked, and
            what is only asked is counted in the run's ledger. None: the mean.
        seed: of the order in which samples are seen.
        trust_factory: see `edgekd.networks.load_student`.

    Returns:
        The record of schema `edgekd.aggregation/1`, as written to `aggregation.json`.

    Raises:
        BadRun: not distilled yet, its student has one answer for all teachers, or a teacher is another one now.
        BadData: the samples are unusable, or not what the student takes.
        EdgekdError: a teacher cannot be asked, or not within `max_queries`.
    """
    record = run.record()
    if not record["student"].get("headers"):
        hint = "those of --method cdfkd-mfs have headers to join"
        raise BadRun("its student has one answer for all teachers", where=run.path, hint=hint)
    run.require(run.student_weights, "distill")
    told: dict[str, Any] = {"joined": "mean", "samples": None, "scorer": None, "loss": None, "shares": None}
    if samples is not None:
        told = _attention(run, record, samples, seed, trust_factory)
    result = {
        "schema": AGGREGATION,
        "tool": {"name": "edgekd", "version": __version__},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "student": onnx_file.sha256(run.student_weights),
        **told,
    }
    write_json(run.aggregation_file, result)
    return result


def _attention(run: RunFolder, record: dict[str, Any], samples: Path, seed: int, trust_factory: bool) -> dict[str, Any]:
    images, labels = read_samples(samples, task_of(record))
    shown = _fitting(images, record["teacher"], samples)
    student = load_student(record, run.student_weights, trust_factory=trust_factory)
    heads = _heads(student, shown)
    goal: _Labels | _Teachers
    if labels is None:
        goal = _Teachers(_asked(run, record, shown), task_of(record))
    else:
        goal = _Labels(torch.from_numpy(labels.astype("int64")), task_of(record), heads.shape[2], samples)
    network = student.network
    assert isinstance(network, MultiHeader), "its record says so"
    before = float(goal.loss(network.joined(heads), slice(None)))
    network.scorer = _learned(network, heads, goal, seed)
    with torch.no_grad():
        shares = network.scorer(heads).softmax(dim=1).mean(dim=0).flatten()
        after = float(goal.loss(network.joined(heads), slice(None)))
    told = {"file": samples.name, "sha256": onnx_file.sha256(samples), "images": len(shown)}
    return {
        "joined": "attention",
        "samples": told | {"labels": labels is not None},
        "scorer": network.scorer.weight.detach().flatten().tolist(),
        "loss": {"mean": before, "attention": after},
        "shares": shares.tolist(),
    }


def _fitting(images: Images, teacher: dict[str, Any], where: Path) -> Tensor:
    """float32 `[N, C, H, W]` in the student's range; channels may come last.

    Raises:
        BadData: of another size.
    """
    shape = (teacher["channels"], teacher["height"], teacher["width"])
    found = torch.from_numpy(fitting(images, shape, where))
    return from_codes(found, teacher["low"], teacher["high"]) if found.dtype == torch.uint8 else found.contiguous()


@torch.no_grad()
def _heads(student: Standardized, images: Tensor) -> Tensor:
    """The headers' logits `[N, H, K]`."""
    network = student.network
    assert isinstance(network, MultiHeader), "its record says so"
    answers = torch.cat([student.answer(part) for part in torch.split(images, _PART)])
    return answers[..., : answers.shape[2] - network.features]


@torch.no_grad()
def _asked(run: RunFolder, record: dict[str, Any], images: Tensor) -> Tensor:
    """The teachers' mean logits `[N, K]`."""
    known = [record["teacher"], *record.get("more_teachers", [])]
    if away := [one["path"] for one in known if not Path(one["path"]).is_file()]:
        what = f"without labels its teachers are asked, and {away[0]} is no file here"
        raise BadRun(what, where=run.path, hint="give labels")
    settings = validated(DistillSettings, record["settings"], run.record_file)
    ledger = Ledger(run.ledger_file, settings.max_queries)
    try:
        with opened_teachers([one["path"] for one in known], settings, ledger, Reach(), known) as opened:
            for then, now in zip(known, opened, strict=True):
                if then["sha256"] != now.facts["sha256"]:
                    raise BadRun(f"{then['path']} is another teacher than it was", where=run.path, hint="give labels")
            return torch.cat(
                [mean_logits([one.teacher(part) for one in opened]) for part in torch.split(images, _PART)]
            )
    finally:
        ledger.close()


class _Labels:
    """What the joined logits are to be: the labels."""

    def __init__(self, labels: Tensor, task: Task, columns: int, where: Path) -> None:
        self.rows_of, self.task = labels.flatten().view(len(labels), -1), task
        options = columns if task == "classes" else 2
        if wrong := [int(label) for label in labels.flatten() if not 0 <= label < options]:
            raise BadData(f"label {wrong[0]} is no class of the student", where=where, allowed=f"0 to {options - 1}")

    def loss(self, logits: Tensor, which: Tensor | slice) -> Tensor:
        return functional.cross_entropy(questions.rows(logits, self.task), self.rows_of[which].flatten())


class _Teachers:
    """What the joined logits are to be: the teachers' mean."""

    def __init__(self, logits: Tensor, task: Task) -> None:
        self.theirs, self.task = logits, task

    def loss(self, logits: Tensor, which: Tensor | slice) -> Tensor:
        rows = [questions.rows(one, self.task) for one in (logits, self.theirs[which])]
        return losses.soft_labels(rows[0], rows[1], 1.0)


def _learned(network: MultiHeader, heads: Tensor, goal: _Labels | _Teachers, seed: int) -> nn.Linear:
    """The scorer of headers' logits `[N, H, K]`; it begins at zero, where headers count alike."""
    network.scorer = nn.Linear(heads.shape[2], 1, bias=False)
    nn.init.zeros_(network.scorer.weight)
    optimizer, random = torch.optim.Adam(network.scorer.parameters(), RATE), torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for which in torch.split(torch.randperm(len(heads), generator=random), BATCH):
            optimizer.zero_grad()
            torch.autograd.backward([goal.loss(network.joined(heads[which]), which)])
            optimizer.step()
    return network.scorer
