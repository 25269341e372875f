"""Another last layer for students side by side, learned from labelled samples: the students stay as they are.

With labels of the teacher's own task that is what the authors end with (Teacher-Class Network: Malik et al., 2020, step
4: students frozen, the last layer fine-tuned with cross-entropy); with labels of another task it is what they claim the
representation to be good for. This is a step of its own because it alone reads labels: a distillation stays free of
them. What comes out is an ONNX file, which `export`, `eval`, `bench` and `gate` take like any other.

The record `edgekd.transfer/1`, written beside the file:

    schema, tool, made (ISO UTC)
    student    sha256 of the weights whose students answer
    file       {path, sha256, bytes}
    samples    {file, sha256, images, classes}
    began_as   "the run's own layer" where the number of classes is that of the run, else "zeros"
    held_out   {images, accuracy}: of samples that the layer did not learn from; nothing is chosen by it
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd import __version__, onnx_file
from edgekd.codes import from_codes, vocabulary
from edgekd.devices import Target
from edgekd.errors import BadData, BadRun, BadSetting
from edgekd.inference import Floats
from edgekd.networks import load_student
from edgekd.networks.joined import Joined
from edgekd.networks.standardized import Standardized
from edgekd.run_folder import RunFolder, task_of, write_json
from edgekd.samples import Images, Labels, fitting, read_labelled, read_tokens
from edgekd.tracing import of_student, trace

SCHEMA = "edgekd.transfer/1"
EPOCHS, RATE, BATCH = 30, 2e-3, 128
"""The authors' batch and, of their 5 to 70 epochs, as many as a layer on answers that are kept takes seconds for."""
STEPS = 3000
"""At least, of a layer that begins at zero, however few samples there are: a weight moves by no more than the rate in
each. The run's own layer is fine-tuned, and few samples are not to undo what it has learned."""
ASIDE, LEAST = 8, 64
"""One sample in so many is held out; fewer than so many in all teach nothing."""
_PART, _SHOWN = 256, 256


