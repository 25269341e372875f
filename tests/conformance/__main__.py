"""Print the counted conformance table: `python tests/conformance`."""

from __future__ import annotations

import sys
from collections import Counter

from node_cases import cases, run


def main() -> None:
    """Count every case by outcome, and by reason."""
    outcomes = [run(case) for case in cases()]
    lines = [f"{state:12} {count}" for state, count in Counter(o.state for o in outcomes).most_common()]
    reasons = Counter((o.state, o.reason) for o in outcomes if o.state != "passed")
    lines += [f"  {state:12} {count:4}  {reason}" for (state, reason), count in reasons.most_common()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
