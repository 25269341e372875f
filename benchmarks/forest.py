"""Grow the forest that the table of black boxes has for a teacher, and write it as ONNX: scikit-learn's digits.

    pip install -e ".[benchmarks]" skl2onnx
    python benchmarks/forest.py

100 trees on 70 % of the 1,797 rows of 64 features from 0 to 16; `runs/teachers/digit-rows.npz` holds both parts of the
split. No part of edgekd needs scikit-learn.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

TEACHERS = Path(__file__).resolve().parent.parent / "runs/teachers"
TREES, LEAVES = 100, 64


def main() -> None:
    rows, labels = load_digits(return_X_y=True)
    parts = train_test_split(rows.astype(np.float32), labels, test_size=0.3, random_state=0, stratify=labels)
    x_train, x_test, y_train, y_test = parts
    forest = RandomForestClassifier(TREES, max_leaf_nodes=LEAVES, random_state=0).fit(x_train, y_train)
    TEACHERS.mkdir(parents=True, exist_ok=True)
    model = to_onnx(forest, x_train[:1], options={"zipmap": False})
    (TEACHERS / "digits-forest.onnx").write_bytes(model.SerializeToString())
    np.savez(TEACHERS / "digit-rows.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    told = {"trees": TREES, "leaves": LEAVES, "accuracy": float(forest.score(x_test, y_test))}
    (TEACHERS / "digits-forest.json").write_text(json.dumps(told) + "\n")
    print(told)


if __name__ == "__main__":
    main()
