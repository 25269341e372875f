"""What this machine is, and what each target could measure on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto, helper

import edgekd
from edgekd.bench.child import fingerprint
from edgekd.bench.inputs import InputSpec
from edgekd.bench.local import Request
from edgekd.bench.where import runner_at
from edgekd.devices import Target
from edgekd.errors import CannotLoad
from edgekd.run_folder import scratch

SCHEMA = "edgekd.doctor/1"


def examine(targets: Mapping[str, Target]) -> dict[str, Any]:
    """Facts of the machine, and per target whether a model of one node runs there, and if not why.

    Returns:
        schema, version, environment, providers (of this onnxruntime), and targets: name to {runner, provider,
        measurable, why}.
    """
    with scratch() as folder:
        path = folder / "one_node.onnx"
        _save(path)
        return {
            "schema": SCHEMA,
            "version": edgekd.__version__,
            "environment": fingerprint(),
            "providers": onnxruntime.get_available_providers(),
            "targets": {name: _tried(path, target) for name, target in targets.items()},
        }


def _tried(path: Path, target: Target) -> dict[str, Any]:
    spec = InputSpec("x", (1, 4), "float32", 0.0, 1.0)
    request = Request(path, [spec], target.runtime, target.bench, task="answer")
    told = {"runner": target.runner.kind, "provider": target.runtime.provider}
    try:
        with runner_at(target.runner, target.machine) as runner:
            runner(request)
    except CannotLoad as error:
        return told | {"measurable": False, "why": str(error)}
    return told | {"measurable": True, "why": ""}


def _save(path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The machine, a fact a line."""
    facts = found["environment"]
    shown = {
        "edgekd": found["version"],
        "onnxruntime": facts["onnxruntime"],
        "python": f"{facts['python']}, numpy {facts['numpy']}",
        "system": f"{facts['system']}, {facts['machine']}",
        "CPU": facts["cpu"],
        "instruction sets": ", ".join(facts["isa"]) or "none of those that matter",
        "cores": f"{facts['cores']}, {facts['cores_allowed']} of them for this process",
        "governor": facts["governor"] or "not told: the clock may change, as on most virtual machines",
        "load average": ", ".join(f"{one:.2f}" for one in facts["load_average"] or []) or "-",
        "providers": ", ".join(found["providers"]),
    }
    return [[name, value] for name, value in shown.items()]


HEADERS = ("target", "runner", "provider", "measurable here")


def target_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """A target a line under `HEADERS`."""
    return [
        [name, told["runner"], told["provider"], "yes" if told["measurable"] else f"no: {told['why']}"]
        for name, told in found["targets"].items()
    ]
