"""Fill the tables of the README, the pages and the theory from the results beside this script; `--check` only says
whether they are in step."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "benchmarks/distill"))
from fidelity_table import fidelity  # noqa: E402
from rows import ROWS, comparable  # noqa: E402

from edgekd.objectives import find_method  # noqa: E402

MARKS = {
    "†": "with an earlier default recipe, which the JSON file tells; not yet measured with this one.",
    "§": "by another training of the same teacher, or in another time, which the JSON file tells; not yet "
    "measured beside this one.",
    "‡": "a student whose accuracy did not change by one image in the second half of its run: it answers all alike.",
}
"""Of cells and rows, and what they mean."""


def first_light() -> str:
    """Teacher, student and INT8 student of `make demo`."""
    record = json.loads((ROOT / "benchmarks/results/first_light.json").read_text())
    first, total = record["runs"][0], record["summary"]
    rows = [
        ("file", "size", "parameters", "p50, 1 thread", "accuracy, 10,000 test images", "agrees with teacher"),
        ("---",) * 6,
        row(
            "teacher.onnx", first["bench"]["teacher"], percent(first["accuracy_test"]["teacher.onnx"]["accuracy"]), "–"
        ),
    ]
    for label, name in (("student", "student.onnx"), ("student.int8", "student.int8.onnx")):
        figures = (spread(total[key][name]) for key in ("accuracy_test", "agreement_test"))
        rows.append(row(name, first["bench"][label], *figures))
    seconds, runs = total["seconds_in_all"]["mean"], len(record["runs"])
    drop = total["int8_drop_points"]
    many = f"Mean ± standard deviation over {runs} seeds" if runs > 1 else "One seed, so no spread is known"
    return (
        f"{lines(rows)}\n\n{many}; last state; sizes and latency of the first. On the 2,000 images that the demo shows "
        f"the student reaches {spread(total['accuracy_excerpt']['student.onnx'])}. "
        f"{record['minutes']:g} minutes of distillation, {seconds / 60:.1f} minutes in all, on "
        f"{record['host']['cores']} shared CPU cores. INT8 costs {drop['mean']:.2f}"
        f"{' ± ' + format(drop['sd'], '.2f') if runs > 1 else ''} points; its p50 is "
        f"{total['int8_p50_to_teacher']['mean']:.2f} × the teacher's.{earlier(record)}"
    )


def row(name: str, bench: dict[str, Any], *figures: str) -> tuple[str, ...]:
    latency = f"{bench['latency_ms']['p50']:.3f} ms"
    return (f"`{name}`", f"{bench['bytes'] / 1000:,.0f} kB", f"{bench['parameters']:,}", latency, *figures)


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def spread(figure: dict[str, float]) -> str:
    return f"{100 * figure['mean']:.2f} ± {100 * figure['sd']:.2f} %" if figure["sd"] else percent(figure["mean"])


def conformance() -> str:
    """ONNX's own node tests, counted by family of operators."""
    record = json.loads((ROOT / "benchmarks/results/conformance.json").read_text())
    rows: list[tuple[str, ...]] = [("operators", "how many", "tests passed", "excluded", "failed"), ("---",) * 5]
    rows += [
        (family, str(found["operators"] or "–"), *(f"{found.get(state, 0):,}" for state in STATES))
        for family, found in record["families"].items()
    ]
    total, missing = record["total"], sorted(set(record["not_claimed"]) - {"functions written out as a graph"})
    operators = sum(found["operators"] for found in record["families"].values())
    rows.append(("**all claimed**", f"{operators:,}", *(f"{total.get(state, 0):,}" for state in STATES)))
    rows.append(("not claimed", f"{len(missing)}", f"{total['not claimed']:,} tests, not run", "–", "–"))
    reasons = "; ".join(f"{why} ({count})" for why, count in record["excluded"].items())
    return (
        f"{lines(rows)}\n\nNode tests of ONNX {record['onnx']}. Excluded: {reasons}. Not claimed: {', '.join(missing)}."
    )


def importer() -> str:
    """CPU time of an imported ResNet relative to the native module's."""
    record = json.loads((ROOT / "benchmarks/results/importer.json").read_text())
    figures = [f for f in record["figures"] if f["memory"] == "default"]
    told = ", ".join(f"{f['ratio']:.2f} × {f['step']} in {f['precision']}" for f in figures)
    return (
        f"An imported ResNet takes as much CPU time as the module it was exported from: {told} ({record['network']})."
    )


