"""What an ONNX file tells about itself as a teacher, without torch.

It reads the graph. It runs the file only where the graph does not tell the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from edgekd import inference, onnx_file
from edgekd.errors import BadModel, BadSetting, CannotLoad
from edgekd.teachers.wiring import Ending, Head, Wiring

Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True)
class TeacherSpec:
    """One image classifier.

    Attributes:
        path, sha256: the file.
        input_name, channels, height, width, layout: its one input, `[N, C, H, W]` or `[N, H, W, C]`.
        batch: the fixed batch size, or None when it is free.
        output_name: the graph's output.
        logits_name: the tensor to read logits from: the input of a trailing Softmax, else the output itself. Where the
            graph changes the shape after the Softmax, it is `[N, K, 1, 1]` or the like.
        ending: what the graph applies to the logits last.
        classes: K.
        low, high: range of the input's values.
        mean, std: per channel, in the input's own range: subtracted and divided by at the head of the graph, or given
            by the user; None when unknown.
        sources: for "range", "normalization" and "layout": "graph", "flag" or "default".
        features_name: input of the last Gemm or MatMul, or None.
        statistics_points: the names of the BatchNormalization nodes whose statistics the file stores, in graph order.
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


_SHAPE_HINT = "say it with --input-shape C,H,W"


def read_spec(
    path: Path,
    *,
    input_shape: tuple[int, int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: Layout | None = None,
) -> TeacherSpec:
    """Find out what there is to know about a teacher; what the caller states wins over what the graph tells.

    Without any sign the layout is NCHW, the range is [0, 1] and the normalization is unknown.

    Args:
        path: an ONNX image classifier with one float32 input and one output `[N, K]`.
        input_shape: channels, height, width, for what the file leaves free.
        input_range: lowest and highest value of the input.
        mean, std: per channel or one for all, in the input's own range.
        layout: order of the input's axes.

    Raises:
        BadModel: not a classifier of one float32 image.
        BadSetting: what was stated does not fit the file.
        CannotLoad: the number of classes shows only by running the file, and ONNX Runtime cannot.
    """
    path = Path(path)
    model = onnx_file.load(path)
    wiring = Wiring(model)
    entry, dims = _image_input(model, path)
    axes, layout_source = _layout(layout, dims, wiring.head(entry.name, None))
    channels, height, width = _shape(dims, axes, input_shape, path)
    output = _score_output(model, path)
    stated = (_per_channel(mean, channels, "--mean"), _per_channel(std, channels, "--std"))
    head = wiring.head(entry.name, channels)
    values = _values(head, channels, input_range, *stated)
    ending, logits_name = wiring.ending(output.name)
    return TeacherSpec(
        path=path,
        sha256=onnx_file.model_sha256(path),
        input_name=entry.name,
        channels=channels,
        height=height,
        width=width,
        layout=axes,
        batch=dims[0],
        output_name=output.name,
        logits_name=logits_name,
        ending=ending,
        classes=_classes(path, output, entry.name, _full(dims, axes, (channels, height, width))),
        low=values.low,
        high=values.high,
        mean=values.mean,
        std=values.std,
        sources={"range": values.range_source, "normalization": values.normalization_source, "layout": layout_source},
        features_name=wiring.features(logits_name),
        statistics_points=statistics_points(model),
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


def _image_input(model: ModelProto, path: Path) -> tuple[ValueInfoProto, list[int | None]]:
    entries = onnx_file.real_inputs(model)
    if len(entries) != 1:
        names = ", ".join(entry.name for entry in entries) or "none"
        raise BadModel(f"{len(entries)} inputs ({names}), a teacher takes one image", where=path, allowed="one input")
    entry = entries[0]
    if entry.type.WhichOneof("value") != "tensor_type":
        raise BadModel(f"input {entry.name!r} is not a tensor", where=path, allowed="a float32 image")
    kind = TensorProto.DataType.Name(entry.type.tensor_type.elem_type).lower()
    if kind != "float":
        hint = "export it with a float32 input"
        raise BadModel(f"input {entry.name!r} is {kind}", where=path, allowed="float32 images", hint=hint)
    dims = onnx_file.dimensions(entry) or []
    if len(dims) != 4:
        shown = _shown(dims)
        raise BadModel(f"input {entry.name!r} is {shown}, not an image", where=path, allowed="[N,C,H,W] or [N,H,W,C]")
    return entry, dims


def _shown(dims: list[int | None]) -> str:
    return "[" + ",".join("?" if size is None else str(size) for size in dims) + "]"


def _layout(stated: Layout | None, dims: list[int | None], head: Head) -> tuple[Layout, str]:
    if stated is not None:
        return stated, "flag"
    if head.channels_first is not None:
        return ("NCHW" if head.channels_first else "NHWC"), "graph"
    first, last = (dims[axis] in (1, 3) for axis in (1, 3))
    if first != last:
        return ("NCHW" if first else "NHWC"), "graph"
    return "NCHW", "default"


def _shape(
    dims: list[int | None], layout: Layout, stated: tuple[int, int, int] | None, path: Path
) -> tuple[int, int, int]:
    told = tuple(dims[1:]) if layout == "NCHW" else (dims[3], dims[1], dims[2])
    found = []
    for index, name in enumerate(("channels", "height", "width")):
        size = told[index]
        if size is None and stated is None:
            raise BadModel(f"its input leaves the {name} free", where=path, hint=_SHAPE_HINT)
        if size is not None and stated is not None and size != stated[index]:
            raise BadSetting(f"{name} {stated[index]} does not fit the file's {size}", where="--input-shape")
        found.append(size if size is not None else stated[index] if stated else 0)
    if min(found) < 1:
        raise BadSetting("every size must be at least 1", where="--input-shape")
    return found[0], found[1], found[2]


def _full(dims: list[int | None], layout: Layout, shape: tuple[int, int, int]) -> tuple[int, ...]:
    return (dims[0] or 1, *inference.fed_shape(shape, layout))


# ------------------------------------------------------------------------------------------------- pixel values


@dataclass(frozen=True)
class _Values:
    low: float
    high: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    range_source: str
    normalization_source: str


def _per_channel(values: Sequence[float] | None, channels: int, flag: str) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) not in (1, channels):
        raise BadSetting(f"{len(values)} values for {channels} channels", where=flag, allowed=f"1 or {channels} values")
    return tuple(map(float, values)) * (channels if len(values) == 1 else 1)


def _values(
    head: Head,
    channels: int,
    stated_range: tuple[float, float] | None,
    stated_mean: tuple[float, ...] | None,
    stated_std: tuple[float, ...] | None,
) -> _Values:
    if (stated_mean is None) != (stated_std is None):
        raise BadSetting("give both or neither", where="--mean/--std")
    if stated_std is not None and min(stated_std) <= 0:
        raise BadSetting("a deviation must be above 0", where="--std")
    mean, std, source = stated_mean, stated_std, "flag"
    if mean is None:
        mean, std = _folded(head, channels)
        source = "graph" if mean is not None else "default"
    implied = implied_range(mean, std) if mean is not None and std is not None else None
    # Scaling alone, or subtraction alone, tells the range but not how the images are spread in it.
    if source == "graph" and (not head.offset.any() or (head.scale == 1).all()):
        mean, std, normalization_source = None, None, "default"
    else:
        normalization_source = source
    if stated_range is not None:
        low, high, range_source = *stated_range, "flag"
    elif implied is not None:
        low, high, range_source = *implied, source
    else:
        low, high, range_source = 0.0, 1.0, "default"
    if not low < high:
        raise BadSetting(f"{low:g},{high:g} is empty", where="--input-range", allowed="LOW,HIGH with LOW below HIGH")
    return _Values(low, high, mean, std, range_source, normalization_source)


def _folded(head: Head, channels: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation of `scale * x + offset = (x - mean) / std`, or None when there is no such step."""
    changes = head.offset.any() or (head.scale != 1).any()
    if not changes or (head.scale <= 0).any():
        return None, None
    mean, std = (np.broadcast_to(v, channels) for v in (-head.offset / head.scale, 1 / head.scale))
    return tuple(float(f"{v:.7g}") for v in mean), tuple(float(f"{v:.7g}") for v in std)


def implied_range(mean: Sequence[float], std: Sequence[float]) -> tuple[float, float] | None:
    """The range of values that a normalization `(x - mean) / std` was made for, or None when it does not tell.

    A mean of at most 1 with a deviation of at most 1 belongs to values in [0, 1]; a mean of up to 255, or a division by
    about 255, to [0, 255].
    """
    if min(mean) < 0 or max(mean) > 255:
        return None
    if max(mean) <= 1 and max(std) <= 1:
        return 0.0, 1.0
    return (0.0, 255.0) if max(mean) > 1 or max(std) > 16 else None


# --------------------------------------------------------------------------------------------------- the output


def _score_output(model: ModelProto, path: Path) -> ValueInfoProto:
    outputs: list[ValueInfoProto] = list(model.graph.output)
    allowed = "one output [N,K] of class scores"
    if any(output.type.WhichOneof("value") != "tensor_type" for output in outputs):
        raise BadModel("an output is a sequence or a map", where=path, allowed=allowed)
    if len(outputs) != 1 or any(node.op_type == "NonMaxSuppression" for node in model.graph.node):
        names = ", ".join(output.name for output in outputs)
        looks = "object detection" if _detects(model) else "more than a classifier"
        hint = "cut it out with onnx.utils.extract_model"
        raise BadModel(f"outputs {names} look like {looks}", where=path, allowed=allowed, hint=hint)
    kind = outputs[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        name = TensorProto.DataType.Name(kind).lower()
        raise BadModel(f"output {outputs[0].name!r} is {name}", where=path, allowed=f"{allowed}, float32")
    dims = onnx_file.dimensions(outputs[0]) or []
    if len(dims) != 2:
        shown = _shown(dims)
        raise BadModel(f"output {outputs[0].name!r} is {shown}", where=path, allowed=allowed)
    return outputs[0]


def _detects(model: ModelProto) -> bool:
    words = ("box", "detection", "score", "nms")
    named = any(word in output.name.lower() for output in model.graph.output for word in words)
    return named or any(node.op_type == "NonMaxSuppression" for node in model.graph.node)


def _classes(path: Path, output: ValueInfoProto, entry: str, shape: tuple[int, ...]) -> int:
    """K, from the file where it tells, else from one run on zeros."""
    classes = (onnx_file.dimensions(output) or [None, None])[1]
    if classes is None:
        answer = _answer(path, output.name, entry, shape)
        if answer.ndim != 2:
            raise BadModel(f"output {output.name!r} has {answer.ndim} axes", where=path, allowed="class scores [N,K]")
        classes = answer.shape[1]
    if classes < 2:
        raise BadModel(f"output {output.name!r} has {classes} column", where=path, allowed="two classes or more")
    return int(classes)


def _answer(path: Path, output: str, entry: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    session = inference.open_session(path)
    try:
        return np.asarray(session.run([output], {entry: np.zeros(shape, np.float32)})[0])
    except Exception as error:
        raise CannotLoad(f"ONNX Runtime cannot run it: {onnx_file.first_line(error)}", where=path) from error
