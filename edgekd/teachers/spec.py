"""What an ONNX file tells about itself as a teacher, without torch.

It reads the graph. It runs the file only where the graph does not tell the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from edgekd import inference, onnx_file
from edgekd.codes import Bound, Layout, vocabulary
from edgekd.errors import BadModel, CannotLoad
from edgekd.tasks import NOTE, Task, settled
from edgekd.teachers.pixels import (
    OF_IDS,
    Dtype,
    PixelValues,
    Stated,
    id_values,
    image_axes,
    image_layout,
    image_shape,
    pixel_values,
    sequence_axes,
    shown,
)
from edgekd.teachers.points import folded_points
from edgekd.teachers.wiring import Ending, Softmax, Wiring

__all__ = ["Interface", "Layout", "TeacherSpec", "normalization_nodes", "read_spec", "statistics_points"]


@dataclass(frozen=True)
class Interface:
    """How one image classifier is asked, wherever it is, and what it answers.

    Attributes:
        name: what the user called it: a path, a URL, a function. Holds no secret.
        sha256: what identifies it: of the file, of what a server tells about a model, of a function's source.
        input_name, channels, height, width, layout: its one input, `[N, C, H, W]`, `[N, H, W, C]`, or `[N, F]` of a
            table or of T token ids: F or T channels of one pixel.
        dtype: of its input. The images are float32 in all of edgekd; for `uint8` they are whole numbers, fed as such,
            and for `int64` and `int32` token ids.
        batch: the fixed batch size, or None when it is free.
        output_name: the output that holds the scores.
        ending: what is applied to the logits last.
        classes: K, the columns of its answers: classes, or labels.
        grid: h, w of an answer per pixel, `[N, K, h, w]`, or `[N, h, w, K]` where the layout is NHWC; None where the
            answer is of the image, `[N, K]`.
        task: how they are read.
        low, high: range of the input's values, of all channels or of each.
        mean, std: per channel, in the input's own range: subtracted and divided by at the head of the graph, or given
            by the user; None when unknown.
        sources: for "range", "normalization", "layout" and "task": "graph", "flag" or "default".
    """

    name: str
    sha256: str
    input_name: str
    channels: int
    height: int
    width: int
    layout: Layout
    batch: int | None
    output_name: str
    ending: Ending
    classes: int
    task: Task
    low: Bound
    high: Bound
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    sources: dict[str, str]
    grid: tuple[int, int] | None = field(default=None, kw_only=True)
    dtype: Dtype = field(default="float32", kw_only=True)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Of the logits of one image, everywhere in edgekd: `(K,)` or `(K, h, w)`."""
        return (self.classes, *(self.grid or ()))

    @property
    def vocabulary(self) -> int | None:
        """How many token ids there are, of an input of such."""
        return vocabulary(self.layout, self.high)


@dataclass(frozen=True)
class TeacherSpec(Interface):
    """An ONNX file.

    Attributes:
        path: the file.
        logits_name: the tensor to read logits from: the input of a trailing Softmax, else the output itself. Where the
            graph changes the shape after the Softmax, it is `[N, K, 1, 1]` or the like.
        features_name: input of the last Gemm or MatMul, or None.
        statistics_points: the names of the BatchNormalization nodes whose statistics the file stores, in graph order.
        folded_points: names of the tensors that look like the output of a folded batch normalization, in graph order;
            empty where the file folded none. See `edgekd.teachers.points`.
    """

    path: Path
    logits_name: str
    features_name: str | None
    statistics_points: tuple[str, ...]
    folded_points: tuple[str, ...]


