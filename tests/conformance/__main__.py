"""Count the published node tests: `python tests/conformance [--json benchmarks/results/conformance.json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from counting import counted
from node_cases import Outcome, cases, run


def shown(outcomes: list[Outcome]) -> str:
    """Every outcome with its reasons, the most frequent first."""
    lines = [f"{state:12} {count}" for state, count in Counter(o.state for o in outcomes).most_common()]
    reasons = Counter((o.state, o.reason) for o in outcomes if o.state != "passed")
    lines += [f"  {state:12} {count:4}  {reason}" for (state, reason), count in reasons.most_common()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the counts, and write what the README's table is made from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the counts by family of operators here")
    arguments = parser.parse_args()
    published = cases()
    outcomes = [run(case) for case in published]
    sys.stdout.write(shown(outcomes))
    if arguments.json:
        arguments.json.write_text(json.dumps(counted(published, outcomes), indent=2) + "\n")


if __name__ == "__main__":
    main()
