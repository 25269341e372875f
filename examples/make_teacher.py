"""Train `examples/teacher.onnx` on Fashion-MNIST and cut `examples/evaluation.npz` out of its test set.

    python examples/make_teacher.py --data ../shared/data/fashion_mnist.npz

Writes three files beside this script: `teacher.onnx` (BatchNormalization nodes kept, normalization of the input inside
the graph), `teacher.json` (how it was made, test accuracy of the last state) and `evaluation.npz` (2,000 test images).
The test set is looked at once, after training; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch
from onnxscript import optimizer
from torch import Tensor, nn
from torch.nn import functional

from edgekd.networks.students import ResNet

HERE = Path(__file__).resolve().parent
STEM, STAGES = 32, ((64, 1, 2), (128, 1, 2))  # channels, blocks, stride


class NormalizedTeacher(nn.Module):
    """A network behind the normalization it was trained with, so the file takes pixels in [0, 1]."""

    def __init__(self, network: nn.Module, mean: float | Tensor, std: float | Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("pixel_mean", torch.as_tensor(mean))
        self.register_buffer("pixel_std", torch.as_tensor(std))

    def forward(self, image: Tensor) -> Tensor:
        return self.network((image - self.pixel_mean) / self.pixel_std)


def mirrored(images: Tensor) -> Tensor:
    """Each image mirrored with probability one half."""
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    descent: torch.optim.Optimizer,
    *,
    batch: int = 256,
    bfloat16: bool = True,
    augment: Callable[[Tensor], Tensor] = mirrored,
) -> None:
    """Train with a one-cycle rate up to the optimizer's own; the last state is the result.

    No label smoothing: it makes for a teacher whose outputs tell a student less (Mueller et al., 2019).
    """
    schedule = one_cycle(descent, epochs * (len(images) // batch))
    for number in range(epochs):
        started = time.perf_counter()
        loss = epoch(model, images, labels, descent, schedule, batch=batch, bfloat16=bfloat16, augment=augment)
        print(f"epoch {number + 1}/{epochs}  loss {loss:.3f}  {time.perf_counter() - started:.1f} s", flush=True)


def one_cycle(descent: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """A rate that rises over a fifth of the steps to the optimizer's own, and falls."""
    rate = descent.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(descent, max_lr=rate, total_steps=steps, pct_start=0.2)


def epoch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    descent: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    batch: int,
    bfloat16: bool,
    augment: Callable[[Tensor], Tensor],
) -> float:
    """Show every image once, in whole batches at random; the last batch's loss."""
    model.train()
    for index in torch.randperm(len(images)).split(batch)[: len(images) // batch]:
        x = augment(images[index]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(x)
        loss = functional.cross_entropy(logits.float(), labels[index])
        descent.zero_grad(set_to_none=True)
        loss.backward()
        descent.step()
        schedule.step()
    return loss.item()


def descent_of(model: nn.Module, rate: float = 0.2) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum."""
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)


def export(model: nn.Module, path: Path, shape: tuple[int, ...] = (1, 28, 28)) -> None:
    """Write ONNX without the exporter's optimizer, which would fold BatchNormalization into the convolutions."""
    program = torch.onnx.export(
        copy.deepcopy(model).eval().to(memory_format=torch.contiguous_format),
        (torch.zeros(2, *shape),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
        opset_version=18,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None
    folded = onnx_ir.from_proto(program.model_proto)
    optimizer.fold_constants(folded)
    optimizer.remove_unused_nodes(folded)
    proto = onnx_ir.to_proto(folded)
    for item in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del item.metadata_props[:]  # the exporter's records of local source files are nobody's business
    onnx.checker.check_model(proto, full_check=True)
    kept = sum(node.op_type == "BatchNormalization" for node in proto.graph.node)
    if not kept and any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        raise SystemExit("the exporter folded batch normalization away: use another torch.onnx setting")
    onnx.save(proto, path)


def trained(fit: Callable[[], None], save: Callable[[], None]) -> int:
    """Train, write the file, and tell the seconds of training. It is written before too: an exporter may refuse."""
    save()
    started = time.perf_counter()
    fit()
    seconds = time.perf_counter() - started
    save()
    return round(seconds)


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy in ONNX Runtime, the way a user will run the file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = [session.run(["logits"], {"image": part})[0].argmax(1) for part in np.array_split(images, 20)]
    return float((np.concatenate(answers) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data/fashion_mnist.npz")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)

    with np.load(arguments.data, allow_pickle=False) as data:
        x_train, y_train = torch.from_numpy(data["x_train"]), torch.from_numpy(data["y_train"]).long()
        x_test, y_test = data["x_test"], data["y_test"]
    images = (x_train.float() / 255).unsqueeze(1)
    model = NormalizedTeacher(ResNet(1, 10, 1.0, STEM, STAGES), float(images.mean()), float(images.std()))
    model = model.to(memory_format=torch.channels_last)
    path = HERE / "teacher.onnx"
    seconds = trained(
        lambda: train(model, images, y_train, arguments.epochs, descent_of(model)), lambda: export(model, path)
    )
    pixels = (x_test.astype(np.float32) / np.float32(255))[:, None]
    keep = np.sort(np.random.default_rng(0).permutation(len(x_test))[:2000])
    np.savez_compressed(HERE / "evaluation.npz", images=x_test[keep][:, None], labels=y_test[keep].astype(np.int64))
    record = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "network": f"residual network, stem {STEM}, stages {STAGES}, batch normalization",
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": "Fashion-MNIST (Zalando Research, MIT licence), 60,000 training images",
        "recipe": {
            "epochs": arguments.epochs,
            "seed": arguments.seed,
            "optimizer": "SGD, Nesterov .9, one-cycle to .2",
        },
        "test_accuracy": accuracy(path, pixels, y_test),
        "excerpt_accuracy": accuracy(path, pixels[keep], y_test[keep]),
        "seconds": seconds,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "onnx": onnx.__version__},
    }
    (HERE / "teacher.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
