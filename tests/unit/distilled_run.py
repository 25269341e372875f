"""A run folder as distill leaves it, without the minutes that takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from records import run_record

from edgekd import networks, tracing
from edgekd.run_folder import HeldOut, RunFolder, write_json

RECORD = run_record({"input_name": "pixels", "height": 12, "width": 12})


def distilled(path: Path) -> RunFolder:
    """A run folder as distill leaves it, with random weights and the student itself in the teacher's place."""
    torch.manual_seed(0)
    run = RunFolder(path)
    student, generator = networks.student_of(RECORD), networks.generator_of(RECORD)
    with torch.no_grad():
        images = generator.train()(torch.randn(64, 6))  # also gives its batch normalization running statistics
        student.train()(images)
    write_json(run.record_file, RECORD)
    safetensors.torch.save_file(student.state_dict(), run.student_weights)
    safetensors.torch.save_file(generator.state_dict(), run.generator_weights)
    codes = (images.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    held = HeldOut(codes, np.zeros((64, 4), np.float32), 0.0, 1.0)
    answered = tracing.answers(student.eval(), held.images())
    run.write_held_out(HeldOut(codes, answered, 0.0, 1.0))
    return run
