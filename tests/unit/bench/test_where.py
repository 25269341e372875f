"""Runners and providers that may or may not be here."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from parts import PARTS

from edgekd.bench import bench, child
from edgekd.bench.where import runner_at
from edgekd.config import validated
from edgekd.devices import Place, Target, load_target
from edgekd.errors import BadSetting, NotMeasurable

RUNNERS = Path(__file__).resolve().parents[3] / "examples" / "runners"


@pytest.mark.parametrize("path", sorted(RUNNERS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_examples_are_valid_and_say_what_is_simulated(path):
    target = load_target(str(path))
    assert target.runner.simulated is (target.runner.kind == "qemu" or "simulated" in target.title)


def test_every_kind_of_place_has_a_runner():
    from edgekd.bench.where import _PLACES

    assert set(_PLACES) == set(Place.model_fields["kind"].annotation.__args__)


def test_an_emulators_times_are_nobodys():
    with pytest.raises(BadSetting, match="set simulated = true"):
        validated(Place, {"kind": "qemu"}, "runner")


def test_a_system_to_emulate_that_is_not_there(tmp_path, monkeypatch, make_classifier):
    (tmp_path / "qemu-aarch64").write_text("#!/bin/sh\n")
    (tmp_path / "qemu-aarch64").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    place = Place(kind="qemu", simulated=True, folder=str(tmp_path / "none"))
    record = bench_at(place, make_classifier())
    assert "no python3 in" in record["not_measured"]
    assert record["models"]["m"]["parameters"] > 0


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({"architecture": "wasm"}, "the target wasm"),
        ({"flags": ["no_such_flag"]}, "lacks no_such_flag"),
        ({"architecture": "any"}, None),
    ],
)
def test_this_machine_is_not_measured_in_place_of_another(machine, said, make_classifier):
    short = {"processes": 1, "warmup_runs": 1, "warmup_seconds": 0, "runs": 10, "seconds": 0.01}
    target = Target(schema=1, name="there", title="There", bench=short, machine=machine)
    with runner_at(target.runner, target.machine) as runner:
        told = bench({"m": make_classifier()}, target, runner=runner)["not_measured"]
    assert (said is None and told is None) or said in told


def bench_at(place, path, **runtime):
    short = {"processes": 1, "warmup_runs": 1, "warmup_seconds": 0, "runs": 10, "seconds": 0.01}
    target = Target(schema=1, name="there", title="There", bench=short, runner=place, runtime=runtime)
    with runner_at(place) as runner:
        examined = ["placement", "instructions"] if place.kind == "qemu" else ["placement"]
        return bench({"m": path}, target, examined=examined, runner=runner)


@pytest.fixture
def plugin(monkeypatch):
    """A plug-in wheel and an onnxruntime that knows it; its devices are what the test says."""
    devices = []
    library = SimpleNamespace(get_library_path=lambda: "/lib.so")
    monkeypatch.setattr(child.importlib, "import_module", lambda name: library)
    told = {"register_execution_provider_library": lambda name, path: None, "get_ep_devices": lambda: devices}
    monkeypatch.setattr(child, "onnxruntime", SimpleNamespace(**told))
    return devices


ASKED = {"provider": "NPU", "plugin": "onnxruntime_npu", "device": "", "hint": "pip install onnxruntime-npu"}


def device(name, kind):
    return SimpleNamespace(ep_name=name, device=SimpleNamespace(type=SimpleNamespace(name=kind)))


def test_a_provider_that_registers_but_offers_no_device(plugin):
    plugin.append(device("CPUExecutionProvider", "CPU"))
    with pytest.raises(child.NotHere, match="NPU is registered but offers no device here"):
        child.devices_of(ASKED)
    plugin.append(device("NPU", "CPU"))
    with pytest.raises(child.NotHere, match="NPU is registered but offers no npu device here"):
        child.devices_of(ASKED | {"device": "npu"})
    assert child.devices_of(ASKED) == [plugin[1]]
    assert child.devices_of(ASKED | {"device": "cpu"}) == [plugin[1]]


def test_a_plug_in_whose_library_does_not_fit(plugin, monkeypatch):
    def refuse(name, path):
        raise RuntimeError("wrong version\nmore")

    monkeypatch.setattr(child.onnxruntime, "register_execution_provider_library", refuse)
    with pytest.raises(child.NotHere, match=r"onnxruntime_npu cannot be registered: wrong version$"):
        child.devices_of(ASKED)


def instructions(tmp_path, monkeypatch, starts):
    """What is counted where starting Python takes `starts` instructions, in turn, and an inference 50."""
    from edgekd.bench import emulated
    from edgekd.bench.local import Request
    from edgekd.devices import Protocol, Runtime

    turns = itertools.cycle(starts)

    def ask(request, command, timeout):
        log = Path(command[command.index("-D") + 1])
        log.write_text(f"instructions {next(turns) + 50 * request.protocol.runs}\n")
        return {"runs": request.protocol.runs}

    monkeypatch.setattr(emulated.local, "ask", ask)
    monkeypatch.setattr(emulated, "_compiled", lambda folder: folder / "count.so")
    asked = Request(tmp_path / "m.onnx", [], Runtime(), Protocol(), task="instructions")
    return emulated._asked(["qemu"], ["python", "child.py"], Place(kind="qemu", simulated=True), asked)


def test_instructions_are_those_of_the_inferences_that_a_long_process_makes_more(tmp_path, monkeypatch):
    found = instructions(tmp_path, monkeypatch, [1000, 1200, 1100])
    assert found == {"instructions": 50, "uncertain": pytest.approx(200 / 200 / 50)}


def test_few_instructions_are_counted_over_more_inferences(tmp_path, monkeypatch):
    found = instructions(tmp_path, monkeypatch, [90_000, 50_000, 40_000, 40_000, 45_000, 30_000])
    assert found["instructions"] == pytest.approx(50, abs=5)
    assert found["uncertain"] <= 0.1
    with pytest.raises(NotMeasurable, match="too few instructions"):
        instructions(tmp_path, monkeypatch, [9_000_000, 1, 5_000_000])


@pytest.mark.slow
def test_arm64_emulated_answers_as_this_machine_does(make_classifier):
    place = Place(kind="qemu", simulated=True, folder=str(PARTS / "arm64"), python="usr/bin/python3.11")
    record = bench_at(place, make_classifier(filters=256))
    if record["not_measured"]:
        pytest.skip(record["not_measured"])
    assert record["environment"]["machine"] == "aarch64"
    assert record["models"]["m"]["difference"]["relative"] < 1e-5
    assert (
        record["models"]["m"]["instructions"] > record["models"]["m"]["macs"] / 16
    )  # a vector instruction does 4 to 16


@pytest.mark.slow
def test_openvino_takes_the_whole_of_a_model(make_classifier, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PARTS / "onnxruntime-openvino"))  # an onnxruntime of its own
    target = load_target("openvino")
    record = bench_at(target.runner, make_classifier(), **target.runtime.model_dump())
    if record["not_measured"]:
        pytest.skip(record["not_measured"])
    entry = record["models"]["m"]
    assert entry["placement"]["providers"]["OpenVINOExecutionProvider"]["nodes"] == 1
    assert entry["difference"]["relative"] < 1e-4
    assert entry["latency_ms"]["p50"] > 0


@pytest.mark.slow
def test_a_wheel_with_a_simulated_npu_says_which_nodes_it_takes(make_classifier, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PARTS / "onnxruntime-qnn"))
    target = load_target(str(RUNNERS / "qnn-simulator.toml"))
    record = bench_at(target.runner, make_classifier(dims=(1, 1, 8, 8)), **target.runtime.model_dump())
    if record["not_measured"]:
        pytest.skip(record["not_measured"])
    entry = record["models"]["m"]
    assert entry["placement"]["providers"]["QNNExecutionProvider"]["nodes"] > 0.5
    assert entry["difference"]["relative"] < 0.05
