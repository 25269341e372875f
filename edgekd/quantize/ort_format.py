"""A model in ONNX Runtime's own format (.ort), for builds of it that leave out the ONNX parser."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnxruntime

from edgekd import onnx_file
from edgekd.devices import Target
from edgekd.errors import EdgekdError
from edgekd.quiet import quiet
from edgekd.run_folder import atomic, scratch


def converted(model: Path, out: Path, target: Target) -> dict[str, Any] | None:
    """Write the .ort file that a target wants; `path`, `sha256`, `bytes`, or None where it wants none.

    As `onnxruntime.tools.convert_onnx_models_to_ort` does: all optimizations but the layout of one family of CPUs,
    either fixed or saved for the runtime to replay.

    Args:
        model: an ONNX file.
        out: the file to write.
        target: `ort_format` says which style; Arm processors keep signed activations as they are.

    Raises:
        EdgekdError: ONNX Runtime fails.
    """
    if target.model.ort_format == "none":
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ORT")
    arm = target.machine.architecture == "aarch64"
    options.add_session_config_entry("session.qdqisint8allowed", "1" if arm else "0")
    if target.model.ort_format == "runtime":
        options.add_session_config_entry("optimization.minimal_build_optimizations", "save")
    with scratch() as folder, quiet():
        made = folder / "model.ort"
        options.optimized_model_filepath = str(made)
        try:
            onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
            )
        except Exception as error:
            raise EdgekdError(f"it cannot be written as .ort: {onnx_file.first_line(error)}", where=out) from error
        with made.open("rb") as source, atomic(out) as file:
            shutil.copyfileobj(source, file)
    return {"path": out.name, "sha256": onnx_file.sha256(out), "bytes": out.stat().st_size}
