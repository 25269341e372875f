"""What an ONNX file tells about itself as a teacher, without running it and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["NCHW", "NHWC"]
Ending = Literal["logits", "softmax", "log_softmax", "sigmoid"]


@dataclass(frozen=True)
class TeacherSpec:
    """One image classifier.

    Attributes:
        path, sha256: the file.
        input_name, channels, height, width, layout: its one input, `[N, C, H, W]` or `[N, H, W, C]`.
        batch: the fixed batch size, or None when it is free.
        output_name: the graph's output.
        logits_name: the tensor to read logits from: the input of a trailing Softmax, else the output itself.
        ending: what the graph applies to the logits last.
        classes: K.
        low, high: range of the input's values.
        mean, std: per channel, in the input's own range: subtracted and divided by at the head of the graph, or given
            by the user; None when unknown.
        sources: for "range", "normalization" and "layout": "graph", "flag" or "default".
        features_name: input of the last Gemm or MatMul, or None.
        statistics_points: the names of the BatchNormalization nodes, in graph order.
    """

    path: Path
    sha256: str
    input_name: str
    channels: int
    height: int
    width: int
    layout: Layout
    batch: int | None
    output_name: str
    logits_name: str
    ending: Ending
    classes: int
    low: float
    high: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    sources: dict[str, str]
    features_name: str | None
    statistics_points: tuple[str, ...]
