"""What can be said of a student the moment it is distilled, before it is a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd import units
from edgekd.fidelity import cautions, of_held_out
from edgekd.inference import in_parts
from edgekd.networks import load_student
from edgekd.run_folder import RunFolder, learned_from
from edgekd.unseen import shipped_calibration


def closing_lines(run: RunFolder) -> list[str]:
    """Lines for people about a run that has just ended: agreement with the teacher, and what to be careful about.

    Args:
        run: of this process: its student may be the user's own code, which was run already.

    Raises:
        BadRun: it is damaged.
    """
    if not run.held_out_file.is_file():
        return []
    student = load_student(run.record(), run.student_weights, scorer=run.scorer(), trust_factory=True)

    def answer(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.concatenate([student(torch.from_numpy(part)).numpy() for part in in_parts(images)])

    told = of_held_out(run, answer, shipped_calibration())
    lines = [
        f"it agrees with the teacher on {_share(told['probes']['held_out'])} of held-out {learned_from(run.record())}"
    ]
    if told["estimate"]:
        lines.append(f"estimated on real images: {_share(told['estimate'])}")
    return [*lines, *cautions(told)]


def _share(one: dict[str, Any]) -> str:
    return f"{units.write_share(one['agreement'])} ({units.write_shares(one['interval'])})"
