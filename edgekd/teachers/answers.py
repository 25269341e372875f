"""What any ONNX file of a known task answers, as logits: a teacher's own file beside its students."""

from __future__ import annotations

from pathlib import Path

from edgekd import inference, onnx_file
from edgekd.tasks import KINDS, Task
from edgekd.teachers.source import Floats, as_logits
from edgekd.teachers.wiring import Wiring


def logits(path: Path, images: Floats, task: Task, threads: int = 1, *, layout: str = "NCHW") -> Floats:
    """Logits of images as `edgekd.inference.logits` takes and returns them.

    Where one class rules out the others the scores stay as they are, whatever the ending: their arg-max is the same. Of
    a label a probability says another thing than a logit does, and so a Sigmoid is taken back.

    Raises:
        BadModel, BadData, CannotLoad, EdgekdError: as `edgekd.inference.logits`.
    """
    scores = inference.logits(path, images, threads, layout=layout)
    if KINDS[task].exclusive:
        return scores
    model = onnx_file.load(path)
    ending, _ = Wiring(model).ending(inference.scores_name(model))
    return as_logits(scores, ending, path)
