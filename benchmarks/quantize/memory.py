"""Peak memory of calibration, and of ONNX Runtime's own, by number of samples.

    python benchmarks/quantize/memory.py [--model examples/teacher.onnx]

Every figure is the peak of a fresh process (VmHWM) that quantizes the model on samples drawn part by part, as a
generator makes them; ONNX Runtime's reader hands out batches of 16 likewise. Its figures stop where a process would
need more than `--ceiling`. Writes `benchmarks/results/quantize_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
RESULT = ROOT / "benchmarks/results/quantize_memory.json"
COUNTS = (64, 512, 4096)
METHODS = {"edgekd": ("minmax", "percentile", "entropy", "mse"), "onnxruntime": ("MinMax", "Percentile", "Entropy")}


class Drawn:
    """Uniform noise, drawn anew on every pass."""

    def __init__(self, count: int, shape: list[int]) -> None:
        self.count, self.shape = count, shape

    def __len__(self) -> int:
        return self.count

    def parts(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for start in range(0, self.count, 16):
            yield rng.random((min(16, self.count - start), *self.shape), dtype=np.float32)


def peak() -> int:
    """Bytes this process has held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def ours(model: Path, method: str, samples: Drawn, out: Path) -> None:
    from edgekd.devices import Quantization, load_recipe  # noqa: PLC0415 - counted in
    from edgekd.quantize import quantized  # noqa: PLC0415

    quantized(model, out, samples, quantization=Quantization(), recipe=load_recipe(method), metadata={})


def theirs(model: Path, method: str, samples: Drawn, out: Path) -> None:
    from onnxruntime import quantization as q  # noqa: PLC0415
    from reader import Reader  # noqa: PLC0415

    ready = out.with_name("ready.onnx")
    q.quant_pre_process(model, ready, skip_symbolic_shape=True)
    reader = Reader("image", samples.parts())
    q.quantize_static(ready, out, reader, per_channel=True, calibrate_method=q.CalibrationMethod[method])


def child(model: Path, tool: str, method: str, count: int) -> None:
    from edgekd import onnx_file  # noqa: PLC0415

    shape = [size or 1 for size in onnx_file.dimensions(onnx_file.load(model).graph.input[0])[1:]]
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        {"edgekd": ours, "onnxruntime": theirs}[tool](model, method, Drawn(count, shape), Path(folder) / "q.onnx")
    print(json.dumps({"before": before, "peak": peak()}))


def measured(model: Path, tool: str, method: str, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(model), tool, method, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    found = json.loads(lines[-1]) if done.returncode == 0 else {"failed": done.stderr.strip().splitlines()[-1][:200]}
    return {"tool": tool, "method": method, "samples": count, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "examples/teacher.onnx")
    parser.add_argument("--ceiling", type=float, default=3e9, help="bytes ONNX Runtime's calibration may need, guessed")
    parser.add_argument(
        "--tool", choices=METHODS, action="append", help="measure this one anew, keep the other's figures"
    )
    chosen = parser.parse_args()
    figures: list[dict[str, Any]] = []
    if chosen.tool and RESULT.is_file():
        figures = [f for f in json.loads(RESULT.read_text())["figures"] if f["tool"] not in chosen.tool]
    for tool, methods in METHODS.items():
        if chosen.tool and tool not in chosen.tool:
            continue
        for method in methods:
            for count in COUNTS:
                before = [f for f in figures if (f["tool"], f["method"]) == (tool, method) and "peak" in f]
                slope = (before[-1]["peak"] - before[-1]["before"]) / before[-1]["samples"] if before else 0
                if tool != "edgekd" and slope * count > chosen.ceiling:
                    figures.append({"tool": tool, "method": method, "samples": count, "skipped": "above the ceiling"})
                    continue
                figures.append(measured(chosen.model, tool, method, count))
                print(figures[-1], flush=True)
    own = {(f["method"], f["samples"]): f["peak"] for f in figures if f["tool"] == "edgekd"}
    growth = {method: own[method, COUNTS[-1]] / own[method, COUNTS[0]] for method in METHODS["edgekd"]}
    record = {"model": chosen.model.name, "host": platform.machine(), "figures": figures, "growth": growth}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(growth)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main()
