"""Students side by side as files of their own, and the layer that joins them as one more.

Each takes the image and answers its part of the representation, on a core or a device of its own. The head takes what
they answer, side by side in their order, and answers logits. All together they are what the joined file is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd import onnx_file
from edgekd.devices import Target
from edgekd.errors import EdgekdError
from edgekd.inference import Floats, agreement, by_class, fed_type, in_batches, open_session, typed
from edgekd.part_files import HEAD, names_of
from edgekd.quantize import Order, Source, Stored, quantized
from edgekd.run_folder import RunFolder, atomic, scratch, task_of

if TYPE_CHECKING:
    from edgekd.networks.standardized import Standardized

ANSWER = "part"
"""The output of a student's file and the input of the head's."""


def write_parts(
    run: RunFolder, record: dict[str, Any], student: Standardized, target: Target, notes: dict[str, str], shown: Floats
) -> dict[str, Path]:
    """Write the float files, each checked against torch before any is written.

    Args:
        run, record, student: of which the parts are.
        target: opset and IR version.
        notes: for the metadata.
        shown: float32 `[N, C, H, W]`, to compare ONNX Runtime with torch on.

    Returns:
        The files by name.

    Raises:
        EdgekdError: one answers otherwise than torch does, or cannot be written.
    """
    from edgekd.networks import parts_alone  # noqa: PLC0415 - torch is imported only here
    from edgekd.tracing import Port, answers, of_student, trace  # noqa: PLC0415

    teacher, names = record["teacher"], names_of(record)
    *students, head = parts_alone(student)
    traced, answered = {}, list[Floats]()
    for name, one in zip(names, students, strict=False):
        traced[name] = trace(one, of_student(teacher, ANSWER), target.model, shown)
        answered.append(answers(one, shown))
    joined = np.concatenate(answered, axis=1)
    layout = teacher["layout"] if joined.ndim == 4 else "NCHW"
    port = Port(ANSWER, "logits", joined.shape[1:], layout=layout, task=task_of(record))
    traced[HEAD] = trace(head, port, target.model, joined)
    files = {name: run.parts / f"{name}.onnx" for name in names}
    for name, made in traced.items():
        made.write(files[name], notes | {"edgekd.part": name})
    return files


def quantize_parts(run: RunFolder, record: dict[str, Any], order: Order) -> tuple[dict[str, Path], list[str]]:
    """Write the INT8 files: students calibrated on images, the head on what the float students make of them.

    A chunk of a representation is no choice between classes. So what INT8 costs is seen where all of them are joined,
    and they are written together or not at all.

    Args:
        run, record: whose float parts are written.
        order: the one for the joined file.

    Returns:
        The files by name, none where they answer too much otherwise than the joined float file; warnings.
    """
    assert order.recipe is not None, "it is an order for INT8"
    assert order.calibration is not None, "it is an order for INT8"
    names, layout = names_of(record), order.held.layout
    whole = [run.parts / f"{name}.onnx" for name in names]
    shown = {HEAD: Answered(whole[:-1], order.calibration, layout)}
    with scratch() as folder:
        made = [folder / f"{name}.int8.onnx" for name in names]
        for name, source, goal in zip(names, whole, made, strict=True):
            quantized(
                source,
                goal,
                shown.get(name, order.calibration),
                quantization=order.target.quantization,
                recipe=order.recipe,
                metadata=order.metadata,
                limits=order.target.model,
            )
        drop = 1 - _alike(whole, made, order)
        warnings = _warnings(drop, order)
        if warnings and not order.terms.force:
            return {}, warnings
        for path in made:
            with atomic(run.parts / path.name) as file:
                file.write(path.read_bytes())
    return {f"{name}.int8": run.parts / f"{name}.int8.onnx" for name in names}, warnings


def _alike(whole: Sequence[Path], made: Sequence[Path], order: Order) -> float:
    """Share of held-out samples, or of their pixels, that two sets of parts answer alike."""
    held = order.held
    answers = (Answered(files, held.source, held.layout, joined=True).parts() for files in (whole, made))
    first, second = (by_class(np.concatenate(list(parts)), held.layout) for parts in answers)
    return agreement(second, first, held.task)


def _warnings(drop: float, order: Order) -> list[str]:
    if drop <= order.terms.max_drop:
        return []
    told = f"{drop:.1%} of the held-out samples, allowed: {order.terms.max_drop:.1%}"
    said = f"int8 of the parts on target {order.target.name}: joined they answer otherwise than float on {told}"
    return [f"{said}; written because of --force" if order.terms.force else f"{said}; only float ones are written"]


@dataclass(frozen=True)
class Answered:
    """What files of students side by side answer to a source's images.

    Attributes:
        files: the students in their order; where `joined`, then the head.
        source: images as the files take them.
        layout: of the files' axes.
        joined: logits, instead of what the head takes.
    """

    files: Sequence[Path]
    source: Source
    layout: str = "NCHW"
    joined: bool = False

    def __len__(self) -> int:
        return len(self.source)

    def parts(self) -> Iterator[Floats]:
        """float32 `[n, ...]`, part by part. Raises EdgekdError when ONNX Runtime fails."""
        runs = [_runner(path) for path in self.files]
        students, head = (runs[:-1], runs[-1]) if self.joined else (runs, None)
        for images in self.source.parts():
            answered = [student(images) for student in students]
            axis = 3 if answered[0].ndim == 4 and self.layout == "NHWC" else 1
            beside = np.concatenate(answered, axis=axis)
            yield beside if head is None else head(beside)


def _runner(path: Path) -> Callable[[Floats], Floats]:
    session = open_session(path)
    entry, dtype = session.get_inputs()[0], fed_type(session)
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else None

    def answer(shown: Floats) -> Floats:
        try:
            return np.asarray(session.run(None, {entry.name: typed(shown, dtype)})[0], np.float32)
        except Exception as error:
            raise EdgekdError(f"ONNX Runtime cannot run it: {onnx_file.first_line(error)}", where=path) from error

    return lambda images: in_batches(images, batch, answer)


def joined_answer(files: Sequence[Path], images: Floats, layout: str = "NCHW") -> Floats:
    """Logits out of the parts run one after the other, the head last.

    Args:
        files: as `edgekd.part_files.exported_parts` gives them.
        images: float32 as the files take them.
        layout: of the files' axes.
    """
    return np.concatenate(list(Answered(files, Stored(images), layout, joined=True).parts()))