def read_spec(
    path: Path,
    *,
    input_shape: tuple[int, int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    bounds: Sequence[tuple[float, float]] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: Layout | None = None,
    task: Task | None = None,
) -> TeacherSpec:
    """Find out what there is to know about a teacher; what the caller states wins over what the graph tells.

    Without any sign the layout is NCHW, the range is [0, 1] and the normalization is unknown.

    Args:
        path: an ONNX classifier of images, of rows of a table, or of sequences of token ids, with one float32 or uint8
            input, or one of int64 or int32 ids, and one output, beside which labels may come: `[N, K]`, or `[N, K, h,
            w]` (NHWC: `[N, h, w, K]`) for the class of every pixel.
        input_shape: channels, height, width, for what the file leaves free; also for an input `[N, features]`.
        input_range: lowest and highest value of the input; of a uint8 one no other than 0 and 255, of token ids 0 and
            the last.
        bounds: the same of every channel.
        mean, std: per channel or one for all, in the input's own range.
        layout: order of the input's axes.
        task: how the answers are read.

    Raises:
        BadModel: not a classifier of one float32 or uint8 image, or of token ids.
        BadSetting: what was stated does not fit the file.
        CannotLoad: the number of classes shows only by running the file, and ONNX Runtime cannot.
    """
    name, path = str(path), Path(path)
    stated = Stated(input_shape, input_range, bounds, mean, std, layout)
    model = onnx_file.load(path)
    wiring = Wiring(model)
    entry, dims, flat = _image_input(model, path, stated)
    dtype = _TYPES[entry.type.tensor_type.elem_type]
    axes, layout_source = image_layout(layout, dims, wiring.head(entry.name, None), dtype)
    if flat and layout is None and len(dims) == 4:
        axes, layout_source = "NCHW", "default"
    channels, height, width = image_shape(dims, axes, input_shape, path)
    output = _score_output(model, path)
    values = _values(wiring, entry.name, channels, stated, dtype, path)
    ending, logits_name = wiring.ending(output.name)
    shape = (channels * height * width,) if flat else inference.fed_shape((channels, height, width), axes)
    told = _answer_dims(path, output, entry.name, np.zeros((dims[0] or 1, *shape), dtype))
    columns, *grid = inference.by_class_shape(told[1:], axes)
    noted = onnx_file.metadata(model).get(NOTE)
    task, task_source = settled(task, columns, ending, noted, path, grid=bool(grid))
    if grid:
        require_grid(told, (height, width), axes, path)
        _require_last_softmax(wiring.softmax(output.name), onnx_file.opset(model), axes, path)
    sources = {"range": values.range_source, "normalization": values.normalization_source, "layout": layout_source}
    return TeacherSpec(
        name=name,
        path=path,
        sha256=onnx_file.model_sha256(path),
        input_name=entry.name,
        channels=channels,
        height=height,
        width=width,
        layout=axes,
        batch=dims[0],
        dtype=dtype,
        output_name=output.name,
        logits_name=logits_name,
        ending=ending,
        classes=columns,
        grid=(grid[0], grid[1]) if grid else None,
        task=task,
        low=values.low,
        high=values.high,
        mean=values.mean,
        std=values.std,
        sources=sources | {"task": task_source},
        features_name=wiring.features(logits_name),
        statistics_points=statistics_points(model),
        folded_points=folded_points(model),
    )


def normalization_nodes(model: ModelProto) -> list[NodeProto]:
    """The BatchNormalization nodes whose mean and variance are stored in the file as plain tensors, in graph order."""
    fixed = onnx_file.constants(model)
    nodes = (node for node in model.graph.node if node.op_type == "BatchNormalization")
    return [node for node in nodes if node.input[3] in fixed and node.input[4] in fixed]


def statistics_points(model: ModelProto) -> tuple[str, ...]:
    """Names of the `normalization_nodes`; one without a name goes by its first output."""
    return tuple(node.name or node.output[0] for node in normalization_nodes(model))


# ---------------------------------------------------------------------------------------------------- the input


_TYPES: dict[int, Dtype] = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
}


def _image_input(model: ModelProto, path: Path, stated: Stated) -> tuple[ValueInfoProto, tuple[int | None, ...], bool]:
    """The one input, its axes, and whether it takes its numbers in one row, as tree ensembles do."""
    entries = onnx_file.real_inputs(model)
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries) or "none"
        ids = len(entries) > 1 and all(_TYPES.get(one.type.tensor_type.elem_type) in OF_IDS for one in entries)
        hint = "export it with the token ids for its one input, masks and kinds computed from them" if ids else ""
        what = f"{len(entries)} inputs ({names}), a teacher takes one image"
        raise BadModel(what, where=path, allowed="one input", hint=hint)
    entry = entries[0]
    if entry.type.WhichOneof("value") != "tensor_type":
        raise BadModel(f"input {entry.name!r} is not a tensor", where=path, allowed="a float32 or uint8 image")
    kind = entry.type.tensor_type.elem_type
    dims = onnx_file.dimensions(entry) or []
    ids = _TYPES.get(kind) in OF_IDS
    if kind not in _TYPES or (ids and len(dims) != 2):
        what, hint = f"input {entry.name!r} is {onnx_file.type_name(kind)}", "export it with a float32 input"
        allowed = "float32 or uint8 images, int64 or int32 token ids [N,T]"
        raise BadModel(what, where=path, allowed=allowed, hint=hint)
    if ids:
        return entry, sequence_axes(entry.name, dims, stated, path), True
    return entry, *image_axes(entry.name, dims, stated, path)


def _values(wiring: Wiring, entry: str, channels: int, stated: Stated, dtype: Dtype, path: Path) -> PixelValues:
    """The range of the input and how it is normalized; of token ids how many there are."""
    if dtype in OF_IDS:
        return id_values(stated, wiring.vocabulary(entry), path)
    return pixel_values(wiring.head(entry, channels), channels, stated, dtype)


# --------------------------------------------------------------------------------------------------- the output


_LABELS = (TensorProto.INT64, TensorProto.INT32, TensorProto.STRING)
"""What converters of scikit-learn and of boosted trees answer beside the scores: the class itself."""


