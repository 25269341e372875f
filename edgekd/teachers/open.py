"""From what the user named to a teacher: which kind it is, how much of it may be used, and what to say about that.

A name with `://` is a server, `python:` is a function, anything else is an ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from edgekd import onnx_file
from edgekd.codes import Bound, extent
from edgekd.config import DistillSettings, Reach
from edgekd.errors import BadModel, BadSetting, CannotLoad, EdgekdError
from edgekd.tasks import Task
from edgekd.teachers import Signal, Teacher
from edgekd.teachers.asked import AskedTeacher
from edgekd.teachers.classes import Order, checked_order, class_names, order_of
from edgekd.teachers.estimate import Directions
from edgekd.teachers.function import FunctionSource
from edgekd.teachers.graph import GraphTeacher
from edgekd.teachers.last_layer import with_representation
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.normalized import shades
from edgekd.teachers.pixels import WHOLE, Stated
from edgekd.teachers.session import SessionSource
from edgekd.teachers.source import SURE, LabelsOnly, Source, not_finite
from edgekd.teachers.spec import Interface, TeacherSpec, read_spec
from edgekd.user_code import FUNCTION, is_file_name

Named = str | Path
Known = Mapping[str, Any]
"""What the record of an earlier start tells of a teacher, so that it need not be asked again."""
_ANSWERS = "auto, scores, labels"
SHOWN = 4
"""Images that a file is tried on when it is opened."""
STATED = ("input_shape", "input_range", "bounds", "mean", "std", "layout", "task")


@dataclass(frozen=True)
class Opened:
    """One teacher, ready to be asked.

    Attributes:
        teacher: it.
        facts: for run.json: its interface, what identifies it, its access level, size and parameters where known.
        notes: lines for people: what is taken for granted about it, and what its access level allows.
        why: why it offers no more than it does; "" where nothing was in the way.
        path: of its file, or None.
        close: ends a connection, where there is one.
    """

    teacher: Teacher
    facts: dict[str, Any]
    notes: tuple[str, ...]
    why: str = ""
    path: Path | None = None
    close: Callable[[], None] = lambda: None


@contextmanager
def opened_teachers(
    names: Sequence[Named], settings: DistillSettings, ledger: Ledger, reach: Reach, known: Sequence[Known] = ()
) -> Iterator[list[Opened]]:
    """Open what the user named, and close it afterwards.

    Nothing is written; a source that tells nothing of itself is asked about a few images.

    Args:
        names: ONNX files, URLs, functions.
        settings: access level, gradient, and what is stated about the images.
        ledger: of the run.
        reach: how to reach what is outside this process.
        known: when resuming, what was recorded of each.

    Raises:
        BadModel, BadSetting: one of them is no teacher, or two do not fit together.
        CannotLoad: a server cannot be reached, a file not be loaded.
    """
    if not names:
        raise BadSetting("no teacher", allowed="ONNX files, http(s):// URLs, python:module:function")
    if settings.access == "labels" and settings.gradient == "estimate":
        what = "labels do not change between neighbouring images, so nothing can be estimated from them"
        raise BadSetting(what, where="--gradient estimate", allowed="with --access scores")
    with ExitStack() as stack:
        opened = []
        for name, before in zip_longest(names, known[: len(names)]):
            opened.append(_open(name, settings, ledger, reach, before or {}, several=len(names) > 1))
            stack.callback(opened[-1].close)
            _reconcile(opened[0].teacher.spec, opened[-1].teacher.spec)
        _require_asked(opened, settings)
        yield _in_order(opened, settings.class_order)


def _in_order(opened: Sequence[Opened], told: Sequence[Order | None] | None) -> list[Opened]:
    """The teachers, their classes in the order that the user tells, or else in that of the first one's names."""
    first = opened[0].teacher.spec
    if told is not None:
        checked_order(told, len(opened), first.classes)
        orders = list(told)
    elif len(opened) == 1:
        return [opened[0]]
    else:
        names = [class_names(one.path, first.classes) if one.path else None for one in opened]
        orders = [
            order_of(names[0], own, one.teacher.spec.name, first.name) for own, one in zip(names, opened, strict=True)
        ]
    found = []
    for one, order in zip(opened, orders, strict=True):
        one.teacher.order = order
        line = f"{one.teacher.spec.name}: its classes are put in the order {'you told' if told else 'of ' + first.name}"
        found.append(replace(one, notes=(*one.notes, *([line] if order else []))))
    return found


