"""edgekd from Python: `edgekd.distill`, `export`, `bench` and `gate`, the commands of the same names as functions.

They take what the commands take, return what those print with `--json`, and raise children of `EdgekdError`. Heavy
modules are imported when a function is called, so that `import edgekd` costs nothing and needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    from edgekd.bench import Progress as BenchProgress
    from edgekd.config import Reach
    from edgekd.gate import Verdict
    from edgekd.journal import Progress
    from edgekd.run_folder import RunFolder
    from edgekd.tasks import Task

__all__ = ["Settings", "bench", "distill", "export", "gate"]


class Settings(TypedDict, total=False):
    """What `distill` may be told, as the fields of `edgekd.config.DistillSettings`; what is left out is as recommended.

    `recipe` may hold some of the weights and sizes of `edgekd.config.Recipe`.
    """

    method: str
    recipe: Mapping[str, Any]
    student: str
    width: float
    headers: Literal["shared", "plain"]
    students: int
    chunks: Literal["contiguous", "balanced"]
    representation: str
    added_to: str
    class_order: tuple[tuple[int, ...] | None, ...]
    minutes: float
    steps: int
    clock: Literal["wall", "cpu"]
    seed: int
    threads: int
    device: Literal["auto", "cpu", "cuda"]
    samples: str
    input_shape: tuple[int, int, int]
    input_range: tuple[float, float]
    bounds: tuple[tuple[float, float], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Literal["NCHW", "NHWC"]
    task: Task
    teacher_accuracy: float
    access: Literal["auto", "gradient", "scores", "labels"]
    gradient: Literal["exact", "estimate"]
    directions: int
    coarse: int
    max_queries: int


def distill(
    *teachers: str | Path,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    config: str | Path | None = None,
    watch: Callable[[Progress], None] | None = None,
    reach: Reach | None = None,
    **settings: Unpack[Settings],
) -> RunFolder:
    """Train a small student from the answers of one or more teachers to generated images.

    >>> import edgekd
    >>> run = edgekd.distill("teacher.onnx", out="run", steps=2, recipe={"prior": 256, "bank": 256})
    >>> run.record()["state"]
    'finished'

    Args:
        teachers: ONNX files, URLs of models behind the Open Inference Protocol, or `python:module:function`.
        out: the run folder; a new one under `runs/`, named after the first teacher, if left out.
        resume: go on with the run in `out`, or with the latest one.
        overwrite: replace the run in `out`.
        config: a preset, or a TOML file of the same settings; what is told here wins.
        watch: told of progress about once a second.
        reach: credentials and patience for teachers outside this process, and whether a function may run.
        settings: see `Settings`.

    Returns:
        The run, finished or out of queries: `run.record()["state"]` tells.

    Raises:
        BadSetting, BadModel, BadRun, UnknownName: something handed in cannot be used; nothing has been written.
        CannotLoad: `edgekd[distill]` is not installed, or a teacher cannot be loaded or reached.
        Refused: a server answers no more for now; the run is interrupted, and goes on with `resume`.
        EdgekdError: it failed while running; the last checkpoint is kept.
        KeyboardInterrupt: passed on after a checkpoint was written.
    """
    from edgekd.errors import BadSetting  # noqa: PLC0415 - see above
    from edgekd.extras import require_distill  # noqa: PLC0415
    from edgekd.run_folder import RunFolder, new_path  # noqa: PLC0415
    from edgekd.shipped import find  # noqa: PLC0415

    if not teachers:
        raise BadSetting("no teacher", where="distill", allowed="an ONNX file, a URL, or python:module:function")
    require_distill("distilling")
    import edgekd.distill as distillation  # noqa: PLC0415

    run = _opened(out) if resume else RunFolder(Path(out) if out is not None else new_path(str(teachers[0])))
    preset = find("presets", str(config)) if config is not None else None
    told = distillation.resolve_settings(settings, preset, run if resume else None)
    how: dict[str, Any] = {"watch": watch} if watch else {}
    distillation.distill(list(teachers), told, run, resume=resume, overwrite=overwrite, reach=reach, **how)
    return run


def export(
    run: RunFolder | str | Path | None = None,
    *,
    int8: bool = False,
    target: str = "cpu",
    calibration: str = "percentile",
    trust_factory: bool = False,
    keep_headers: Sequence[int] | None = None,
    header_outputs: bool = False,
    split: bool = False,
) -> dict[str, Any]:
    """Write student and generator as ONNX, checked against torch, and the student as INT8 if asked for.

    >>> record = edgekd.export("run", int8=True)
    >>> sorted(record["files"])
    ['generator', 'student', 'student_int8']

    Args:
        run: a run or its folder; the latest under `runs/` if left out.
        int8: also quantize the student.
        target, calibration: a shipped name, or a `.toml` file of one's own.
        trust_factory: run the code that a `module:factory` student of this run names.
        keep_headers: of a student with headers only these, from 0.
        header_outputs: answer the logits of each header too.
        split: write students side by side as files of their own too, and the head that joins them.

    Returns:
        The record of schema `edgekd.export/1`; its `warnings` are for people.

    Raises:
        BadRun: not distilled yet, damaged, or its student is a factory that is not trusted.
        UnknownName, BadSetting: no such target or recipe, or a damaged one.
        CannotLoad: `edgekd[distill]` is needed and not installed.
        EdgekdError: a file answers otherwise than torch, or quantization failed.
    """
    import edgekd.export as exporting  # noqa: PLC0415
    from edgekd.devices import load_recipe, load_target  # noqa: PLC0415

    device, recipe = load_target(target), load_recipe(calibration)
    form: dict[str, Any] = {"keep_headers": keep_headers, "header_outputs": header_outputs, "apart": split}
    return exporting.export(_opened(run), int8=int8, target=device, recipe=recipe, trust_factory=trust_factory, **form)


def bench(
    subject: RunFolder | str | Path | None = None,
    *,
    target: str = "cpu",
    teacher: str | Path | None = None,
    input_shape: tuple[int, ...] | None = None,
    watch: Callable[[BenchProgress], None] | None = None,
) -> dict[str, Any]:
    """Measure size, latency and memory on this machine: a run's teacher, student and INT8 student, or one file.

    >>> record = edgekd.bench("run")
    >>> list(record["models"])
    ['teacher', 'student', 'student.int8']
    >>> record["models"]["student.int8"]["latency_ms"]["p50"] > 0
    True

    Args:
        subject: a run, its folder, or an `.onnx` file; the latest run if left out.
        target: a shipped device, or a `.toml` file of one's own.
        teacher: where the teacher's file is, if it is not where run.json says; beside one file, what to compare with.
        input_shape: where one file leaves it free.
        watch: told which file is measured.

    Returns:
        The record of schema `edgekd.bench/1`; of a run it is kept in its bench.json too.

    Raises:
        BadRun: not exported yet, or `teacher` is another one.
        BadModel, CannotLoad: a file cannot be used or measured here.
        UnknownName, BadSetting: no such target, a damaged one, or a shape told for a run.
    """
    import edgekd.bench as benching  # noqa: PLC0415
    from edgekd.devices import load_target  # noqa: PLC0415
    from edgekd.errors import BadSetting  # noqa: PLC0415

    device = load_target(target)
    how: dict[str, Any] = {"watch": watch} if watch else {}
    beside = Path(teacher) if teacher is not None else None
    if (file := _as_model(subject)) is not None:
        models = {"teacher": beside, "student": file} if beside else {file.stem: file}
        return benching.bench(models, device, input_shape=input_shape, **how)
    if input_shape is not None:
        raise BadSetting("the run's record tells it", where="input_shape", allowed="with an .onnx file")
    return benching.bench_run(_opened(subject), device, teacher=beside, **how)


def gate(
    subject: RunFolder | str | Path | None = None,
    budget: str | Path | None = None,
    *,
    model: Literal["student", "student.int8"] | None = None,
    **limits: Any,
) -> list[Verdict]:
    """Hold a run's model, or one file, against a budget.

    >>> [verdict.ok for verdict in edgekd.gate("run", max_size="1 MB", max_parameters=10)]
    [True, False]

    Args:
        subject: a run, its folder, or an `.onnx` file; the latest run if left out.
        budget: a TOML file with a [budget] table.
        model: which of the run's; the INT8 student if there is one.
        limits: the fields of `edgekd.gate.Budget`, as text with a unit or as a number; they win over the file.

    Returns:
        One verdict for every limit: metric, limit, actual, unit, ok, where.

    Raises:
        BadSetting, UnknownName: no limit, one that cannot be read, or that a file alone does not tell.
        BadRun: not exported yet, or what was measured is missing or of another file.
        BadModel: the file is not a usable ONNX model.
    """
    import edgekd.gate as gating  # noqa: PLC0415

    read = gating.read_budget(Path(budget) if budget is not None else None, limits)
    return gating.check(_as_model(subject) or _opened(subject), read, model)


def _opened(run: RunFolder | str | Path | None) -> RunFolder:
    from edgekd.run_folder import RunFolder, latest  # noqa: PLC0415

    if run is None:
        return latest()
    return run if isinstance(run, RunFolder) else RunFolder(Path(run))


def _as_model(subject: RunFolder | str | Path | None) -> Path | None:
    from edgekd.run_folder import is_model  # noqa: PLC0415

    path = Path(subject) if isinstance(subject, str | Path) else None
    return path if path is not None and is_model(path) else None
