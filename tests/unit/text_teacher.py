"""Teachers of token ids: one of random weights, and one that is trained in a second on sentences about films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edgekd.quiet import quiet

IDS, LENGTH, WIDTH, HIDDEN, COLUMNS = 20, 6, 5, 8, 3
Weights = dict[str, np.ndarray]


def weights(seed: int = 0) -> Weights:
    """A table of 20 ids, a dense layer of 8, and one of three logits."""
    random = np.random.default_rng(seed)
    shapes = {"table": (IDS, WIDTH), "dense": (WIDTH, HIDDEN), "last": (HIDDEN, COLUMNS), "bias": (COLUMNS,)}
    return {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def by_hand(ids: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What `random_teacher` makes of ids `[N, T]`, in numpy: representation `[N, 8]` and logits `[N, 3]`."""
    own = weights(seed)
    dense = np.maximum(own["table"][ids].mean(axis=1) @ own["dense"], 0)
    return dense, dense @ own["last"] + own["bias"]


def random_teacher(
    seed: int = 0,
    *,
    dtype: int = TensorProto.INT64,
    length: int | str = LENGTH,
    batch: int | str = "N",
    onehot: bool = False,
) -> onnx.ModelProto:
    """`tokens` [N, 6] to `logits` [N, 3]: embedding, mean, dense, ReLU, dense; opset 18.

    Args:
        seed: of the weights.
        dtype, length, batch: of the input.
        onehot: multiply by the table instead of looking ids up in it, so that nothing tells how many there are.
    """
    own = weights(seed)
    if onehot:
        own |= {"depth": np.array(IDS, np.int64), "ends": np.array([0, 1], np.float32)}
        first = [
            helper.make_node("OneHot", ["tokens", "depth", "ends"], ["hot"]),
            helper.make_node("MatMul", ["hot", "table"], ["embedded"]),
        ]
    else:
        first = [helper.make_node("Gather", ["table", "tokens"], ["embedded"])]
    nodes = [
        *first,
        helper.make_node("ReduceMean", ["embedded", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "dense"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["representation"]),
        helper.make_node("Gemm", ["representation", "last", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("tokens", dtype, [batch, length])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, COLUMNS])],
        [numpy_helper.from_array(value, name) for name, value in (own | {"axes": np.array([1])}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


# --------------------------------------------------------------------------------------------------------- sentences

_PRAISE = ["warm", "witty", "moving", "clever", "tender", "gripping", "fresh", "honest", "lively", "charming"]
_BLAME = ["dull", "clumsy", "tedious", "hollow", "stale", "lifeless", "shrill", "muddled", "lazy", "bland"]
_THINGS = ["film", "plot", "cast", "score", "ending", "story", "dialogue", "hero", "camera", "script"]
_LINKS = ["and", "while", "though", "because"]
_ADVERBS = ["rather", "truly", "often", "almost", "never"]
WORDS = ["", "?", "the", "is", *_PRAISE, *_BLAME, *_THINGS, *_LINKS, *_ADVERBS]
"""The first fills a sequence up, the second is any other word."""
WORDS_LONG = 12


def sentences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 `[count, 12]` of sentences such as "the film is truly warm and the plot is witty", and their labels.

    1 is praise. "never" turns it round.
    """
    random = np.random.default_rng(seed)
    tokens, labels = np.zeros((count, WORDS_LONG), np.int64), random.integers(0, 2, count)
    for row, label in zip(tokens, labels, strict=True):
        clauses = (_clause(random, label), _clause(random, label))
        words = [*clauses[0], str(random.choice(_LINKS)), *clauses[1]][: int(random.choice([5, WORDS_LONG]))]
        row[: len(words)] = [WORDS.index(word) for word in words]
    return tokens, labels


def _clause(random: np.random.Generator, label: int) -> list[str]:
    adverb = str(random.choice(["", *_ADVERBS]))
    said = (_PRAISE, _BLAME)[int(label == (adverb == "never"))]
    return ["the", str(random.choice(_THINGS)), "is", *([adverb] if adverb else []), str(random.choice(said))]


class Net(nn.Module):
    """Embedding of 24, 32 filters of three words, their greatest values, a dense layer of 16, two logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.filters = nn.Embedding(len(WORDS), 24), nn.Conv1d(24, 32, 3, padding=1)
        self.dense, self.last = nn.Linear(32, 16), nn.Linear(16, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        found = functional.relu(self.filters(self.embedding(tokens).transpose(1, 2))).amax(dim=2)
        logits: Tensor = self.last(functional.relu(self.dense(found)))
        return logits


def trained(path: Path, steps: int = 80) -> Net:
    """A network that has seen sentences, and its file."""
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    tokens, labels = (torch.from_numpy(part) for part in sentences(32 * steps, 1))
    for some, theirs in zip(tokens.split(32), labels.split(32), strict=True):
        loss = functional.cross_entropy(net(some), theirs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    free = ({0: torch.export.Dim("batch")},)
    options = {"input_names": ["tokens"], "output_names": ["logits"], "dynamic_shapes": free, "verbose": False}
    with quiet():
        program = torch.onnx.export(net, (torch.zeros(2, WORDS_LONG, dtype=torch.int64),), dynamo=True, **options)
    program.save(path)
    return net
