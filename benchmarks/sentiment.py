"""A teacher that tells whether a sentence about a film praises it: a text CNN, trained on rt-polarity.

    python benchmarks/sentiment.py [--epochs 6] [--folder runs/teachers] [--data ../shared/data/rt_polarity.tsv.gz]

Writes `rt-polarity.onnx` and `rt-polarity.json` (parameters, epochs, accuracy and F1 of the last state on the test
sentences). 10,662 sentences (Pang and Lee, 2005), half of them of praise; equal ones are taken once. A seeded shuffle
gives eight tenths for training, one tenth that nothing looks at, for validation, and one tenth to test. Words are what
blanks part; those that occur twice and more in the training part are the vocabulary, by number of occurrences: id 0
fills sequences up, 1 is any other word. Sequences have 48 ids; the few longer ones are cut.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.evaluate import evaluate
from edgekd.networks import parameters

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
from make_teacher import one_cycle, trained  # noqa: E402

DATA = ROOT.parent / "shared/data/rt_polarity.tsv.gz"
LENGTH, SEED = 48, 0
PADDING, UNKNOWN = 0, 1
FEWEST = 2
"""Occurrences in the training part from which a word has an id of its own."""
BATCH, RATE, DECAY, DROPOUT = 50, 1e-3, 1e-4, 0.5


@dataclass(frozen=True)
class Sentences:
    """One part: ids, int64 `[N, 48]`, and labels `[N]`, 1 for praise."""

    tokens: np.ndarray
    labels: np.ndarray


@cache
def split(data: Path = DATA) -> dict[str, Sentences]:
    """The parts "train", "validation" and "test", and nothing of a sentence in two of them."""
    labelled = _read(data)
    order = np.random.default_rng(SEED).permutation(len(labelled))
    first, second = len(order) * 8 // 10, len(order) * 9 // 10
    places = {"train": order[:first], "validation": order[first:second], "test": order[second:]}
    ids = _vocabulary([labelled[place][1] for place in places["train"]])
    return {part: _encoded([labelled[place] for place in chosen], ids) for part, chosen in places.items()}


def _read(data: Path) -> list[tuple[int, list[str]]]:
    """Label and words of every sentence, of equal ones the first."""
    with gzip.open(data, "rt", encoding="utf-8") as file:
        lines = (line.rstrip("\n").split("\t") for line in file)
        found = {tuple(text.split()): int(label) for label, text in reversed(list(lines))}
    return [(label, list(words)) for words, label in reversed(found.items())]


def _vocabulary(sentences: list[list[str]]) -> dict[str, int]:
    counted = Counter(word for words in sentences for word in words)
    kept = sorted((word for word, count in counted.items() if count >= FEWEST), key=lambda w: (-counted[w], w))
    return {word: number for number, word in enumerate(kept, start=UNKNOWN + 1)}


def _encoded(sentences: list[tuple[int, list[str]]], ids: dict[str, int]) -> Sentences:
    tokens = np.full((len(sentences), LENGTH), PADDING, np.int64)
    for row, (_, words) in zip(tokens, sentences, strict=True):
        known = [ids.get(word, UNKNOWN) for word in words[:LENGTH]]
        row[: len(known)] = known
    return Sentences(tokens, np.array([label for label, _ in sentences], np.int64))


def words(data: Path = DATA) -> int:
    """How many ids there are."""
    return int(split(data)["train"].tokens.max()) + 1


class TextNet(nn.Module):
    """CNN-rand of Kim (2014): embedding of 300, 100 filters of three, four and five words, their greatest values.

    Between them and the last layer lies a dense layer of 128, which Kim has not: the representation to share out.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 300)
        nn.init.uniform_(self.embedding.weight, -0.25, 0.25)  # as Kim; torch's own is too loud to be unlearned
        self.filters = nn.ModuleList(nn.Conv1d(300, 100, width, padding=width // 2) for width in (3, 4, 5))
        self.dense, self.last = nn.Linear(300, 128), nn.Linear(128, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens).transpose(1, 2)
        found = torch.cat([functional.relu(one(embedded)).amax(dim=2) for one in self.filters], dim=1)
        dense = functional.relu(self.dense(functional.dropout(found, DROPOUT, self.training)))
        logits: Tensor = self.last(functional.dropout(dense, DROPOUT, self.training))
        return logits


def train(model: nn.Module, sentences: Sentences, epochs: int) -> None:
    """AdamW, a one-cycle rate; the last state is the result."""
    tokens, labels = torch.from_numpy(sentences.tokens), torch.from_numpy(sentences.labels)
    descent = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    rounds = len(labels) // BATCH
    schedule = one_cycle(descent, epochs * rounds)
    model.train()
    for epoch in range(epochs):
        started, total = time.perf_counter(), 0.0
        for index in torch.randperm(len(labels)).split(BATCH)[:rounds]:
            loss = functional.cross_entropy(model(tokens[index]), labels[index])
            descent.zero_grad(set_to_none=True)
            loss.backward()
            descent.step()
            schedule.step()
            total += loss.item() / rounds
        print(f"epoch {epoch + 1}/{epochs}  loss {total:.3f}  {time.perf_counter() - started:.1f} s", flush=True)


def export(model: nn.Module, path: Path) -> None:
    """One input `tokens`, int64 `[batch, 48]`, one output `logits` `[batch, 2]`."""
    free = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(
        model.eval(),
        (torch.zeros(2, LENGTH, dtype=torch.int64),),
        dynamo=True,
        input_names=["tokens"],
        output_names=["logits"],
        dynamic_shapes=free,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    onnx.save(program.model_proto, path)


def write_test_sentences(path: Path, data: Path = DATA) -> None:
    """The test part as `edgekd eval` takes it."""
    test = split(data)["test"]
    np.savez(path, tokens=test.tokens, labels=test.labels)


def tested(path: Path, data: Path) -> dict[str, float]:
    """Accuracy and F1 on the test sentences, in ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        write_test_sentences(Path(folder) / "test.npz", data)
        found = evaluate(path, Path(folder) / "test.npz")
    return {"test_accuracy": found["accuracy"], "test_f1": found["f1"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/teachers")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    parts = split(arguments.data)
    model, path = TextNet(words(arguments.data)), arguments.folder / "rt-polarity.onnx"
    seconds = trained(lambda: train(model, parts["train"], arguments.epochs), lambda: export(model, path))
    record = {
        "network": "text CNN (Kim, 2014), embedding of 300, dense layer of 128",
        "parameters": parameters(model),
        "data": f"rt-polarity, {len(parts['train'].labels):,} training sentences, {words(arguments.data):,} ids",
        "test_sentences": len(parts["test"].labels),
        "epochs": arguments.epochs,
        "seconds": seconds,
        **tested(path, arguments.data),
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