def folded() -> str:
    """What folding costs, with the prior and without, by teacher."""
    teachers = json.loads((ROOT / "benchmarks/results/folded.json").read_text())["teachers"]
    variants = ("kept", "prior", "no prior", "prior, no procedural images")
    rows = [
        ("teacher", "its accuracy", "minutes", "seeds", "statistics kept", *variants[1:]),
        ("---",) * 8,
    ]
    for one in teachers.values():
        figures = one["accuracy_test"]
        seeds = len(figures["prior"]["runs"])
        cells = [spread(figures[variant]) if variant in figures else "–" for variant in variants]
        name = (one["network"], percent(one["teacher_accuracy_test"]), f"{one['minutes']:g}", str(seeds))
        rows.append((*name, *cells))
    unmarked = "; ".join(one["network"] for one in teachers.values() if not one["looks_folded"])
    told = "Accuracy of the student on the 10,000 Fashion-MNIST test images, last state."
    if unmarked:
        told += f" The prior is off, and its column a run like the next one, where nothing looks folded: {unmarked}."
    return f"{lines(rows)}\n\n{told}{earlier(*teachers.values())}"


def segmentation() -> str:
    """Teacher and students that answer every pixel, beside the answer that does not look."""
    record = json.loads((ROOT / "benchmarks/results/segmentation.json").read_text())
    teacher, constant, runs = record["teacher"], record["constant"], record["runs"]
    whole = (percent(teacher["test_accuracy"]), percent(teacher["test_mean_iou"]))
    rows: list[tuple[str, ...]] = [
        ("file", "size", "parameters", "accuracy, pixels", "mean IoU", "agrees with teacher"),
        ("---",) * 6,
        ("`camvid.onnx`", f"{teacher['bytes'] / 1000:,.0f} kB", f"{teacher['parameters']:,}", *whole, "–"),
    ]
    for name, model in runs[0]["models"].items():
        figures = (spread(record["summary"][figure][name]) for figure in ("accuracy", "mean_iou", "agreement"))
        rows.append(
            (f"`{name}`", f"{model['bytes'] / 1000:,.0f} kB", f"{runs[0]['student']['parameters']:,}", *figures)
        )
    rows.append(("one class everywhere", "–", "–", percent(constant["accuracy"]), percent(constant["mean_iou"]), "–"))
    many = f"Mean ± standard deviation over {len(runs)} seeds" if len(runs) > 1 else "One seed, so no spread is known"
    rounds = " to ".join(map(str, sorted({pick(run["rounds"] for run in runs) for pick in (min, max)})))
    return (
        f"{lines(rows)}\n\n{many}; last state, on the 233 test images; sizes of the first. One class everywhere is the "
        f"best that can be answered without looking at the image. {record['minutes']:g} CPU minutes of "
        f"distillation, {rounds} rounds, one thread of {record['host']['cores']} shared cores.{earlier(record)}"
    )


TWO_CORES = " *On 2 cores*: two threads, and the minutes of the wall clock in which the figure is to be reached."


def distill() -> str:
    """Every method on every row, in equal CPU time."""
    record = json.loads((ROOT / "benchmarks/results/distill.json").read_text())
    two_cores = ROOT / "benchmarks/results/two_cores.json"
    whole = json.loads(two_cores.read_text())["rows"] if two_cores.is_file() else {}
    heads = ("teacher to student", "CPU minutes", "teacher", *METHODS, *["edgekd, on 2 cores"] * bool(whole))
    rows: list[tuple[str, ...]] = [(*heads, "to reach, published")]
    rows.append(("---",) * len(rows[0]))
    for name, row in record["rows"].items():
        methods = row["methods"]
        own, reach = methods["edgekd"], f"{100 * row['reach']:g}"
        teacher = next(run["teacher_accuracy"] for run in own["seeds"].values() if "teacher_accuracy" in run)
        cells = (
            cell(methods[method]["seeds"]) + "§" * (not comparable(methods[method]["told"], own["told"]))
            if method in methods
            else "–"
            for method in METHODS
        )
        wanted = f"{reach}; {row['published']}" if row["published"] != "–" else reach
        longer = [f"{cell(whole[name]['seeds'])} in {whole[name]['told']['minutes']:g} min"] if name in whole else ["–"]
        head = row["title"] + dated(own["told"]), f"{own['told']['cpu_minutes']:g}", percent(teacher)
        rows.append((*head, *cells, *longer * bool(whole), wanted))
    return (
        f"{lines(rows)}\n\nTest accuracy of the student's last state, mean ± standard deviation, number of seeds in "
        "brackets. Every method had the same teacher, student and CPU time, one thread each, on "
        f"{record['host']['cores']} shared cores. *Real images* is no method of edgekd: the same student, taught by "
        "the same teacher for the same time on the real training images, is what could be had with the data. "
        "The published recipes were made for hours on a GPU."
        f"{TWO_CORES * bool(whole)}"
        f"{rounds(record, 'dafl')}{rounds(record, 'nayer-style')}"
        f"{' –: not yet measured.' if any('–' in row for row in rows) else ''}{remark(rows)}"
    )