def _require_asked(opened: Sequence[Opened], settings: DistillSettings) -> None:
    """Refuse what is said of teachers that are only asked where there is none."""
    if not all(isinstance(one.teacher, GraphTeacher) for one in opened):
        return
    if settings.max_queries is not None:
        raise BadSetting("with an exact gradient nothing is counted", where="--max-queries", allowed="--access scores")
    if settings.gradient == "estimate":
        raise BadSetting("its exact gradient is at hand", where="--gradient estimate", allowed="with --access scores")


def _open(
    name: Named, settings: DistillSettings, ledger: Ledger, reach: Reach, known: Known, *, several: bool
) -> Opened:
    text = str(name)
    if is_file_name(name):
        return _open_file(Path(name), settings, ledger, several=several)
    if settings.access == "gradient":
        raise BadSetting("only a file has a graph to differentiate", where="--access gradient", allowed=_ANSWERS)
    stated = Stated(**{field: getattr(settings, field) for field in STATED})
    kind = FunctionSource if text.startswith(FUNCTION) else _endpoint
    source: Source = kind(text, stated, reach, known)
    facts = {"path": source.spec.name, "bytes": None, "parameters": None}
    opened = asked(source, settings, ledger, facts, "")
    return replace(opened, notes=(*opened.notes, *_unencrypted(text, reach)))


def _unencrypted(url: str, reach: Reach) -> tuple[str, ...]:
    """A warning where a secret goes over a network in the open."""
    parts = urlsplit(url)
    here = parts.hostname in ("localhost", "::1") or (parts.hostname or "").startswith("127.")
    if parts.scheme != "http" or here or not (reach.token_env or reach.headers):
        return ()
    return (f"warning: what the environment holds for {parts.hostname} travels unencrypted, over http",)


def _endpoint(url: str, stated: Stated, reach: Reach, known: Known) -> Source:
    if find_spec("httpx") is None:
        raise CannotLoad("asking a server needs edgekd[http]", hint="pip install 'edgekd[http]'")
    from edgekd.teachers.endpoint import EndpointSource  # noqa: PLC0415 - only a server needs httpx

    return EndpointSource(url, stated, reach, known)


def _open_file(path: Path, settings: DistillSettings, ledger: Ledger, *, several: bool) -> Opened:
    """Among several an estimate is for those that need one: the others keep their exact gradients."""
    spec = read_spec(path, **{name: getattr(settings, name) for name in STATED})
    if settings.students is not None:
        spec = with_representation(spec, settings.representation)
    facts = {"path": str(path.resolve()), "bytes": onnx_file.size(path), "parameters": _parameters(path)}
    exact = settings.access == "gradient" or (settings.access == "auto" and (several or settings.gradient == "exact"))
    refused: EdgekdError | None = None
    if exact:
        try:
            teacher = GraphTeacher(spec)
        except BadModel as error:
            if settings.access == "gradient":
                raise
            refused = error
        else:
            _check_finite(teacher, path)
            return _graph(teacher, facts, path)
    try:
        source = SessionSource(spec, settings.threads or torch.get_num_threads())
    except EdgekdError as error:
        raise (refused or error) from None
    why = str(refused).removeprefix(f"{path}: ") if refused else ""
    return asked(source, settings, ledger, facts, why, path)


@torch.no_grad()
def _check_finite(teacher: GraphTeacher, path: Path) -> None:
    """Refuse a file whose numbers are broken, before anything is written; what is asked is checked as it answers."""
    spec = teacher.spec
    if spec.vocabulary is not None:
        return
    images = shades((spec.channels, spec.height, spec.width), spec.low, spec.high)[:SHOWN]
    if broken := not_finite(teacher(images).logits.numpy()):
        hint = "look for NaN, infinity and float16 overflow among its weights, and for a wrong --input-range"
        raise BadModel(broken, where=path, allowed="finite logits", hint=hint)


def _parameters(path: Path) -> int | None:
    return onnx_file.parameters(onnx_file.load(path)) or None


def _graph(teacher: GraphTeacher, facts: dict[str, Any], path: Path) -> Opened:
    extras = {Signal.FEATURES: "features", Signal.STATISTICS: "batch-norm statistics"}
    first = "exact gradients" if teacher.spec.vocabulary is None else "its graph, though ids have no gradient"
    offered = [first, *(word for signal, word in extras.items() if signal in teacher.signals)]
    notes = described(teacher.spec), f"access gradient: {', '.join(offered)}"
    return Opened(teacher, _facts(teacher.spec, "gradient", facts), notes, path=path)