def transfer(
    run: RunFolder,
    samples: Path,
    out: Path,
    *,
    target: Target,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Learn another last layer for a run's students, and write all of them with it as one ONNX file.

    Args:
        run: of students side by side.
        samples: an `.npz` with `images` as the students take them, and `labels`, one class each.
        out: the file; its record is written beside it.
        target: opset and IR version.
        seed: of the order in which samples are seen, and of which are held out.
        overwrite: replace what is there.

    Returns:
        The record of schema `edgekd.transfer/1`.

    Raises:
        BadRun: not distilled yet, or of one student.
        BadData: the samples are unusable or have no labels, or are not what the students take.
        BadSetting: `out` is there already, or the students answer for pixels.
        EdgekdError: the file answers otherwise than torch, or cannot be written.
    """
    if out.exists() and not overwrite:
        raise BadSetting(f"{out} is there already", where="--out", hint="name another file, or say --overwrite")
    record = run.record()
    _check(run, record)
    teacher = record["teacher"]
    shown, labels = _labelled(samples, teacher)
    classes = _classes(labels, samples)
    student = load_student(record, run.student_weights)
    own = classes == teacher["classes"]
    accuracy, aside = _learned(student, shown, torch.from_numpy(labels), classes, record, seed)
    notes = {"edgekd.weights.sha256": onnx_file.sha256(run.student_weights), "edgekd.version": __version__}
    file = _written(student, record, out, target, _floats(shown[:_SHOWN], teacher), notes)
    result = {
        "schema": SCHEMA,
        "tool": {"name": "edgekd", "version": __version__},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "student": notes["edgekd.weights.sha256"],
        "file": file,
        "samples": {
            "file": samples.name,
            "sha256": onnx_file.sha256(samples),
            "images": len(labels),
            "classes": classes,
        },
        "began_as": "the run's own layer" if own else "zeros",
        "held_out": {"images": aside, "accuracy": accuracy},
    }
    write_json(out.with_suffix(".json"), result)
    return result


def _check(run: RunFolder, record: dict[str, Any]) -> None:
    if not record["student"].get("parts"):
        hint = "those of --method teacher-class have a last layer of their own"
        raise BadRun("its student is one network", where=run.path, hint=hint)
    if task_of(record) != "classes":
        what = f"its students answer {task_of(record)}"
        raise BadSetting(what, where="--head-only", allowed="runs whose teacher tells the class of an image")
    run.require(run.student_weights, "distill")


def _labelled(samples: Path, teacher: dict[str, Any]) -> tuple[Images, Labels]:
    """Images `[N, C, H, W]`, or token ids as float32 `[N, T, 1, 1]`, as the students take them, and their labels."""
    if (ids := vocabulary(teacher["layout"], teacher["high"])) is not None:
        tokens, labels = read_tokens(samples, teacher["channels"], ids, labelled=True)
        assert labels is not None, "they were asked for"
        return tokens.astype(np.float32), labels
    images, labels = read_labelled(samples)
    return fitting(images, (teacher["channels"], teacher["height"], teacher["width"]), samples), labels


def _classes(labels: Labels, where: Path) -> int:
    if labels.min() < 0:
        raise BadData(f"label {labels.min()} is below 0", where=where, allowed="0, 1, …")
    if len(labels) < LEAST:
        raise BadData(f"it holds {len(labels)} images", where=where, allowed=f"{LEAST} and more")
    found = int(labels.max()) + 1
    if missing := sorted(set(range(found)) - set(np.unique(labels).tolist())):
        raise BadData(
            f"no sample is of class {missing[0]}", where=where, allowed=f"labels 0 to {found - 1}, all of them"
        )
    if found < 2:
        raise BadData("all samples are of one class", where=where, allowed="two classes and more")
    return found


def _floats(images: Images, teacher: dict[str, Any]) -> Floats:
    """Images float32 in the students' range."""
    if images.dtype == np.uint8:
        return from_codes(images.astype(np.uint8, copy=False), teacher["low"], teacher["high"])
    return images.astype(np.float32, copy=False)


def _learned(
    student: Standardized, shown: Images, labels: Tensor, classes: int, record: dict[str, Any], seed: int
) -> tuple[float, int]:
    """Give the students a layer that has learned the labels; its accuracy on samples held out, and their number."""
    network = student.network
    assert isinstance(network, Joined), "its record says so"
    features = torch.cat(list(_representations(student, network, shown, record["teacher"])))
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=random)
    aside, rest = order[: len(order) // ASIDE], order[len(order) // ASIDE :]
    layer = network.head.last
    assert isinstance(layer, nn.Linear), "its students answer for images"
    another = classes != layer.out_features
    if another:
        layer = nn.Linear(features.shape[1], classes)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        network.head.last = layer
    _fit(layer, features[rest], labels[rest], random, STEPS if another else 0)
    with torch.no_grad():
        right = (layer(features[aside]).argmax(dim=1) == labels[aside]).float().mean()
    return float(right), len(aside)


@torch.no_grad()
def _representations(
    student: Standardized, network: Joined, shown: Images, teacher: dict[str, Any]
) -> Iterator[Tensor]:
    """What the last layer reads, `[n, F]`, part by part."""
    for start in range(0, len(shown), _PART):
        images = torch.from_numpy(np.ascontiguousarray(_floats(shown[start : start + _PART], teacher)))
        found = network.head.joined(network.answers(student.standardized(images)))
        yield functional.relu(found) if network.parts.rectified else found


def _fit(layer: nn.Linear, features: Tensor, labels: Tensor, random: torch.Generator, least: int) -> None:
    """Cross-entropy by Adam, with a rate that falls to zero: `EPOCHS`, or as many as make `least` steps."""
    epochs = max(EPOCHS, -(-least // -(-len(labels) // BATCH)))
    optimizer = torch.optim.Adam(layer.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for some in torch.split(torch.randperm(len(labels), generator=random), BATCH):
            loss = functional.cross_entropy(layer(features[some]), labels[some])
            optimizer.zero_grad()
            torch.autograd.backward([loss])
            optimizer.step()
        schedule.step()


def _written(
    student: Standardized, record: dict[str, Any], out: Path, target: Target, shown: Floats, notes: dict[str, str]
) -> dict[str, Any]:
    trace(student, of_student(record["teacher"], "logits", "classes"), target.model, shown).write(out, notes)
    return {"path": out.name, "sha256": onnx_file.sha256(out), "bytes": out.stat().st_size}