def rounds(record: dict[str, Any], method: str) -> str:
    """A sentence on the fewest and the most that a method's runs came to in the time they had, if there are some."""
    runs = [
        run for row in record["rows"].values() for run in row["methods"].get(method, {"seeds": {}})["seeds"].values()
    ]
    done = [run["rounds"] for run in runs if "rounds" in run]
    return f" *{method}* comes to {min(done):,} to {max(done):,} rounds here." if done else ""


def ablation() -> str:
    """What the recipe comes to without each of its ingredients, or with another."""
    record = json.loads((ROOT / "benchmarks/results/ablation.json").read_text())
    rows: list[tuple[str, ...]] = [("teacher to student", "CPU minutes", "recipe", "accuracy (seeds)", "difference")]
    rows.append(("---",) * len(rows[0]))
    collapses = list[int]()
    for name, variants in record["rows"].items():
        default = variants["the default"]["seeds"]
        collapses += [run["collapses"] for run in default.values() if "collapses" in run]
        title = ROWS[name].title
        for variant, found in variants.items():
            told, runs = found["told"], found["seeds"]
            changes = ", ".join(f"`{key}={value}`" for key, value in told["changes"].items())
            less = [runs[seed]["accuracy"] - default[seed]["accuracy"] for seed in runs.keys() & default.keys()]
            difference = f"{100 * mean(less):+.2f}" if told["changes"] and less else "–"
            described = (f"{variant}: {changes}" if changes else variant) + dated(told)
            rows.append((title, f"{told['cpu_minutes']:g}", described, cell(runs), difference))
            title = ""
    fallen = f" Runs of the default whose generator collapsed: {sum(map(bool, collapses))} of {len(collapses)}."
    return (
        f"{lines(rows)}\n\nTest accuracy of the last state, measured afterwards: the recipe was chosen on training "
        "images, and nothing here changes it. Seeds differ by half a point: less than that means nothing where there "
        "is one; differences are those of the same seeds. What is worth little in few minutes may be worth more in "
        f"many.{fallen * bool(collapses)}{remark(rows)}"
    )


