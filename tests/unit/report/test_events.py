"""Event files hold what was told, and are asked for before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.distill import Progress
from edgekd.errors import CannotLoad
from edgekd.report import events
from edgekd.run_folder import RunFolder


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "find_spec", lambda _: None)
    with (
        pytest.raises(CannotLoad, match=r"pip install 'edgekd\[tensorboard\]'"),
        events.event_files(RunFolder(tmp_path)),
    ):
        pass


def test_losses_are_read_back_from_the_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    with events.event_files(RunFolder(tmp_path / "run")) as watch:
        watch(Progress(0, 0.0, 0.0, 0.0, 0.0, {}, "a sentence"))
        assert not (tmp_path / "run").exists()
        for step in (3, 6):
            watch(Progress(step, 0.5, 1.0, 1.0, 100.0, {"soft_labels": 1.0 / step}))
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    content, found = file.read_bytes(), []
    while content:  # TFRecord: length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[16 + length :]
    losses = [(step, tag, pytest.approx(value)) for step, tag, value in found if tag == "loss/soft_labels"]
    assert losses == [(3, "loss/soft_labels", 1 / 3), (6, "loss/soft_labels", 1 / 6)]
    assert (3, "images_per_second", 100.0) in found
