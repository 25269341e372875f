"""A network made to break naive INT8, and what edgekd makes of it.

    python benchmarks/quantize/breaking.py [--data ../shared/data] [--seed 0]

A depthwise network is trained on Fashion-MNIST for a minute. Then scale is moved between neighbouring layers, channel
by channel and at random: in float it computes what it did before (checked), but channels of one tensor now differ up to
a hundredfold. It is quantized by `quantize_static` with its defaults, by the same with weights per channel, and by
`edgekd export`. All calibrate on the same 512 training images, edgekd judges by 171 further ones, without labels.
Accuracy is that of the 10,000 test images, which nothing else sees. Writes `benchmarks/results/quantize_breaking.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime import quantization as ort
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import data
from reader import Reader, in_batches

from edgekd.devices import load_recipe, load_target
from edgekd.inference import logits
from edgekd.quantize import Terms
from edgekd.quantize.any_model import export_model
from edgekd.quantize.equalization import pairs
from edgekd.quantize.preparation import prepared

RESULT = data.ROOT / "benchmarks/results/quantize_breaking.json"
SPREAD = 2.3  # channels are scaled by exp(u), u uniform within +-SPREAD: up to a hundredfold apart


def network() -> nn.Module:
    def layer(entering: int, leaving: int, size: int, stride: int, groups: int) -> list[nn.Module]:
        conv = nn.Conv2d(entering, leaving, size, stride, size // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(leaving), nn.ReLU()]

    def separable(entering: int, leaving: int, stride: int) -> list[nn.Module]:
        return layer(entering, entering, 3, stride, entering) + layer(entering, leaving, 1, 1, 1)

    blocks = layer(1, 16, 3, 2, 1) + separable(16, 32, 1) + separable(32, 64, 2) + separable(64, 64, 1)
    return nn.Sequential(*blocks, *separable(64, 96, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


def trained(images: np.ndarray, labels: np.ndarray, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    net = network()
    steps = epochs * (len(images) // 128)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    order = np.concatenate([np.random.default_rng(seed + e).permutation(len(images)) for e in range(epochs)])
    for step in range(steps):
        chosen = order[step * 128 : (step + 1) * 128]
        loss = nn.functional.cross_entropy(net(torch.from_numpy(images[chosen])), torch.from_numpy(labels[chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def spread(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Scale moved between all neighbouring layers, at random."""
    rng = np.random.default_rng(seed)
    weights = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    for pair in pairs(model):
        first, second = pair.first, pair.second
        factor = np.exp(rng.uniform(-SPREAD, SPREAD, len(weights[first.input[1]]))).astype(np.float32)
        for name in first.input[1:]:
            weights[name] *= factor.reshape(-1, *[1] * (weights[name].ndim - 1))
        following = weights[second.input[1]]
        depthwise = following.shape[1] == 1 and len(following) == len(factor)
        shape = (-1, 1, 1, 1) if depthwise else (1, -1, *[1] * (following.ndim - 2))
        following /= factor.reshape(shape)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return model


def naive(source: Path, out: Path, images: np.ndarray, **options: Any) -> None:
    ready = out.with_name("ready.onnx")
    ort.quant_pre_process(source, ready, skip_symbolic_shape=True)
    ort.quantize_static(ready, out, Reader("image", in_batches(images)), **options)


def ours(source: Path, out: Path, images: np.ndarray, folder: Path) -> list[dict[str, Any]]:
    np.savez(folder / "calibration.npz", images=images)
    terms = Terms(max_drop=0.005, force=True, real=folder / "calibration.npz")
    options = {"target": load_target("x86-vnni"), "precision": "int8", "recipe": load_recipe("percentile")}
    record = export_model(source, terms=terms, out=out, **options)
    return record["quantization"]["steps"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data.SHARED)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=1)
    chosen = parser.parse_args()
    (codes, labels), (test, truth) = data.DATA["fashion_mnist"](chosen.data)
    images, shown = (part.astype(np.float32) / 255 for part in (codes, test))
    net = trained(images, labels, chosen.seed, chosen.epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, source = folder / "plain.onnx", folder / "spread.onnx"
        options = {"input_names": ["image"], "output_names": ["logits"], "dynamo": False}
        torch.onnx.export(net, (torch.zeros(2, 1, 28, 28),), str(plain), dynamic_axes={"image": {0: "N"}}, **options)
        onnx.save(spread(prepared(onnx.load(plain), plain), chosen.seed), source)
        difference = float(np.abs(logits(plain, shown[:256]) - logits(source, shown[:256])).max())
        drawn = images[np.random.default_rng(chosen.seed).permutation(len(images))[:683]]
        naive(source, folder / "naive.onnx", drawn[:512])
        naive(source, folder / "channels.onnx", drawn[:512], per_channel=True)
        steps = ours(source, folder / "edgekd.onnx", drawn, folder)
        files = {"float": source, "quantize_static, defaults": folder / "naive.onnx"}
        files |= {"quantize_static, per channel": folder / "channels.onnx", "edgekd": folder / "edgekd.onnx"}
        found = {
            label: {"accuracy": float((logits(path, shown).argmax(1) == truth).mean()), "bytes": path.stat().st_size}
            for label, path in files.items()
        }
    record = {"seed": chosen.seed, "epochs": chosen.epochs, "spread": SPREAD, "difference": difference}
    record |= {"models": found, "steps": steps}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