def _score_output(model: ModelProto, path: Path) -> ValueInfoProto:
    outputs: list[ValueInfoProto] = list(model.graph.output)
    allowed = "one output of class scores, [N,K] or [N,K,h,w]"
    if any(output.type.WhichOneof("value") != "tensor_type" for output in outputs):
        zipped = any(node.op_type == "ZipMap" for node in model.graph.node)
        hint = "convert it again without ZipMap: options={'zipmap': False} in skl2onnx, zipmap=False in onnxmltools"
        raise BadModel("an output is a sequence or a map", where=path, allowed=allowed, hint=hint if zipped else "")
    scores = [output for output in outputs if output.type.tensor_type.elem_type not in _LABELS]
    if outputs and not scores:
        what, hint = f"output {outputs[0].name!r} tells the choice alone", "export it with the scores for output"
        raise BadModel(what, where=path, allowed=allowed, hint=f"{hint}, without an ArgMax")
    if len(scores) != 1 or _detects(model, scores):
        names = ", ".join(output.name for output in outputs)
        looks = "object detection" if _detects(model, outputs) else "more than a classifier"
        hint = "cut it out with onnx.utils.extract_model"
        raise BadModel(f"outputs {names} look like {looks}", where=path, allowed=allowed, hint=hint)
    kind = scores[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        name = onnx_file.type_name(kind)
        raise BadModel(f"output {scores[0].name!r} is {name}", where=path, allowed=f"{allowed}, float32")
    dims = onnx_file.dimensions(scores[0]) or []
    if len(dims) not in (2, 4):
        hint = "export one score per image as a column, [N,1]" if len(dims) == 1 else ""
        raise BadModel(f"output {scores[0].name!r} is {shown(dims)}", where=path, allowed=allowed, hint=hint)
    return scores[0]


def _detects(model: ModelProto, outputs: list[ValueInfoProto]) -> bool:
    words = ("box", "detection", "score", "nms")
    named = len(outputs) > 1 and any(word in output.name.lower() for output in outputs for word in words)
    return named or any(node.op_type == "NonMaxSuppression" for node in model.graph.node)


def _answer_dims(path: Path, output: ValueInfoProto, entry: str, zeros: NDArray[np.generic]) -> tuple[int, ...]:
    """Sizes of an answer, from the file where it tells all but the batch, else from one run on zeros."""
    dims = onnx_file.dimensions(output) or []
    told = [size for size in dims[1:] if size is not None]
    if len(told) == len(dims) - 1:
        return (len(zeros), *told)
    answer = _answer(path, output.name, {entry: zeros})
    if answer.ndim != len(dims):
        raise BadModel(f"output {output.name!r} has {answer.ndim} axes", where=path, allowed="class scores [N,K]")
    return answer.shape


def require_grid(answer: Sequence[int], image: tuple[int, int], layout: Layout, where: object) -> None:
    """Refuse answers of four axes that are no grid over the image.

    Args:
        answer: sizes of an answer to a batch, in the order of the model's own axes.
        image: height and width.
        layout: of the model.
        where: for messages.

    Raises:
        BadModel: one answer per image, or the classes are on another axis.
    """
    _, *grid = inference.by_class_shape(answer[1:], layout)
    _, *other = inference.by_class_shape(answer[1:], "NCHW" if layout == "NHWC" else "NHWC")
    seen = shown([None, *answer[1:]])
    if max(grid) == 1:
        raise BadModel(f"it answers {seen}, once per image", where=where, hint="flatten the output to [N,K]")
    if not _lies_over(grid, image) and _lies_over(other, image):
        allowed = "[N,K,h,w] for images [N,C,H,W], [N,h,w,K] for images [N,H,W,C]"
        hint = "say --layout if its images are guessed wrong, else transpose its output"
        raise BadModel(f"it answers {seen} to {layout} images", where=where, allowed=allowed, hint=hint)


def _lies_over(grid: Sequence[int], image: tuple[int, int]) -> bool:
    """Whether a grid has the proportions of an image, up to what rounding at every halving does to small ones."""
    tall, wide = (side / cells for side, cells in zip(image, grid, strict=True))
    return max(tall, wide) <= 1.35 * min(tall, wide)


def _require_last_softmax(found: Softmax | None, opset: int, layout: Layout, path: Path) -> None:
    """Refuse a Softmax that is not over the classes of a pixel, or behind which pixels are still moved."""
    hint = "export it with its logits for output, or cut it there with onnx.utils.extract_model"
    if found is not None and found.moved:
        what = f"a {found.moved} comes behind its {found.operator}"
        raise BadModel(what, where=path, allowed="logits, or a Softmax at the very end", hint=hint)
    if found is None or found.axis is None:
        return
    axis, classes = found.axis % 4, 1 if layout == "NCHW" else 3
    if axis != classes or (opset < 13 and axis != 3):  # before opset 13 it runs over all axes from there on
        what = f"its {found.operator} runs over axis {axis}{' and those behind it' * (opset < 13)}"
        raise BadModel(what, where=path, allowed=f"over the classes alone, axis {classes} of {layout}", hint=hint)


def _answer(path: Path, output: str, feed: dict[str, NDArray[np.generic]]) -> NDArray[np.generic]:
    session = inference.open_session(path)
    try:
        return np.asarray(session.run([output], feed)[0])
    except Exception as error:
        raise CannotLoad(f"ONNX Runtime cannot run it: {onnx_file.first_line(error)}", where=path) from error
