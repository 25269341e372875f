"""Draw test accuracy against seconds of training: a picture per row, a line per method, a thin one per seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

RESULTS = Path(__file__).resolve().parent.parent / "results"


def draw(name: str, row: dict[str, Any]) -> None:
    """Write `distill-NAME.png`. Rates fall to zero at each run's own end: a point before it is no shorter run's."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for colour, (method, record) in enumerate(row["methods"].items()):
        runs = [run for run in record["seeds"].values() if "accuracy" in run]
        style: dict[str, Any] = {"color": f"C{colour}"}
        if not runs or "curve" not in runs[0]:
            for run in runs:
                axes.axhline(100 * run["accuracy"], linestyle=":", linewidth=1, **style)
            axes.plot([], [], linestyle=":", label=f"{method}, at the end", **style)
            continue
        for index, run in enumerate(runs):
            seconds, accuracy = np.array([*run["curve"], [run["seconds"], run["accuracy"]]]).T
            axes.plot(seconds, 100 * accuracy, linewidth=1, label=method if not index else None, **style)
    axes.set(title=row["title"], xlabel="seconds", ylabel="test accuracy, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(RESULTS / f"distill-{name}.png", dpi=110)
    plt.close(figure)


def main() -> None:
    for name, row in json.loads((RESULTS / "distill.json").read_text())["rows"].items():
        draw(name, row)


if __name__ == "__main__":
    main()