def stuck(run: dict[str, Any]) -> bool:
    """Whether a student answers whatever it sees alike: its accuracy, to the last image, stayed for half of the run."""
    curve = run.get("curve", [])
    return {accuracy for _, accuracy in curve[len(curve) // 2 :]} == {run.get("accuracy")}


def dated(told: dict[str, Any]) -> str:
    """A mark for what was run with another recipe than its method has today, but for what decides nothing there."""
    unread = set(told.get("unread", ()))
    today = find_method(told.get("method", "edgekd")).recipe.model_dump(exclude_defaults=True, exclude=unread)
    return "" if told["recipe"] == today else "†"


def earlier(*records: dict[str, Any]) -> str:
    """A sentence where figures are not by the default recipe of today."""
    today = find_method("edgekd").recipe.model_dump(exclude_defaults=True)
    late = all(record.get("recipe") == today for record in records)
    return "" if late else " Measured with an earlier default recipe."


def remark(rows: list[tuple[str, ...]]) -> str:
    """What the marks mean that rows have."""
    text = " ".join(itertools.chain.from_iterable(rows))
    return "".join(f" {mark}: {meaning}" for mark, meaning in MARKS.items() if mark in text)


def black_box() -> str:
    """What students of teachers that only answer came to, beside what they are to reach."""
    record = json.loads((ROOT / "benchmarks/results/black_box.json").read_text())
    rows: list[tuple[str, ...]] = [
        ("teacher", "answers", "queries", "student", "CPU minutes", "seeds", "published", "reached", "to reach")
    ]
    rows.append(("---",) * len(rows[0]))
    for case in record["cases"].values():
        told, figure = case["told"], case["figure"]
        goal = percent(case["reach"]) if case["reach"] else "–"
        goal += f", aim {percent(case['aim'])}" if case["aim"] else ""
        counted = f"{case['queries']['mean']:,.0f}"
        size = next(iter(case["seeds"].values()))["parameters"]
        student = f"`{told['student']}`, {size:,}"
        found = f"{spread(case[figure])} {figure}"
        few = (told["access"], counted, student, f"{told['cpu_minutes']:g}", str(len(case["seeds"])), case["published"])
        rows.append((case["title"], *few, found, goal))
    allowed = next(iter(record["cases"].values()))["allowed_minutes"]
    return (
        f"{lines(rows)}\n\nOn the test split, last state; queries as the ledger counted them; students with their "
        "parameters, of which a LeNet-5 has 61,706. "
        f"{allowed} CPU minutes a row were allowed, and fewer given: the machine was shared. One seed tells no spread."
    )


def cdfkd() -> str:
    """Ways to use several teachers, and what attention adds."""
    record = json.loads((ROOT / "benchmarks/results/cdfkd.json").read_text())
    rows: list[tuple[str, ...]] = [
        ("teachers", "way", "parameters", "CPU minutes", "accuracy (seeds)", "with attention", "gain, 95 % interval"),
        ("---",) * 7,
    ]
    for case in record["cases"].values():
        title = f"{case['title']}; the mean of their logits: {percent(case['teachers']['mean of logits'])}"
        for name, way in case["variants"].items():
            runs = list(way["seeds"].values())
            size, minutes = f"{runs[0]['parameters']:,}", f"{way['told']['clock'][1]:g}"
            rows.append((title, name + dated(way["told"]), size, minutes, cell(way["seeds"]), *_attention(runs)))
            title = ""
    goals = [(case, case["reach"], case["aim"]) for case in record["cases"].values() if case["reach"]]
    told = "; ".join(
        f"{case['title']}: {percent(reach)} to reach, {percent(aim)} aimed at, published {case['published']}"
        for case, reach, aim in goals
    )
    return (
        f"{lines(rows)}\n\nTest accuracy of the last state, mean ± standard deviation, number of seeds in brackets; "
        f"one thread of {record['host']['cores']} shared cores. Attention was learned from 1 % of the labelled "
        "training images afterwards; the interval is of the paired test images of each seed, lowest to highest of all "
        f"seeds: one that holds zero is no gain. {told}.{remark(rows)}"
    )


def _attention(runs: list[dict[str, Any]]) -> tuple[str, str]:
    found = [run["attention"] for run in runs if "attention" in run]
    if not found:
        return "–", "–"
    low, high = min(one["low"] for one in found), max(one["high"] for one in found)
    gain = mean(one["gain"] for one in found)
    told = f"{100 * gain:+.2f} points, {100 * low:+.2f} to {100 * high:+.2f}"
    return cell({str(place): one for place, one in enumerate(found)}), told


def teacher_class() -> str:
    """Students side by side, by their number, beside the published ones."""
    record = json.loads((ROOT / "benchmarks/results/teacher_class.json").read_text())
    rows: list[tuple[str, ...]] = [
        ("task, diet and loss", "teacher", *(f"K = {count}" for count in CLASSES), "published")
    ]
    rows.append(("---",) * len(rows[0]))
    sizes, text = list[int](), list[dict[str, Any]]()
    for case in record["cases"].values():
        by_count = case["students"]
        runs = [run for found in by_count.values() for run in found["seeds"].values()]
        if all("f1" in run for run in runs):
            text += runs
        else:
            sizes += [run["parameters"] for run in runs]
        cells = (cell(figured(by_count[count]["seeds"])) if count in by_count else "–" for count in CLASSES)
        told = ", ".join(f"{case['published'].get(count, '–')}" for count in CLASSES) if case["published"] else "none"
        shown = case["teacher"].get("test_mean_iou", case["teacher"]["test_accuracy"])
        whole = f"{percent(shown)}, {case['teacher']['parameters'] / 1e6:.2f} M"
        spent = [f"{by_count[count]['told']['clock'][1]:g}" for count in CLASSES if count in by_count]
        minutes = ", ".join(spent) if len(set(spent)) > 1 else spent[0]
        mark = max(dated(found["told"]) for found in by_count.values())
        rows.append((f"{case['title']}; {minutes} CPU minutes{mark}", whole, *cells, told))
    return (
        f"{lines(rows)}\n\nTest accuracy of the last state, mean ± standard deviation, number of seeds in brackets; "
        f"one thread of {record['host']['cores']} shared cores. "
        f"All students together have {min(sizes):,} to {max(sizes):,} parameters. {of_text(text)}"
        "Published figures are single runs, "
        f"of teachers with 2.45 M parameters and students with 68,000 to 88,000. {slower(record)}"
        f"–: not yet measured.{remark(rows)}"
    )


def of_text(runs: list[dict[str, Any]]) -> str:
    """What is told of students of sentences: their sizes, and F1."""
    if not runs:
        return ""
    sizes, smaller = ([run[key] for run in runs] for key in ("parameters", "smaller"))
    f1 = [run["f1"] for run in runs]
    return (
        f"Those of rt-polarity have {min(sizes):,} to {max(sizes):,}, at least {min(smaller):.0f} × fewer than its "
        f"teacher; their F1 is {percent(min(f1))} to {percent(max(f1))}. "
    )


def slower(record: dict[str, Any]) -> str:
    """How many images one student saw in a minute for one that each of eight saw."""
    of_images = [case for case in record["cases"].values() if "test_f1" not in case["teacher"]]
    pairs = [case["students"] for case in of_images if {"1", "8"} <= case["students"].keys()]

    def rate(found: dict[str, Any]) -> float:
        return mean(run["rounds"] / run["cpu_seconds"] for run in found["seeds"].values())

    ratios = [rate(of["1"]) / rate(of["8"]) for of in pairs]
    if not ratios:
        return ""
    return f"In equal time one student alone saw {mean(ratios):.1f} times as many images as eight together. "


def figured(seeds: dict[str, Any]) -> dict[str, Any]:
    """Runs by what is shown of them: mean IoU where pixels are answered."""
    return {seed: {"accuracy": run.get("mean_iou", run["accuracy"])} for seed, run in seeds.items()}


def cell(seeds: dict[str, Any]) -> str:
    """What the runs of one method on one row gave."""
    values = [run["accuracy"] for run in seeds.values() if "accuracy" in run]
    failed = len(seeds) - len(values)
    mark = "‡" * any(map(stuck, seeds.values()))
    found = {"mean": mean(values), "sd": stdev(values) if values[1:] else 0.0} if values else None
    told = [f"{spread(found)} ({len(values)}){mark}"] if found else []
    return ", ".join(told + ([f"{failed} of {len(seeds)} failed"] if failed else []))


def quantize() -> str:
    """INT8 of finished students, of a network made to break it, and what calibration needs."""
    return "\n\n".join([_students(), _breaking(), _memory()])


def _students() -> str:
    record = json.loads((ROOT / "benchmarks/results/quantize_students.json").read_text())
    told = []
    for run in record["runs"].values():
        head = ("student", "size", "p50, 1 thread, float at 1", "accuracy, test images", "CPU time, peak memory")
        whole = run["models"]["float"].get("p50_ms", 0.0)
        rows: list[tuple[str, ...]] = [head, ("---",) * 5]
        for label, model in run["models"].items():
            if "accuracy" not in model:
                continue
            cost = (
                f"{model['cpu_seconds']:.0f} s, {model['peak_bytes'] / 1e6:,.0f} MB" if "peak_bytes" in model else "–"
            )
            time = f"{model['p50_ms']:.3f} ms, {model['p50_ms'] / whole:.2f} ×" if "p50_ms" in model else "–"
            rows.append((label, f"{model['bytes'] / 1000:,.0f} kB", time, percent(model["accuracy"]), cost))
        name = f"`{run['student']['name']}` of {run['dataset']}, {run['images']:,} test images:"
        told.append(f"{name}\n\n{lines(rows)}")
    told.append(
        "One run each, students of about four minutes of distillation; `teacher.onnx` stands for a larger network. "
        "Times in turn, on 2 shared cores. INT8 that is slower than float is written by `--force`: left to itself, "
        "edgekd keeps float and says so."
    )
    return "\n\n".join(told)


def _breaking() -> str:
    record = json.loads((ROOT / "benchmarks/results/quantize_breaking.json").read_text())
    rows: list[tuple[str, ...]] = [
        ("a depthwise network, channels up to a hundredfold apart", "accuracy"),
        ("---",) * 2,
    ]
    rows += [(label, percent(model["accuracy"])) for label, model in record["models"].items()]
    steps: list[tuple[str, ...]] = [
        ("what edgekd tried on it", "agrees with float", "signal to noise", ""),
        ("---",) * 4,
    ]
    for one in record["steps"]:
        fate = "kept" if one["kept"] else "left out"
        steps.append((one["name"], percent(one["agreement"]), f"{one['sqnr_db']:.1f} dB", fate))
    return f"{lines(rows)}\n\n{lines(steps)}"


def _memory() -> str:
    record = json.loads((ROOT / "benchmarks/results/quantize_memory.json").read_text())
    counts = sorted({figure["samples"] for figure in record["figures"]})
    rows: list[tuple[str, ...]] = [("peak memory of calibration", *(f"{count:,} samples" for count in counts))]
    rows.append(("---",) * (1 + len(counts)))
    found = {(f["tool"], f["method"], f["samples"]): f.get("peak") for f in record["figures"]}
    for tool, method in dict.fromkeys((f["tool"], f["method"]) for f in record["figures"]):
        peaks = [found.get((tool, method, count)) for count in counts]
        cells = [f"{peak / 1e6:,.0f} MB" if peak else "not tried" for peak in peaks]
        rows.append((f"{tool}, {method}", *cells))
    growth = 100 * (max(record["growth"].values()) - 1)
    return f"{lines(rows)}\n\nOf {record['model']}; edgekd grows by {growth:.0f} % at most."


def bench() -> str:
    """Whether the times of `edgekd bench` can be trusted, goal by goal."""
    rows: list[tuple[str, ...]] = [("", "goal", "measured", ""), ("---",) * 4]
    kept = [goal for goal in GOALS if goal.found() is not None]
    for goal in GOALS:
        value = goal.found()
        cells = ("not yet measured", "") if value is None else (goal.write(value), VERDICTS[goal.reached()])
        rows.append((goal.title, goal.told, *cells))
    missed = [goal.title for goal in kept if not goal.reached()]
    told = f"{len(kept) - len(missed)} of {len(GOALS)} goals reached"
    told += f"; missed: {'; '.join(missed)}" if missed else ""
    told += f"; {len(GOALS) - len(kept)} not yet measured" if len(kept) < len(GOALS) else ""
    return f"{lines(rows)}\n\n{told}. {_circumstances()}".strip()


def _circumstances() -> str:
    """Where it was measured, and how busy that machine was; with what a baseline from another moment is worth."""
    records = [record for name in sorted({goal.file for goal in GOALS}) if (record := _result(name))]
    if not records:
        return ""
    machines = {f"{r['environment']['cpu']}, {r['environment']['cores']} cores" for r in records}
    loads = [trial["load_average"] for record in records for trial in record["trials"]]
    told = f"On {' and '.join(sorted(machines))}, at load averages from {min(loads):g} to {max(loads):g}."
    told += "".join(f" {record['conditions']}" for record in records if "conditions" in record)
    if gated := _result("bench_gate_seconds"):
        told += f" `edgekd gate` takes {gated['summary']['cpu_median']:.2f} s of a core."
    compared = (_result("bench_comparisons") or {"summary": {}})["summary"]
    told += f" Each comparison was made {compared['trials']} times." if compared else ""
    elsewhen = compared.get("elsewhen")
    if elsewhen and elsewhen["regressed_share"] is not None:
        share = f"{100 * elsewhen['regressed_share']:.1f} %"
        told += f" Against a baseline that was measured minutes before instead of in turn, {share} of "
        told += f"{elsewhen['trials']} A/A comparisons said *regressed*."
    return told


def _result(name: str) -> dict[str, Any] | None:
    """A benchmark's record, if it has come to its end."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    record = json.loads(path.read_text()) if path.is_file() else {}
    return record if "summary" in record else None


@dataclass(frozen=True)
class Goal:
    """A figure of one benchmark's summary, and what it is to reach."""

    title: str
    file: str
    keys: tuple[str, ...]
    limit: float
    write: Callable[[float], str]
    least: bool = False
    away_from: float = 0.0  # the limit is on the distance from here

    @property
    def told(self) -> str:
        """The limit as people read it."""
        if self.away_from:
            return f"within {100 * self.limit:g} %"
        return f"{'≥' if self.least else '≤'} {self.write(self.limit)}"

    def found(self) -> float | None:
        """What was measured, if it was."""
        value: Any = (_result(self.file) or {}).get("summary", {})
        for key in self.keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def reached(self) -> bool:
        """Whether that is enough."""
        value = self.found()
        assert value is not None
        return value >= self.limit if self.least else abs(value - self.away_from) <= self.limit


def _share(value: float) -> str:
    return f"{100 * value:g} %"


VERDICTS = {True: "reached", False: "**missed**"}

GOALS = (
    Goal(
        "p50 of one model over 20 invocations, largest to smallest",
        "bench_spread",
        ("p50", "max_over_min"),
        1.05,
        "{:.3f}".format,
    ),
    Goal("A/A comparisons that say *regressed*", "bench_comparisons", ("same", "regressed_share"), 0.01, _share),
    Goal("a network 10 % longer is found", "bench_comparisons", ("10 %", "regressed_share"), 0.95, _share, least=True),
    Goal("a network 5 % longer is found", "bench_comparisons", ("5 %", "regressed_share"), 0.80, _share, least=True),
    Goal(
        "median beside a bare Python loop's",
        "bench_bare_loop",
        ("edgekd_over_bare",),
        0.02,
        "{:.4f} ×".format,
        away_from=1.0,
    ),
    Goal("overhead per inference", "bench_bare_loop", ("overhead_us",), 3.0, "{:.2g} µs".format),
    Goal(
        "`edgekd gate` from start to exit code, median of 20", "bench_gate_seconds", ("median",), 0.5, "{:.2f} s".format
    ),
)


def loop() -> str:
    """Where the time of a round goes."""
    record = json.loads((ROOT / "benchmarks/results/loop.json").read_text())
    rows = [
        ("one thread of a CPU", "the networks' own kernels", "optimizers", "the rest of the work", "Python"),
        ("---",) * 5,
    ]
    for name, found in record["rows"].items():
        shares = [found[kind] for kind in ("networks", "optimizers", "rest")]
        rows.append((ROWS[name].title, *(f"{100 * share:.0f} %" for share in (*shares, 1 - sum(shares)))))
    return f"{lines(rows)}\n\nOf the wall clock of a round; 85 % in the networks' kernels are wanted."


def lines(rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


METHODS = ("edgekd", "dafl", "nayer-style", "real images")
CLASSES = ("1", "2", "4", "8")
STATES = ("passed", "excluded", "failed")
Tables = dict[str, Callable[[], str]]
PAGES: dict[Path, Tables] = {
    ROOT / "README.md": {"first_light": first_light, "distill": distill, "fidelity": fidelity},
    ROOT / "docs/asked.md": {"black_box": black_box},
    ROOT / "docs/distillation.md": {"loop": loop},
    ROOT / "docs/gate.md": {"bench": bench},
    ROOT / "docs/several.md": {"teacher_class": teacher_class, "cdfkd": cdfkd},
    ROOT / "docs/targets.md": {"quantize": quantize},
    ROOT / "docs/teacher.md": {
        "conformance": conformance,
        "importer": importer,
        "folded": folded,
        "segmentation": segmentation,
    },
    ROOT / "edgekd/objectives/README.md": {"ablation": ablation},
}


def filled(page: Path, tables: Tables) -> str:
    """A page with every table between its markers made anew."""
    text = page.read_text()
    for name, make in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{page} must hold the markers of {name} once, it holds them {count} times")
    return text


if __name__ == "__main__":
    new = {page: filled(page, tables) for page, tables in PAGES.items()}
    if "--check" in sys.argv:
        sys.exit(any(text != page.read_text() for page, text in new.items()))
    for page, text in new.items():
        page.write_text(text)
