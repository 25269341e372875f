"""Hold a model against a budget: limit, actual and verdict for every limit that was set.

What the file alone decides (size, gzip size, parameters, MACs) is computed from the file, now; so is agreement, on the
held-out generated images. What had to be measured (latency, memory, load, fallback, accuracy) is taken from records,
and only when they are of this very file. It measures nothing itself.
"""

from edgekd.gate.budget import LIMITS, Budget, read_budget
from edgekd.gate.checking import HEADERS, Verdict, check
from edgekd.gate.metrics import METRICS

__all__ = ["HEADERS", "LIMITS", "METRICS", "Budget", "Verdict", "check", "read_budget"]
