"""Which of a student's headers an exported file holds, how it joins them, and which outputs it has.

It reads the run and needs no torch: whether a file is up to date is asked where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgekd.errors import BadSetting
from edgekd.run_folder import FORM, RunFolder


@dataclass(frozen=True)
class Form:
    """What is made of a student's headers.

    Attributes:
        kept: their numbers; empty where the student has none.
        scorer: the weights of the attention that joins them; None: their mean.
        outputs: whether the file answers each header's logits as well.
    """

    kept: tuple[int, ...] = ()
    scorer: tuple[float, ...] | None = None
    outputs: bool = False

    def notes(self) -> dict[str, str]:
        """For the metadata of a file; nothing where there are no headers."""
        return {FORM: json.dumps(asdict(self))} if self.kept else {}

    def told(self) -> dict[str, Any] | None:
        """For the record of an export."""
        joined = "attention" if self.scorer else "mean"
        return {"kept": list(self.kept), "joined": joined, "outputs": self.outputs} if self.kept else None


def form_of(run: RunFolder, record: dict[str, Any], keep: Sequence[int] | None, outputs: bool) -> Form:
    """What an export makes of the headers of a run's student.

    Args:
        run, record: of the student.
        keep: numbers of the headers to keep, from 0; None: all.
        outputs: as in `Form`.

    Raises:
        BadSetting: it has no headers, or not those.
        BadRun: what was learned of joining them is damaged or out of date.
    """
    headers = record["student"].get("headers")
    if headers is None:
        if keep is not None or outputs:
            where = "--header-outputs" if keep is None else "--keep-headers"
            raise BadSetting("its student has one answer and no headers", where=where, hint="leave it out")
        return Form()
    kept, count = tuple(range(headers["count"])) if keep is None else tuple(keep), headers["count"]
    shown = ",".join(map(str, kept))
    if not kept or len(set(kept)) < len(kept) or not set(kept) <= set(range(count)):
        what, allowed = f"'{shown}' is no choice of {count} headers", f"some of 0 to {count - 1}, each once"
        raise BadSetting(what, where="--keep-headers", allowed=allowed)
    scorer = run.scorer()
    return Form(kept, None if scorer is None else tuple(scorer), outputs)
