"""What an ONNX file is, and what it would be as a teacher: facts for a person to read before distilling it.

A file that cannot be a teacher is no error here: `problems` says why. It does not run the network, beyond letting ONNX
Runtime load it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from onnx import ModelProto, ValueInfoProto

from edgekd import onnx_file, units
from edgekd.codes import extent, vocabulary
from edgekd.config import Record
from edgekd.errors import CannotLoad, EdgekdError
from edgekd.extras import INSTALL
from edgekd.inference import fed_shape, open_session
from edgekd.tasks import KINDS, Task
from edgekd.teachers.pixels import WHOLE, Dtype
from edgekd.teachers.points import folded_points
from edgekd.teachers.spec import Layout, TeacherSpec, read_spec, statistics_points
from edgekd.teachers.wiring import Ending, Wiring

SCHEMA = "edgekd.inspection/1"
KEEP_STATISTICS = "export again with BatchNormalization nodes kept: torch.onnx.export(..., dynamo=True, optimize=False)"


class TensorFacts(Record):
    """One input or output: `shape` has a name or null for a free dimension, and is null where the file is silent."""

    name: str
    type: str
    shape: list[int | str | None] | None


class StatisticsFacts(Record):
    """Whether the running statistics of batch normalization can still be read from the graph.

    `folded` counts the tensors that look like the output of a folded one.
    """

    layers: int
    folded: int
    survive: bool
    note: str


class Access(Record):
    """One level of access to the teacher: possible or not (null: unknown here), and why."""

    possible: bool | None
    why: str


class TeacherFacts(Record):
    """What `read_spec` found; of a field X, `sources[X]` is "graph", "flag" or "default".

    `grid` is h, w of an answer per pixel, else null.
    """

    classes: int
    grid: tuple[int, int] | None
    task: Task
    layout: Layout
    dtype: Dtype
    channels: int
    height: int
    width: int
    batch: int | None
    ending: Ending
    range: tuple[float, float]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    sources: dict[str, str]


class Inspection(Record):
    """Everything `edgekd inspect` shows, of schema `edgekd.inspection/1`.

    `teacher` is null when the file cannot be one, and `problems` says why.
    """

    file: str
    sha256: str
    bytes: int
    producer: str
    opset: int
    ir_version: int
    parameters: int
    macs: int | None
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]
    endings: dict[str, Ending]
    statistics: StatisticsFacts
    teacher: TeacherFacts | None
    access: dict[Literal["gradient", "scores", "labels"], Access]
    problems: list[str]


def inspect_model(
    path: Path, *, input_shape: tuple[int, int, int] | None = None, task: Task | None = None
) -> Inspection:
    """Look at an ONNX file.

    Args:
        path: any ONNX model.
        input_shape: channels, height, width, where the file leaves them free.
        task: how its answers are read, where the file does not tell.

    Raises:
        BadModel: not a valid ONNX file.
    """
    path = Path(path)
    model = onnx_file.load(path)
    spec, problem = _spec(path, input_shape, task)
    wiring = Wiring(model)
    return Inspection(
        file=str(path),
        sha256=onnx_file.model_sha256(path),
        bytes=onnx_file.size(path),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opset=onnx_file.opset(model),
        ir_version=model.ir_version,
        parameters=onnx_file.parameters(model),
        macs=onnx_file.macs(model, _image_shape(spec)),
        inputs=[_tensor(value) for value in onnx_file.real_inputs(model)],
        outputs=[_tensor(value) for value in model.graph.output],
        endings={value.name: wiring.ending(value.name)[0] for value in model.graph.output},
        statistics=_statistics(model, ids=spec is not None and spec.vocabulary is not None),
        teacher=_facts(spec) if spec else None,
        access=_access(path, spec, problem),
        problems=[problem] if problem else [],
    )


def _spec(path: Path, input_shape: tuple[int, int, int] | None, task: Task | None) -> tuple[TeacherSpec | None, str]:
    try:
        return read_spec(path, input_shape=input_shape, task=task), ""
    except EdgekdError as error:
        return None, str(error).removeprefix(f"{path}: ")


def _facts(spec: TeacherSpec) -> TeacherFacts:
    same = set(TeacherFacts.model_fields) - {"range"}
    return TeacherFacts(range=extent(spec.low, spec.high), **{name: getattr(spec, name) for name in same})


def _image_shape(spec: TeacherSpec | None) -> tuple[int, ...] | None:
    return fed_shape((spec.channels, spec.height, spec.width), spec.layout) if spec else None


def _tensor(value: ValueInfoProto) -> TensorFacts:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorFacts(name=value.name, type=(kind or "unknown").removesuffix("_type"), shape=None)
    tensor = value.type.tensor_type
    sizes = onnx_file.dimensions(value)
    named = None if sizes is None else [d.dim_param or n for d, n in zip(tensor.shape.dim, sizes, strict=True)]
    name = onnx_file.type_name(tensor.elem_type).replace("double", "float64")
    return TensorFacts(name=value.name, type="float32" if name == "float" else name, shape=named)


def _statistics(model: ModelProto, *, ids: bool) -> StatisticsFacts:
    layers = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    kept, points = len(statistics_points(model)), () if ids else folded_points(model)
    if ids:
        note = "they are of no use where ids have no gradient"
    elif kept:
        note = f"{kept} layers keep them"
    elif layers:
        note = "they are computed in the graph, not stored as plain tensors"
    elif points:
        outputs = f"{len(points)} layer outputs look" if len(points) > 1 else "1 layer output looks"
        note = f"the file has no BatchNormalization nodes, {outputs} like folded ones; if there were any, "
        note += f"{KEEP_STATISTICS}, otherwise the scale-free prior is used where their biases look folded too"
    else:
        note = "the file has no BatchNormalization nodes, and nothing looks like a folded one"
    return StatisticsFacts(layers=layers, folded=len(points), survive=bool(kept), note=note)


def _access(
    path: Path, spec: TeacherSpec | None, problem: str
) -> dict[Literal["gradient", "scores", "labels"], Access]:
    if spec is None:
        refused = Access(possible=False, why=problem)
        return {"gradient": refused, "scores": refused, "labels": refused}
    answers = _answers(path)
    return {"gradient": _gradient(spec), "scores": answers, "labels": answers}


def _answers(path: Path) -> Access:
    try:
        open_session(path)
    except CannotLoad as error:
        return Access(possible=False, why=str(error).removeprefix(f"{path}: "))
    return Access(possible=True, why="ONNX Runtime loads it")


def _gradient(spec: TeacherSpec) -> Access:
    """Whether distilling could take this teacher: by making it one, as distilling does."""
    if find_spec("torch") is None:
        return Access(possible=None, why=f"unknown without torch: {INSTALL}")
    from edgekd.teachers.graph import GraphTeacher  # noqa: PLC0415 - it imports torch, which inspecting must not need

    try:
        GraphTeacher(spec)
    except EdgekdError as error:
        return Access(possible=False, why=str(error).removeprefix(f"{spec.path}: "))
    less = ", though ids have no gradient" * (spec.vocabulary is not None)
    return Access(possible=True, why=f"its graph runs in torch{less}")


# ------------------------------------------------------------------------------------------------------ for people


def rows(found: Inspection) -> list[list[str]]:
    """An inspection as people read it: a name and a value per row."""
    table = [
        ["file", found.file],
        ["sha256", found.sha256],
        ["size", units.write_size(found.bytes)],
        ["producer", found.producer or "-"],
        ["opset, IR", f"{found.opset}, {found.ir_version}"],
        ["parameters", units.write_count(found.parameters)],
        ["MACs", units.write_count(found.macs) if found.macs is not None else "-"],
        *(["input", _shown(tensor)] for tensor in found.inputs),
        *(["output", f"{_shown(tensor)}, ends in {found.endings[tensor.name]}"] for tensor in found.outputs),
        ["batch norm", f"{'survives' if found.statistics.survive else 'none'}: {found.statistics.note}"],
    ]
    table += _teacher_rows(found.teacher) if found.teacher else []
    for level, access in found.access.items():
        answer = {True: "yes", False: "no", None: "?"}[access.possible]
        table.append([level, f"{answer}: {access.why}"])
    return table


def _teacher_rows(facts: TeacherFacts) -> list[list[str]]:
    low, high = facts.range
    normalization, ids = "-", vocabulary(facts.layout, high)
    if facts.mean and facts.std:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (facts.mean, facts.std))
        normalization = f"mean {mean}, std {std} ({facts.sources['normalization']})"
    return [
        ["task", f"{facts.task} ({facts.sources['task']})"],
        ["classes" if KINDS[facts.task].exclusive else "label columns", str(facts.classes)],
        *([["answers for", "{}x{} pixels".format(*facts.grid)]] if facts.grid else []),
        ["batch", "free" if facts.batch is None else f"fixed at {facts.batch}"],
        ["layout", f"{facts.layout} ({facts.sources['layout']})"],
        [
            "range" if ids is None else "token ids",
            f"[{low:g}, {high:g}] ({facts.sources['range']})" + f", {WHOLE}" * (facts.dtype == "uint8"),
        ],
        ["normalization", normalization],
    ]


def _shown(tensor: TensorFacts) -> str:
    shape = "?" if tensor.shape is None else ",".join("?" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.name} {tensor.type} [{shape}]"
