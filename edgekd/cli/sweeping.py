"""`edgekd sweep`: several students of one teacher, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekd import flags, shipped, terminal
from edgekd.cli.options import Accuracy, Json, TargetName
from edgekd.errors import BadSetting

if TYPE_CHECKING:
    from edgekd.devices import Target
    from edgekd.sweep import Plan


def sweep(
    teachers: Annotated[list[str], typer.Argument(metavar="TEACHER...", help="As for edgekd distill.")],
    students: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME…]", help="auto (if not told), or as for edgekd distill.")
    ] = None,
    widths: Annotated[
        str | None, typer.Option(metavar="W[,W…]", help="Each student is tried at each; at its own if not told.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="For all together; the largest, which makes the images, gets two shares.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of minutes: rounds of each student, reproducible.")] = None,
    method: Annotated[str | None, typer.Option(help="As for edgekd distill.")] = None,
    clock: Annotated[
        Literal["wall", "cpu"] | None, typer.Option(help="cpu: count minutes of CPU time, whatever else runs here.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random number.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch.")] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="TOML file of what edgekd distill may be told; flags win.",
            autocompletion=lambda: shipped.names("presets"),
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A weight or size of the recipe.")
    ] = None,
    teacher_accuracy: Accuracy = None,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/TEACHER-sweep-DATE-TIME if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in --out.")] = False,
    target: TargetName = "cpu",
    budget: Annotated[Path | None, typer.Option(help="TOML file with a [budget] table; flags win.")] = None,
    max_size: Annotated[str | None, typer.Option(help="Of the file: 300kB.")] = None,
    max_parameters: Annotated[str | None, typer.Option(help="80k.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Multiply-accumulates of one image: 6M.")] = None,
    max_p50: Annotated[str | None, typer.Option(help="Median latency: 2ms.")] = None,
    min_agreement: Annotated[str | None, typer.Option(help="With the teacher, on generated images: 0.9.")] = None,
    token_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds the server's bearer token.")
    ] = None,
    trust_callable: Annotated[
        bool, typer.Option("--trust-callable", help="Run the code that python:module:function names.")
    ] = False,
    json: Json = False,
) -> None:
    """Distil several students with one generator, measure them, and name the smallest that meets a budget."""
    limits = {name: value for name, value in locals().items() if name.startswith(("max_", "min_"))}
    from edgekd import sweep as sweeping
    from edgekd.config import Reach
    from edgekd.devices import load_target
    from edgekd.extras import require_distill
    from edgekd.gate import read_budget

    device = load_target(target)
    wanted = read_budget(budget, limits) if budget is not None or any(limits.values()) else None
    require_distill("distilling")
    told: dict[str, Any] = {"method": method, "minutes": minutes, "steps": steps, "clock": clock, "seed": seed}
    told |= {"threads": threads, "recipe": flags.pairs(recipe, "--set", "adversary=0.5")}
    told |= {"teacher_accuracy": flags.share(teacher_accuracy, "--teacher-accuracy")}
    folder = _folder(out, teachers[0], resume)
    plan = _plan(teachers, told, config, _names(students), flags.numbers(widths, "--widths"), device, folder, resume)
    reach = Reach(token_env=token_env, trust_callable=trust_callable)
    own = ["--token-env", token_env] if token_env else []
    again = flags.command("sweep", *teachers, "--out", str(folder), "--resume", *own, *_trusted(trust_callable))
    try:
        with terminal.distilling(f"writing {folder}; stop with Ctrl-C, nothing is lost") as watch:
            watchers = sweeping.Watchers(watch, terminal.note)
            record = sweeping.sweep(plan, folder, device, budget=wanted, resume=resume, reach=reach, watchers=watchers)
    except KeyboardInterrupt:
        terminal.note(f"interrupted; go on with: {again}")
        raise typer.Exit(terminal.INTERRUPTED) from None
    _shown(record, folder, json)


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise BadSetting(f"{text!r} holds an empty name", where="--students", allowed="cnn-small,lenet5-half")
    return names


def _trusted(callable_: bool) -> list[str]:
    return ["--trust-callable"] if callable_ else []


def _folder(out: Path | None, teacher: str, resume: bool) -> Path:
    from edgekd.run_folder import new_path

    if out is None and resume:
        raise BadSetting("which sweep", where="--resume", allowed="with --out FOLDER")
    return out or new_path(f"{Path(teacher).stem}-sweep")


def _plan(
    teachers: list[str],
    told: dict[str, Any],
    config: str | None,
    students: list[str] | None,
    widths: tuple[float, ...] | None,
    target: Target,
    folder: Path,
    resume: bool,
) -> Plan:
    """The plan that flags tell; of a sweep that goes on its own, if nothing else is told."""
    from edgekd.settings import resolve_settings
    from edgekd.sweep import default_minutes, planned, stored_plan

    stored = stored_plan(folder) if resume else None
    if stored is not None and students is None and widths is None and config is None and not _said(told):
        return stored.model_copy(update={"teachers": tuple(teachers), "target": target.name})
    names = students or ["auto"]
    if told["minutes"] is None and told["steps"] is None and config is None:
        told["minutes"] = default_minutes(len(names) * len(widths or [None]))
    settings = resolve_settings(told, shipped.find("presets", config) if config else None)
    return planned(teachers, settings, names, widths, target)


def _said(told: dict[str, Any]) -> bool:
    return any(value is not None for value in told.values())


def _shown(record: dict[str, Any], folder: Path, as_json: bool) -> None:
    from edgekd.sweep import HEADERS, table

    if record["not_measured"]:
        terminal.note(f"latency is not measured: {record['not_measured']}")
    best, limited = record["cheapest"], any(row["broken"] is not None for row in record["rows"])
    told = f"the smallest that meets the budget: {best['run']}, {best['model']}" if best else ""
    told = told or ("no student meets the budget" if limited else f"to look at: {folder / 'sweep.html'}")
    terminal.show(record, f"{terminal.table(table(record), HEADERS)}\n\n{told}", as_json=as_json)
    if limited and best is None:
        raise typer.Exit(1)
