"""The `scores` access level for a file: ONNX Runtime answers, whatever the graph is made of.

Where the graph shows the logits before its Softmax, it is cut there. It gives no gradient.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from onnx import ModelProto, ValueInfoProto

from edgekd import inference, onnx_file
from edgekd.errors import EdgekdError
from edgekd.teachers.source import Again, Floats, as_logits, checked, ending_of, probes
from edgekd.teachers.spec import TeacherSpec

BATCH = 64
"""Images in one run: more is no faster on a CPU, and needs the more memory."""


class SessionSource:
    """An ONNX file that ONNX Runtime loads, of one image input; tree ensembles of `ai.onnx.ml` among them.

    Args:
        spec: what `read_spec` found in the file.
        threads: of ONNX Runtime.

    Raises:
        CannotLoad: ONNX Runtime refuses the file.
        BadModel: it is no classifier after all.
    """

    probed = 0  # a file is asked for nothing

    def __init__(self, spec: TeacherSpec, threads: int = 1) -> None:
        self.spec, self.batch = spec, spec.batch or BATCH
        model = onnx_file.load(spec.path)
        cut = _cut(model, spec)
        self._session = inference.open_session(spec.path, threads, graph=cut)
        self._output = spec.output_name if cut is None else spec.logits_name
        self._row = len(self._session.get_inputs()[0].shape) == 2
        self._ending = spec.ending if cut is None else "logits"
        if any(node.domain == "ai.onnx.ml" for node in model.graph.node):
            # No node of a tree ensemble says that it votes.
            self._ending = ending_of(self._run(probes(spec)), spec.task)
            self.spec = dataclasses.replace(spec, ending=self._ending)

    def ask(self, images: Floats, again: Again) -> Floats:  # noqa: ARG002 - asking a file again costs nothing
        """Logits of images `[N, C, H, W]`."""
        return as_logits(self._run(images), self._ending, self.spec.name)

    def close(self) -> None:
        """Nothing to close."""

    def _run(self, images: Floats) -> Floats:
        return inference.in_batches(inference.fed(images, self.spec.layout), self.spec.batch, self._answer)

    def _answer(self, fed: Floats) -> Floats:
        typed = inference.typed(fed, self.spec.dtype)
        feed = {self.spec.input_name: typed.reshape(len(fed), -1) if self._row else typed}
        try:
            answer = np.asarray(self._session.run([self._output], feed)[0])
        except Exception as error:
            what = f"ONNX Runtime fails while running it: {onnx_file.first_line(error)}"
            raise EdgekdError(what, where=self.spec.name) from error
        sizes, layout = self.spec.answer_shape, self.spec.layout
        if answer.size == len(fed) * math.prod(sizes):  # a tensor inside the graph may have other axes than its output
            answer = answer.reshape(len(fed), *inference.fed_shape(sizes, layout))
        return checked(answer, len(fed), sizes, self.spec.name, layout)


def _cut(model: ModelProto, spec: TeacherSpec) -> bytes | None:
    """The file with its logits for its output; None where they are the output, or are too large to cut in memory."""
    if spec.logits_name == spec.output_name or onnx_file.size(spec.path) > onnx_file.MAXIMUM_BYTES:
        return None
    del model.graph.output[:]
    model.graph.output.append(ValueInfoProto(name=spec.logits_name))
    return bytes(model.SerializeToString())
