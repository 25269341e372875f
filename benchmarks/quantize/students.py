"""What INT8 costs the students of finished runs, calibrated on generated samples, real ones and noise; others' tools.

    python benchmarks/quantize/students.py [MODEL@]RUN=DATASET... [--data ../shared/data] [--peer PYTHON] [--images N]

For every run: the float student, or the MODEL in its place; `edgekd export --int8` on generated samples, on 512 real
training images and on 512 images of noise; `quantize_static` with its defaults on the same real images; and NNCF, where
`--peer` names a Python that has it. Accuracy is that of the whole test set, which nothing else sees; latency that of
`edgekd bench`, one thread, models in turn; time and peak memory are those of a fresh process that does nothing else.
Writes `benchmarks/results/quantize_students.json`, run by run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import data

from edgekd import onnx_file
from edgekd.bench import bench
from edgekd.devices import load_target
from edgekd.inference import fed, logits
from edgekd.run_folder import RunFolder

RESULT = data.ROOT / "benchmarks/results/quantize_students.json"
HERE = Path(__file__).resolve().parent
EDGEKD = [sys.executable, "-m", "edgekd"]
COUNT = 512


def timed(command: list[object]) -> dict[str, Any]:
    """Wall seconds, CPU seconds and peak bytes of a command's process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = f"subprocess.run({list(map(str, command))!r}, check=True, stdout=subprocess.DEVNULL)"
    code = f"import resource, subprocess; {run}; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu, "peak_bytes": int(done.stdout)}


def commands(student: Path, run: RunFolder, folder: Path, peer: str | None) -> dict[str, tuple[Path, list[object]]]:
    """File and command by label; the samples lie in the folder already."""
    export = [*EDGEKD, "export", student, "--int8", "--no-measure", "--force", "--json"]
    made = {name: folder / f"{name}.onnx" for name in ("generator", "real", "noise", "static", "nncf")}
    found: dict[str, tuple[Path, list[object]]] = {
        "edgekd, generated samples": (
            made["generator"],
            [*export, "--generator", run.path, "--out", made["generator"]],
        ),
        "edgekd, real samples": (made["real"], [*export, "--samples", folder / "real.npz", "--out", made["real"]]),
        "edgekd, noise": (made["noise"], [*export, "--samples", folder / "noise.npz", "--out", made["noise"]]),
    }
    other: list[object] = [student, folder / "feed.npy"]
    found["quantize_static, defaults"] = (
        made["static"],
        [sys.executable, HERE / "others.py", "static", *other, made["static"]],
    )
    if peer is not None:
        found["NNCF, defaults"] = (made["nncf"], [peer, HERE / "others.py", "nncf", *other, made["nncf"]])
    return found


def one_run(path: Path, model: Path | None, dataset: str, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    run = RunFolder(path)
    student = model or run.student_onnx
    record, layout = run.record(), run.record()["teacher"]["layout"]
    (train, _), (test, truth) = data.DATA[dataset](chosen.data)
    test, truth = test[: chosen.images], truth[: chosen.images]
    rng = np.random.default_rng(0)
    drawn = train[rng.permutation(len(train))[: COUNT * 4 // 3 + 1]]
    np.savez(folder / "real.npz", images=drawn)
    np.savez(folder / "noise.npz", images=rng.integers(0, 256, drawn.shape).astype(np.uint8))
    low, high = record["teacher"]["low"], record["teacher"]["high"]
    scaled = lambda codes: (low + codes.astype(np.float32) * ((high - low) / 255)).astype(np.float32)  # noqa: E731
    np.save(folder / "feed.npy", fed(scaled(drawn[:COUNT]), layout))
    models: dict[str, dict[str, Any]] = {"float": {}}
    files = {"float": student}
    for label, (file, command) in commands(student, run, folder, chosen.peer).items():
        models[label] = timed(command)
        if file.is_file():
            files[label] = file
    for label, file in files.items():
        right = (logits(file, scaled(test), layout=layout).argmax(axis=1) == truth).mean()
        models[label] |= {"accuracy": float(right), "bytes": file.stat().st_size}
    if not chosen.no_latency:
        for label, entry in bench(files, load_target("cpu"))["models"].items():
            models[label]["p50_ms"] = entry["latency_ms"]["p50"]
    steps = json.loads((folder / "generator.json").read_text())["quantization"]["steps"]
    size = onnx_file.parameters(onnx_file.load(student))
    told = {"name": model.name if model else record["student"]["name"], "parameters": size}
    return {"dataset": dataset, "student": told, "images": len(truth), "models": models, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="[MODEL@]RUN=DATASET")
    parser.add_argument("--data", type=Path, default=data.SHARED)
    parser.add_argument("--peer", help="Python interpreter that has nncf, onnx and onnxruntime")
    parser.add_argument("--images", type=int, help="fewer test images, for a trial")
    parser.add_argument("--no-latency", action="store_true")
    chosen = parser.parse_args()
    record = json.loads(RESULT.read_text()) if RESULT.is_file() else {"runs": {}}
    for told in chosen.runs:
        files, _, dataset = told.rpartition("=")
        model, _, path = files.rpartition("@")
        with tempfile.TemporaryDirectory() as name:
            found = one_run(Path(path), Path(model) if model else None, dataset, Path(name), chosen)
            record["runs"][Path(model or path).stem] = found
        RESULT.write_text(json.dumps(record, indent=1) + "\n")
        for label, model in found["models"].items():
            print(label, model, flush=True)


if __name__ == "__main__":
    main()
