"""How fast an imported ResNet is next to the torch module it was exported from.

    python benchmarks/importer.py [--rounds 60]

Both run in one process on one thread, in turn, and their CPU time is taken, so that what else the machine does matters
little; medians are compared. Weights have no gradient, the images have: this is how a teacher is used. Each is measured
with glibc's allocator as it is, which hands freed memory back to the system and then pays for it page by page, more or
less of it by the order in which tensors happen to be freed; and with memory kept, where only the work itself counts.
Writes `benchmarks/results/importer.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.machine import keep_freed_memory
from edgekd.networks import build_student
from edgekd.onnx_import import import_onnx

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks/results/importer.json"
BATCH, SHAPE, CLASSES, WIDTH = 32, (3, 32, 32), 10, 0.5
PRECISIONS = {"float32": (torch.float32, torch.contiguous_format), "bfloat16": (torch.bfloat16, torch.channels_last)}
"""float32 as torch has it by default; bfloat16 under autocast, channels last, as `edgekd distill` runs a teacher."""


def pair() -> tuple[nn.Module, nn.Module]:
    """A ResNet-18 of half width, and the same imported from its export with batch normalization kept."""
    torch.manual_seed(0)
    native = build_student("resnet18", WIDTH, SHAPE, CLASSES).eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        example = (torch.randn(2, *SHAPE),)
        program = torch.onnx.export(native, example, dynamo=True, optimize=False, dynamic_shapes=shapes, verbose=False)
    assert program is not None
    return native, import_onnx(program.model_proto)


def forward(net: nn.Module, images: Tensor) -> Tensor:
    """Logits."""
    answer = net(images)
    return answer[0] if isinstance(answer, tuple) else answer


def forward_backward(net: nn.Module, images: Tensor) -> Tensor:
    """The gradient with respect to the images."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(forward(net, images).float().square().sum(), images)
    return gradient


STEPS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "forward": torch.no_grad()(forward),
    "forward and backward": forward_backward,
}


def compared(nets: tuple[nn.Module, nn.Module], precision: str, step: str, rounds: int) -> dict[str, Any]:
    """Median CPU milliseconds of both, their ratio, and the quartiles of the ratio over the rounds."""
    dtype, memory = PRECISIONS[precision]
    images = torch.randn(BATCH, *SHAPE).contiguous(memory_format=memory)
    nets[0].to(memory_format=memory), nets[1].to(memory_format=memory)
    times: tuple[list[float], list[float]] = ([], [])
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        results = [STEPS[step](net, images) for net in nets for _ in range(3)]
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                started = time.process_time()
                STEPS[step](nets[which], images)
                times[which].append(1000 * (time.process_time() - started))
    torch.testing.assert_close(results[0], results[-1], rtol=1e-3, atol=1e-3)
    ratios = sorted(ours / native for native, ours in zip(*times, strict=True))
    return {
        "precision": precision,
        "step": step,
        "native_ms": statistics.median(times[0]),
        "imported_ms": statistics.median(times[1]),
        "ratio": statistics.median(times[1]) / statistics.median(times[0]),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[len(ratios) // 2], ratios[3 * len(ratios) // 4]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    load_before, nets = os.getloadavg(), pair()
    figures = []
    for memory in ("default", "kept"):
        if memory == "kept":
            assert keep_freed_memory()
        figures += [{"memory": memory, **compared(nets, p, step, rounds)} for p in PRECISIONS for step in STEPS]
    record = {
        "schema": "edgekd.benchmark.importer/1",
        "network": f"resnet18 at width {WIDTH:g}, {'x'.join(map(str, SHAPE))}, batch {BATCH}, batch normalization kept",
        "rounds": rounds,
        "torch": torch.__version__,
        "host": {"machine": platform.machine(), "cores": os.cpu_count(), "load_before": load_before},
        "figures": figures,
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    subprocess.run([sys.executable, ROOT / "benchmarks/readme.py"], check=True)


if __name__ == "__main__":
    main()