def asked(
    source: Source, settings: DistillSettings, ledger: Ledger, facts: dict[str, Any], why: str, path: Path | None = None
) -> Opened:
    """A source as a teacher at the access level of the settings."""
    labels, estimate = settings.access == "labels", settings.gradient == "estimate"
    spec = source.spec
    if estimate and not (isinstance(spec.low, float) and isinstance(spec.high, float)):
        raise BadSetting("an estimate takes steps of one size", where="--bounds", allowed="--input-range LOW,HIGH")
    directions = Directions(settings.directions, settings.coarse, *extent(spec.low, spec.high)) if estimate else None
    teacher = AskedTeacher(LabelsOnly(source) if labels else source, ledger, directions)
    level = "labels" if labels else "scores"
    told = f"only the label, taken as {SURE:.0%} sure" if labels else "only answers"
    line = f"access {level}: {told}, each counted and kept in {ledger.path}"
    if estimate:
        line += f"; gradient estimated from {settings.directions} more questions about each generated image"
    reason = (f"no gradient, therefore access {level}: {why}",) if why else ()
    notes = (described(spec), *reason, line)
    return Opened(teacher, _facts(spec, level, facts), notes, why, path, source.close)


def _facts(spec: Interface, access: str, more: dict[str, Any]) -> dict[str, Any]:
    return asdict(spec) | {"access": access} | more


def _reconcile(first: Interface, other: Interface) -> None:
    """Refuse teachers that cannot be shown the same images, or do not answer for the same classes."""
    if first.task != other.task:
        what = f"task {other.task}, but {first.name} has {first.task}"
        raise BadModel(what, where=other.name, allowed="teachers of one task", hint="say --task for all of them")
    for field in ("channels", "height", "width", "classes", "grid", "low", "high"):
        one, two = getattr(first, field), getattr(other, field)
        if one != two:
            what = f"{field} {_told(two)}, but {first.name} has {_told(one)}"
            hint = "say --input-range or --bounds for all of them" if field in ("low", "high") else ""
            raise BadModel(what, where=other.name, allowed="teachers of one input and the same classes", hint=hint)


def _told(value: Bound) -> str:
    return f"{value:g}" if isinstance(value, float | int) else "x".join(f"{one:g}" for one in value)


_COLUMNS: dict[Task, str] = {
    "classes": "{} classes",
    "binary": "one label",
    "multilabel": "{} labels",
    "segmentation": "{} classes for each of {} pixels",
    "mask": "one label for each of {1} pixels",
}


def described(spec: Interface) -> str:
    """What is taken for granted about a teacher, and where it was learned, so that a wrong guess is seen at once."""
    shape, columns = _told((spec.channels, spec.height, spec.width)), _COLUMNS[spec.task]
    low, high = extent(spec.low, spec.high)
    rows = {
        "NF": f"rows of {spec.channels} features (if they are pixels, say --input-shape C,H,W)",
        "NT": f"sequences of {spec.channels} token ids",
    }
    numbers = "values" if spec.vocabulary is None else "ids"
    own = ", each feature in a range of its own" * (not isinstance(spec.low, float | int))
    who = "the graph tells" if isinstance(spec, TeacherSpec) else "it tells"
    told = {"graph": who, "flag": "you told", "default": "a guess: say --{} if it is wrong"}
    source = {name: told[value] for name, value in spec.sources.items()}
    facts = [
        f"teacher: {rows.get(spec.layout, shape)}, "
        f"{columns.format(spec.classes, _told(spec.grid or ()))}, ends in {spec.ending}",
        f"task {spec.task} ({source['task'].format('task')})",
        *([] if spec.layout in rows else [f"layout {spec.layout} ({source['layout'].format('layout')})"]),
        f"{numbers} in [{low:g}, {high:g}]{own} ({source['range'].format('input-range')})"
        + f", {WHOLE}" * (spec.dtype == "uint8"),
    ]
    if spec.mean is not None and spec.std is not None:
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (spec.mean, spec.std))
        facts.append(f"mean {mean}, std {std} ({source['normalization']})")
    return "; ".join(facts)
