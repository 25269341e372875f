"""Draw test accuracy against CPU seconds of training: a picture per row, a line per method, a thin one per seed.

The scale of accuracy is the logit's, so that 98 and 99 % are as far apart as 80 and 90 %.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from rows import comparable

RESULTS = Path(__file__).resolve().parent.parent / "results"
TICKS = (0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def draw(name: str, row: dict[str, Any]) -> None:
    """Write `distill-NAME.png`, of the methods that had the default's teacher and time.

    Rates fall to zero at each run's own end: a point before it is no shorter run's.
    """
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    own = row["methods"]["edgekd"]["told"]
    shown = {method: record for method, record in row["methods"].items() if comparable(record["told"], own)}
    for colour, (method, record) in enumerate(shown.items()):
        runs = [run for run in record["seeds"].values() if "accuracy" in run]
        style: dict[str, Any] = {"color": f"C{colour}"}
        if not runs or "curve" not in runs[0]:
            for run in runs:
                axes.axhline(run["accuracy"], linestyle=":", linewidth=1, **style)
            axes.plot([], [], linestyle=":", label=f"{method}, at the end", **style)
            continue
        for index, run in enumerate(runs):
            seconds, accuracy = np.array([*run["curve"], [run["cpu_seconds"], run["accuracy"]]]).T
            axes.plot(seconds, accuracy, linewidth=1, label=method if not index else None, **style)
    axes.set(title=row["title"], xlabel="CPU seconds", ylabel="test accuracy, %", yscale="logit", ylim=(0.08, 0.995))
    axes.set_yticks(TICKS, [f"{100 * tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    figure.savefig(RESULTS / f"distill-{name}.png", dpi=110)
    plt.close(figure)


def main() -> None:
    for name, row in json.loads((RESULTS / "distill.json").read_text())["rows"].items():
        draw(name, row)


if __name__ == "__main__":
    main()
