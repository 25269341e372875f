"""CIFAR-10 on one GPU: a teacher trained in minutes, exported to ONNX, distilled without data. In slices.

    python benchmarks/distill/cifar10_gpu.py PAIR [--minutes 10] [--seed 0] [--slice 9] [--folder runs/cifar10_gpu]

PAIR is `resnet` (ResNet-34 to ResNet-18) or `wrn` (WRN-40-2 to WRN-16-2). Each call works for `--slice` minutes at
most, goes on from the files that the last one left, and says on its last line whether there is more to do (exit 75) or
not (0): a GPU that is lent for ten minutes can carry it. When all is done the accuracy of the last state on the 10,000
test images goes into `benchmarks/results/cifar10_gpu.json`, beside that of the teacher. `--smoke` does the same on a
CPU with a thousandth of the work, to see that it runs: its figures mean nothing and are not written there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "examples")]
import data  # noqa: E402
from make_teacher import NormalizedTeacher, descent_of, epoch, export, one_cycle  # noqa: E402
from teachers import cropped  # noqa: E402
from wide_resnet import wrn_40_2  # noqa: E402

from edgekd.networks.students import ResNet  # noqa: E402
from edgekd.run_folder import RunFolder, atomic, write_json  # noqa: E402

RESULT = ROOT / "benchmarks/results/cifar10_gpu.json"
MORE = 75
"""Exit code: time is up and there is more to do (EX_TEMPFAIL)."""
EDGEKD = [sys.executable, "-m", "edgekd"]
EXPORT_SECONDS = 90
"""What must be left of a slice to begin export and evaluation, which do not resume."""


def _resnet34() -> nn.Module:
    return ResNet(3, 10, 1.0, 64, ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)))


@dataclass(frozen=True)
class Pair:
    """A teacher, how long it is trained, and its student."""

    teacher: Callable[[], nn.Module]
    epochs: int
    student: tuple[str, ...]


PAIRS = {
    "resnet": Pair(_resnet34, 60, ("resnet18", "--width", "1")),
    "wrn": Pair(lambda: wrn_40_2((3, 32, 32), 10), 60, ("wide_resnet:wrn_16_2",)),
}


@dataclass(frozen=True)
class Size:
    """How much work there is."""

    images: int
    epochs: int | None
    batch: int
    flags: tuple[str, ...]


WHOLE = Size(50_000, None, 512, ())
SMALL = "--set generator_batch=16 --set student_batch=16 --set bank=64 --set prior=32 --steps 2"
SMOKE = Size(256, 1, 64, tuple(SMALL.split()))


def teacher_trained(pair: Pair, size: Size, folder: Path, device: str, end: float) -> bool:
    """Train the teacher an epoch at a time until it is done and exported; False when time is up before."""
    path, state = folder / "teacher.onnx", folder / "teacher.pt"
    if path.exists():
        return True
    (pixels, labels), _ = data.load("cifar10")
    images = torch.from_numpy(pixels[: size.images]).float() / 255
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    torch.manual_seed(0)
    model = NormalizedTeacher(pair.teacher(), mean, std).to(device, memory_format=torch.channels_last)
    descent = descent_of(model)
    epochs = size.epochs or pair.epochs
    schedule = one_cycle(descent, epochs * (len(images) // size.batch))
    parts = {"model": model, "descent": descent, "schedule": schedule}
    done = _taken_up(parts, state) if state.exists() else 0
    images, classes = images.to(device), torch.from_numpy(labels[: size.images]).to(device)
    for number in range(done, epochs):
        if time.monotonic() > end:
            return False
        started = time.perf_counter()
        with torch.device(device):
            shown = {"batch": size.batch, "bfloat16": True, "augment": cropped}
            loss = epoch(model, images, classes, descent, schedule, **shown)
        _kept(parts, number + 1, state)
        seconds = time.perf_counter() - started
        print(f"teacher: epoch {number + 1}/{epochs}, loss {loss:.3f}, {seconds:.1f} s", flush=True)
    export(model.cpu(), path, (3, 32, 32))
    return True


def _kept(parts: dict[str, Any], epochs: int, path: Path) -> None:
    with atomic(path) as file:
        torch.save({"epochs": epochs} | {name: part.state_dict() for name, part in parts.items()}, file)


def _taken_up(parts: dict[str, Any], path: Path) -> int:
    stored = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(stored[name])
    return int(stored["epochs"])


def distilled(pair: Pair, size: Size, folder: Path, device: str, given: argparse.Namespace, end: float) -> bool:
    """Run `edgekd distill`, or go on with it, until it is finished; False when time is up before."""
    run = RunFolder(folder / f"seed{given.seed}-{given.minutes:g}min")
    if run.path.exists() and run.record()["state"] == "finished":
        return True
    if time.monotonic() > end:
        return False
    name, *width = pair.student
    told = ["--student", name, *width, "--seed", str(given.seed), "--device", device, *size.flags]
    told += [] if "--steps" in size.flags else ["--minutes", str(given.minutes)]
    command = [*EDGEKD, "distill", str(folder / "teacher.onnx"), "--out", str(run.path), *told]
    command += ["--resume"] if run.path.exists() else []
    with subprocess.Popen(command, cwd=HERE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        try:
            process.wait(max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it finishes its round, and writes what it needs to go on
            process.wait()
    if process.returncode not in (0, 130):
        raise SystemExit(process.returncode)
    return process.returncode == 0


def evaluated(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Export the student and measure it, after the fact, on the test images."""
    run = RunFolder(folder / f"seed{given.seed}-{given.minutes:g}min")
    test = data.write_test("cifar10", folder / "test.npz")
    trust = ["--trust-factory"] if ":" in run.record()["student"]["name"] else []
    for command in (["export", str(run.path), *trust], ["eval", str(run.path), "--data", str(test)]):
        subprocess.run([*EDGEKD, *command], check=True, cwd=HERE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    found = json.loads(run.evaluation_file.read_text())["models"]["student.onnx"]
    return {"run": run.record()["progress"], "evaluation": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", choices=PAIRS)
    parser.add_argument("--minutes", type=float, default=10, help="of distillation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slice", type=float, default=9, help="minutes of this call, at most")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/cifar10_gpu")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.slice - EXPORT_SECONDS
    device, size = ("cpu", SMOKE) if given.smoke else ("cuda", WHOLE)
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA here; --smoke tries the script on a CPU")
    folder = given.folder / (given.pair + ("-smoke" if given.smoke else ""))
    folder.mkdir(parents=True, exist_ok=True)
    pair = PAIRS[given.pair]
    if not (teacher_trained(pair, size, folder, device, end) and distilled(pair, size, folder, device, given, end)):
        print("more to do: run it again")
        raise SystemExit(MORE)
    found = evaluated(folder, given)
    print(json.dumps(found, indent=2))
    if not given.smoke:
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {"schema": "edgekd.benchmark.cifar10_gpu/1"}
        minutes = known.setdefault(given.pair, {}).setdefault(f"{given.minutes:g}", {})
        minutes[str(given.seed)] = found | {"device": torch.cuda.get_device_name()}
        write_json(RESULT, known)


if __name__ == "__main__":
    main()
