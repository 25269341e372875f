"""Distillation without data: the one loop, from one or more teachers to a run folder.

It never sees labelled data, and no figure of accuracy decides anything here: the last state is the result.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from edgekd import parts, provenance
from edgekd.checkpoint import restore, save, take_over
from edgekd.config import DistillSettings, Reach
from edgekd.distributed import Ranks, processes
from edgekd.errors import BadRun, BadSetting, OutOfQueries, Refused
from edgekd.inheritance import inherit
from edgekd.journal import Journal, Progress, Watch, say, tell_of_teachers
from edgekd.machine import chosen_device, keep_freed_memory, working_on
from edgekd.networks import generator_of, student_of
from edgekd.networks.standardized import Standardized
from edgekd.objectives import find_method
from edgekd.pace import OWN_SHARE, PRIOR_SHARE, Clock, before_training, due
from edgekd.run_folder import HeldOut, RunFolder, atomic, write_json
from edgekd.settings import fitted, resolve_settings, suited
from edgekd.synthesis import questions
from edgekd.synthesis.grid import write_grid
from edgekd.teachers import Signal, require
from edgekd.teachers.asked import AskedTeacher
from edgekd.teachers.codes import from_codes, to_codes
from edgekd.teachers.ledger import Ledger
from edgekd.teachers.lesson import lesson_of
from edgekd.teachers.open import Known, Named, Opened, opened_teachers
from edgekd.teachers.shared import SharedLedger
from edgekd.teachers.spec import Interface
from edgekd.training import HELD_OUT, Training

__all__ = ["Progress", "distill", "resolve_settings"]

CHECKPOINT_SECONDS = 30.0
QUICKLY = 1.5
"""Seconds that writing a checkpoint may take; where banks are large and it takes longer, there are so many fewer."""
Stop = Callable[[], bool]


def distill(
    teachers: Named | Sequence[Named],
    settings: DistillSettings,
    run: RunFolder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch = lambda _: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    reach: Reach | None = None,
    bank: RunFolder | None = None,
) -> None:
    """Distil one or more teachers into a student, into a run folder.

    A run of `--steps` is reproducible: killed at any moment and resumed, it ends bitwise where an uninterrupted run on
    the same machine ends. A run of `--minutes` follows the clock, and so differs from run to run.

    A run whose `max_queries` are used up ends like an interrupted one: before the round that would be one too many,
    with the last state written. It can be exported, and resumed with more. Where each question is chosen
    (student-guided) it goes on learning from what was answered, to its own end.

    Under torchrun every process calls this alike, sees the same files, and does its share of every batch; the first one
    writes and tells. What was written does not depend on how many there were, so that others may resume it.

    Args:
        teachers: ONNX files, URLs of models behind the Open Inference Protocol, or `python:module:function`.
        settings: what decides the outcome.
        run: where to write; must not exist, unless resuming or overwriting.
        resume: go on from the folder's checkpoint; teachers and settings must be those it was started with.
        overwrite: replace an existing run.
        watch: told of progress about once a second.
        checkpoint_seconds: time between checkpoints, longer where they are large; the last state is always written.
        reach: credentials and patience for teachers outside this process.
        bank: a finished run of these teachers, whose images and answers are taken over; see `settings.following`.

    Raises:
        BadModel, BadSetting, BadRun, UnknownName, CannotLoad: nothing has been written.
        Refused: a server answers no more for now (HTTP 429, 402); the run is interrupted, and can be resumed.
        EdgekdError: the disk is full, a teacher stopped answering, training diverged, or another process ended; the
            last checkpoint is kept.
        KeyboardInterrupt: passed on after a checkpoint was written.
    """
    run.check_writable()
    if run.path.exists() and not (resume or overwrite):
        hint = "choose another --out, or go on with --resume, or replace it with --overwrite"
        raise BadRun("the run folder exists already", where=run.path, hint=hint)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    keep_freed_memory()
    ranks, device = processes(), chosen_device(settings.device)
    if ranks.size > 1 and device.type != "cpu":
        raise BadSetting("several processes share work out among CPUs", where="torchrun", allowed="--device cpu")
    watch = watch if ranks.first else lambda _: None
    ledger = SharedLedger(run.ledger_file, settings.max_queries, ranks)
    names = [teachers] if isinstance(teachers, str | Path) else list(teachers)
    before = run.record() if resume else None
    bank = bank or provenance.bank_of(run, before)
    known = before or (bank.record() if bank else None)
    with (
        _opened_by_all(names, settings, ledger, reach or Reach(), provenance.described_again(known)) as opened,
        working_on(device),
    ):
        spec = opened[0].teacher.spec
        settings = suited(settings, [one.teacher.signals for one in opened], ids=spec.vocabulary is not None)
        settings = fitted(settings, spec.height, spec.width, ids=spec.vocabulary is not None)
        provenance.check_bank(bank, opened, settings)
        training, record = _prepared(opened, settings, run, before, ranks)
        if bank is not None:
            take_over(training, bank.checkpoint_file)
            record["bank"] = os.path.relpath(bank.path, run.path)
        if resume:
            _take_up(training, run)
            training.spent &= before is not None and before["settings"].get("max_queries") == ledger.limit
        ranks.meet()
        if overwrite and ranks.first and run.path.exists():
            provenance.discard(run, opened)
        with _stop_asked(ranks) as stop, _recorded(run, record, training, ledger, watch):
            clock = Clock(training, settings)
            if bank is None:
                tell_of_teachers(opened, settings, record, watch)
                _count_probes(opened, ledger, resume)
                _ask_about_prior(training, clock, run, ledger, watch, stop)
            _loop(training, clock, run, ledger, watch, stop, checkpoint_seconds)
            _finish(training, run, bank)
            if clock.fraction() < 1 or not training.step:
                raise OutOfQueries(ledger.asked, ledger.limit or 0)


@contextmanager
def _opened_by_all(
    names: Sequence[Named], settings: DistillSettings, ledger: SharedLedger, reach: Reach, known: Sequence[Known]
) -> Iterator[list[Opened]]:
    """Teachers as each process needs them; what they are the first one finds out, and the others need not ask again."""
    ranks = ledger.ranks
    known = known if ranks.first else ranks.told([])
    with opened_teachers(names, settings, ledger, reach, known) as opened:
        if ranks.first:
            ranks.told([one.facts for one in opened])
        yield opened


def _prepared(
    opened: Sequence[Opened], settings: DistillSettings, run: RunFolder, before: dict[str, Any] | None, ranks: Ranks
) -> tuple[Training, dict[str, Any]]:
    """The training at its beginning and the record of the run, of teachers that fit the method and the run so far."""
    record = provenance.check_same(run, before, opened, settings) if before else provenance.new_record(opened, settings)
    own = provenance.own_images(settings, opened[0].teacher.spec, record)
    torch.manual_seed(settings.seed)  # here, so that a run begun again draws what it drew the first time
    student = _checked(student_of(record), opened[0].teacher.spec)
    if before is None or not run.checkpoint_file.is_file():
        parts.begin(student, opened[0].teacher, settings)
        if settings.recipe.inherit:
            record["student"]["inherited"] = inherit(student, [one.teacher for one in opened])
    device = torch.get_default_device()
    record["host"]["device"] = str(device)
    teachers = [one.teacher.to(device) if isinstance(one.teacher, torch.nn.Module) else one.teacher for one in opened]
    parts.learn(student, settings)
    recipe = settings.recipe
    if record["student"].get("inherited"):
        recipe = recipe.model_copy(update={"student_rate": recipe.inherit * recipe.student_rate})
    lesson = lesson_of(teachers, student.header, *student.cut)
    method = find_method(settings.method)
    objective = method.objective(recipe, lesson)
    alone = provenance.learns_alone(settings, opened[0].teacher.spec)
    needs = objective.needs - ({Signal.GRADIENT} if alone else set())  # it is for a generator
    for one in opened:
        require(one.teacher, needs, f"method {settings.method}", one.why)
    generator, rivals = generator_of(record), [student_of(record) for _ in range(recipe.rivals)]
    return Training(teachers, student, generator, objective, recipe, ranks, rivals, own, alone), record


def _count_probes(opened: Sequence[Opened], ledger: Ledger, resume: bool) -> None:
    """Enter what was asked before there was a ledger; a resumed run asked nothing."""
    for one in (one.teacher for one in opened if not resume):
        if isinstance(one, AskedTeacher) and one.source.probed:
            ledger.spend(one.source, one.source.probed)


def _ask_about_prior(
    training: Training, clock: Clock, run: RunFolder, ledger: Ledger, watch: Watch, stop: Stop
) -> None:
    """Ask the teachers about the procedural images, or about the user's own that take their place.

    The time it takes counts, and is a tenth of the whole at most, of own images half; half of the queries at most, if
    those are limited.
    """
    told = training.ranks.told
    most = before_training(training, ledger.limit)
    missing = min(training.missing, most - training.asked)
    what, share = "procedural images", PRIOR_SHARE
    if training.alone:
        what, share = "real samples" if training.supply.own else "random sequences", OWN_SHARE
    if missing > 0:
        say(watch, f"asking the teacher about {missing:,.0f} {what}, or as many as there is time for")
    begun = training.bank if training.alone else training.prior
    # What the training counts decides, not the ledger, which knows more than that where a killed run begins again.
    while ((left := most - training.asked) > 0 and told(clock.fraction() < share)) or not len(begun):
        if not training.ask_about_prior(left):
            break
        training.seconds = clock.seconds()
        if told(stop()):
            _save(training, run)
            raise KeyboardInterrupt
    if training.spent and not len(training.prior):
        raise OutOfQueries(ledger.asked, ledger.limit or 0)


def _loop(
    training: Training,
    clock: Clock,
    run: RunFolder,
    ledger: Ledger,
    watch: Watch,
    stop: Stop,
    checkpoint_seconds: float,
) -> None:
    """Generator steps, student steps, log, checkpoint; until time, steps or queries are used up, one round at least."""
    told = training.ranks.told
    journal = Journal(training, run, watch, ledger)
    saved, pause = time.monotonic(), checkpoint_seconds
    ledger.begin_rounds()
    while ((fraction := clock.fraction()) < 1 or not training.step) and (
        training.recipe.asked or told(ledger.affords_a_round())
    ):
        terms = training.round(fraction, due(training, fraction, ledger.limit), clock.expired)
        training.seconds = clock.seconds()
        journal.note(terms, clock.fraction())
        journal.tell_health(training.examine())
        if told(stop()):
            _save(training, run)
            raise KeyboardInterrupt
        if told((began := time.monotonic()) - saved > pause):
            _save(training, run)
            saved = time.monotonic()
            pause = checkpoint_seconds * max(1.0, (saved - began) / QUICKLY)


@contextmanager
def _stop_asked(ranks: Ranks) -> Iterator[Stop]:
    """Hold Ctrl-C back until a round is whole, for half a round cannot be resumed; a second Ctrl-C ends at once.

    So with SIGTERM where torchrun sends it: because it got one itself, or because another process has failed.
    """
    asked, signals = False, (signal.SIGINT,) if ranks.size == 1 else (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(*_: object) -> None:
        nonlocal asked
        asked = True
        restore()

    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield lambda: asked
    finally:
        restore()


# ------------------------------------------------------------------------------------------------ what is on disk


def _checked(student: Standardized, spec: Interface) -> Standardized:
    """Try a student on two images, before anything is written: it may be the user's own.

    Raises:
        BadSetting: it does not answer as the teacher does: `[2, K]`, or `[2, K, h, w]`.
    """
    nothing = torch.zeros((2, spec.channels, spec.height, spec.width), dtype=torch.uint8)
    images = from_codes(nothing, spec.low, spec.high)
    answer, sides = ", ".join(map(str, spec.answer_shape)), [spec.channels, spec.height, spec.width]
    sides = sides if spec.vocabulary is None else sides[:1]
    allowed = f"[N, {', '.join(map(str, sides))}] to [N, {answer}]"
    try:
        with torch.no_grad():
            shape = list(student.eval()(images).shape)
    except Exception as error:  # the user's own network may raise anything
        raise BadSetting(f"{type(error).__name__}: {error}", where="student", allowed=allowed) from error
    if shape != [2, *spec.answer_shape]:
        raise BadSetting(f"it answers {shape} to two images", where="student", allowed=allowed)
    return student


def _take_up(training: Training, run: RunFolder) -> None:
    """Go on from the checkpoint; a run that was killed before its first one starts from its beginning."""
    if run.checkpoint_file.is_file():
        restore(training, run.checkpoint_file)
    if not training.ranks.first:
        return
    for leftover in run.path.rglob(".*.??????*"):  # what `atomic` was writing when the run was killed
        if leftover.is_file():
            leftover.unlink()
    provenance.cut_metrics(run, training.step)


@contextmanager
def _recorded(
    run: RunFolder, record: dict[str, Any], training: Training, ledger: Ledger, watch: Watch
) -> Iterator[None]:
    """Keep run.json true: running, then finished, interrupted or failed."""
    first = training.ranks.first
    if first:
        write_json(run.record_file, record | {"state": "running"})
    _save(training, run)
    state, stopped = "failed", None
    try:
        yield
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    except OutOfQueries as error:
        state, stopped = "interrupted", str(error)
        say(watch, f"stopped: {stopped}")
    except Refused as error:
        state, stopped = "interrupted", str(error)
        raise
    finally:
        finished = datetime.now(UTC).isoformat(timespec="microseconds") if state == "finished" else None
        counted = ledger.path.is_file()  # where a gradient is at hand, nothing is
        queries = {"asked": ledger.asked, "limit": ledger.limit} if counted else None
        ended = {"state": state, "finished": finished, "stopped": stopped, "queries": queries}
        ledger.close()
        if first:
            write_json(run.record_file, record | ended | {"progress": _counted(training)})


def _counted(training: Training) -> dict[str, float]:
    counted = {"step": training.step, "seconds": round(training.seconds, 2), "images": training.images_seen}
    return counted | {"collapses": training.collapses}


def _save(training: Training, run: RunFolder) -> None:
    """Checkpoint and weights of this moment, so that an interrupted run can be resumed and exported."""
    save(training, run.checkpoint_file)
    written = [(training.chosen(), run.student_weights)]
    if not training.ranks.first:
        return
    generator = [] if training.alone else [(training.generator, run.generator_weights)]
    for network, path in (*written, *generator):
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        with atomic(path) as file:
            file.write(safetensors.torch.save(weights))


def _finish(training: Training, run: RunFolder, bank: RunFolder | None) -> None:
    """The last state, procedural images, and the held-out ones with the teachers' answers in full precision."""
    _save(training, run)
    first = training.ranks.first
    if bank is not None:
        if first:
            provenance.take_samples(run, bank)
        return
    if len(training.prior):
        always = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(training.prior), generator=always, device="cpu")[:HELD_OUT]
        learned = training.prior.codes_at(chosen.to(training.device)).cpu()
        unseen = to_codes(training.supply.bred(HELD_OUT // 2), training.low, training.high, training.prior.kind).cpu()
        if first:
            run.write_procedural(learned.numpy(), unseen.numpy())
    elif training.alone:
        some, _ = training.bank.newest(HELD_OUT)
        if first:
            run.write_procedural(some.cpu().numpy())
    if not len(training.held_out):
        return
    codes, stored = training.held_out.in_order()
    images, layout = from_codes(codes, training.low, training.high), training.teachers[0].spec.layout
    with torch.no_grad():
        targets = [training.objective.target([t(part) for t in training.teachers]) for part in torch.split(images, 256)]
    if not first:
        return
    logits = training.objective.logits
    write_grid(run.samples / "final.png", codes, questions.chosen(logits(stored), training.task))
    answered = torch.cat([logits(target) for target in targets]).cpu().numpy()
    run.write_held_out(HeldOut(codes.cpu().numpy(), answered, training.low, training.high, training.task, layout))
