"""The figures of `make demo`, over three seeds: time, size, latency, agreement, accuracy.

    python benchmarks/first_light.py [--minutes 4] [--data ../shared/data]

Runs the command line a person would run, once per seed, and writes `benchmarks/results/first_light.json`. Accuracy is
measured after each run has ended, on the last state, and chooses nothing. Needs a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import data

from edgekd.objectives import find_method
from edgekd.settings import DEFAULT_MINUTES

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks/results/first_light.json"
TEACHER, EXCERPT = ROOT / "examples/teacher.onnx", ROOT / "examples/evaluation.npz"
EDGEKD = [sys.executable, "-m", "edgekd"]


def edgekd(*arguments: object) -> tuple[dict[str, Any], float]:
    """Run one command with --json; its record and its wall seconds."""
    started = time.perf_counter()
    done = subprocess.run([*EDGEKD, *map(str, arguments), "--json"], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout), time.perf_counter() - started


def default_recipe() -> dict[str, Any]:
    """The default method's: it changes, and figures should tell by which they were measured."""
    return find_method("edgekd").recipe.model_dump(exclude_defaults=True)


def one_seed(seed: int, minutes: float, whole_test: Path, folder: Path) -> dict[str, Any]:
    """The demo's path for one seed."""
    run = folder / f"seed{seed}"
    seconds: dict[str, float] = {}
    record, seconds["distill"] = edgekd("distill", TEACHER, "--out", run, "--minutes", minutes, "--seed", seed)
    exported, seconds["export"] = edgekd("export", run, "--int8")
    excerpt, seconds["eval"] = edgekd("eval", run, "--data", EXCERPT)
    bench, seconds["bench"] = edgekd("bench", run, "--target", "cpu")
    test, _ = edgekd("eval", run, "--data", whole_test)
    if seed == 0:
        shutil.copy(run / "samples/final.png", ROOT / "examples/samples.png")
    models = {label: {k: v for k, v in m.items() if k != "samples_us"} for label, m in bench["models"].items()}
    return {
        "seed": seed,
        "seconds": seconds,
        "rounds": record["progress"]["step"],
        "student": record["student"],
        "teacher_parameters": record["teacher"]["parameters"],
        "agreement_generated": exported["agreement"],
        "accuracy_excerpt": accuracies(excerpt),
        "accuracy_test": accuracies(test),
        "bench": models,
        "ratios": bench["ratios"],
    }


def measured(run: Path, test: Path) -> dict[str, Any]:
    """What `edgekd eval` finds of the student of a run that has ended, once it is exported."""
    edgekd("export", run)
    found: dict[str, Any] = edgekd("eval", run, "--data", test)[0]["models"]["student.onnx"]
    return found


def accuracies(evaluations: dict[str, Any]) -> dict[str, Any]:
    """Accuracy per model, and agreement with the teacher where it was there to be asked."""
    found: dict[str, Any] = {}
    for name, record in evaluations["models"].items():
        teacher = record["teacher"]
        found[name] = {"accuracy": record["accuracy"], "agreement": teacher and teacher["agreement"]}
        if teacher:
            found["teacher.onnx"] = {"accuracy": teacher["accuracy"]}
    return found


def start_up() -> dict[str, float]:
    """Median seconds of `edgekd --help` and of `import torch`, taken in turn."""
    commands = {"edgekd --help": [*EDGEKD, "--help"], "import torch": [sys.executable, "-c", "import torch"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(7):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians | {"ratio": medians["edgekd --help"] / medians["import torch"]}


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the README's table shows."""
    models = ("student.onnx", "student.int8.onnx")
    return {
        "accuracy_test": {m: spread([r["accuracy_test"][m]["accuracy"] for r in runs]) for m in models},
        "accuracy_excerpt": {m: spread([r["accuracy_excerpt"][m]["accuracy"] for r in runs]) for m in models},
        "agreement_test": {m: spread([r["accuracy_test"][m]["agreement"] for r in runs]) for m in models},
        "int8_drop_points": spread(
            [
                100 * (r["accuracy_test"][models[0]]["accuracy"] - r["accuracy_test"][models[1]]["accuracy"])
                for r in runs
            ]
        ),
        "int8_bytes_to_float": spread([r["ratios"]["student.int8/student"]["bytes"] for r in runs]),
        "int8_p50_to_teacher": spread([r["ratios"]["student.int8/teacher"]["p50"] for r in runs]),
        "parameters_to_teacher": runs[0]["student"]["parameters"] / runs[0]["teacher_parameters"],
        "seconds_in_all": spread([sum(r["seconds"].values()) for r in runs]),
        "seconds_distill": spread([r["seconds"]["distill"] for r in runs]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=data.SHARED, help="folder of the data sets")
    arguments = parser.parse_args()
    minutes = arguments.minutes or DEFAULT_MINUTES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole_test = data.write_test("fashion_mnist", folder / "test.npz", arguments.data)
        load_before = os.getloadavg()
        runs = [one_seed(seed, minutes, whole_test, folder) for seed in range(arguments.seeds)]
    record = {
        "schema": "edgekd.benchmark.first_light/1",
        "minutes": minutes,
        "recipe": default_recipe(),
        "host": {"machine": platform.machine(), "cores": os.cpu_count(), "load_before": load_before},
        "summary": summary(runs),
        "start_up_seconds": start_up(),
        "runs": runs,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["summary"], indent=2))
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
