"""Other machines: a real sshd on loopback, and a stand-in for adb that runs what it is told here."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from edgekd.bench import bench
from edgekd.bench.inputs import InputSpec
from edgekd.bench.local import Request, ask
from edgekd.bench.where import runner_at
from edgekd.devices import Place, Protocol, Runtime, Target
from edgekd.errors import BadSetting, CannotLoad, NotMeasurable

SHORT = Protocol(processes=1, warmup_runs=2, warmup_seconds=0, runs=10, seconds=0.01)
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def request(path: Path) -> Request:
    spec = InputSpec("image", (1, 1, 8, 8), "float32", 0.0, 1.0)
    return Request(path, [spec], Runtime(), SHORT)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A server on loopback that lets this user in with a key made for the purpose."""
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        pytest.skip("no sshd here: apt install openssh-server")
    home = tmp_path_factory.mktemp("ssh")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / key)], check=True)
    (home / "authorized").write_bytes((home / "user.pub").read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        **{"Port": port, "ListenAddress": "127.0.0.1", "HostKey": home / "host", "PidFile": home / "pid"},
        **{"AuthorizedKeysFile": home / "authorized", "StrictModes": "no", "UsePAM": "no", "PermitRootLogin": "yes"},
        **{"PasswordAuthentication": "no", "PerSourcePenalties": None},
    }
    lines = [f"{key} {value}" for key, value in settings.items() if value is not None]
    (home / "config").write_text("\n".join(lines) + "\n")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(home / "config")], stderr=subprocess.PIPE)
    options = ("-i", str(home / "user"), "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={home / 'known'}")
    import getpass

    place = Place(kind="ssh", host=f"{getpass.getuser()}@127.0.0.1", port=port, python=sys.executable, options=options)
    for _ in range(100):
        if (
            subprocess.run(
                ["ssh", "-o", "LogLevel=ERROR", *options, "-p", str(port), place.host, "true"], check=False
            ).returncode
            == 0
        ):
            break
        if server.poll() is not None:
            pytest.skip(f"sshd does not start here: {server.stderr.read().decode().strip()}")
        time.sleep(0.1)
    yield place
    server.terminate()
    server.wait()
    server.stderr.close()


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """`adb -s SERIAL shell -T LINE`, carried out by this machine's shell; what it was told is in adb.log."""
    program = tmp_path / "bin" / "adb"
    program.parent.mkdir()
    log = tmp_path / "adb.log"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nshift 4\nexec sh -c "$*"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "phone").mkdir()
    return Place(kind="adb", host="emulator-5554", python=sys.executable, folder=str(tmp_path / "phone"))


@pytest.fixture(params=[pytest.param("sshd", marks=pytest.mark.slow), "adb"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)


def test_a_model_is_measured_over_there_and_nothing_stays(place, make_classifier, tmp_path):
    (tmp_path / "there").mkdir()
    place = place.model_copy(update={"folder": str(tmp_path / "there")})
    target = Target(schema=1, name="far", title="Far", bench=SHORT, runner=place)
    path = make_classifier("with space.onnx")
    with runner_at(place) as runner:
        record = bench({"m": path}, target, examined=["profile", "placement"], runner=runner)
        assert (
            runner(replace(request(path), task="answer"))["outputs"]
            == ask(replace(request(path), task="answer"))["outputs"]
        )
        assert len(list((tmp_path / "there").iterdir())) == 1
    assert record["not_measured"] is None
    assert record["models"]["m"]["latency_ms"]["samples"] >= 10
    assert record["models"]["m"]["operators"]
    assert record["environment"]["python"]
    assert list((tmp_path / "there").iterdir()) == []


def test_external_data_goes_along(place, make_classifier, tmp_path):
    model = onnx.load(make_classifier())
    onnx.save(model, tmp_path / "big.onnx", save_as_external_data=True, location="big.data", size_threshold=0)
    with runner_at(place) as runner:
        assert runner(request(tmp_path / "big.onnx"))["load_ns"] > 0


def test_a_bad_model_is_no_fault_of_the_machine(place, make_classifier):
    wrong = replace(request(make_classifier()), inputs=[InputSpec("other", (1, 1, 8, 8), "float32", 0.0, 1.0)])
    with runner_at(place) as runner, pytest.raises(CannotLoad, match=r"cannot load or run it: .*image") as caught:
        runner(wrong)
    assert not isinstance(caught.value, NotMeasurable)


def test_what_is_missing_over_there_is_named(place, make_classifier, tmp_path):
    bare = place.model_copy(update={"python": str(tmp_path / "no-such-python")})
    with runner_at(bare) as runner, pytest.raises(NotMeasurable, match=r"no-such-python.*; install python3 there"):
        runner(request(make_classifier()))


def test_a_hanging_runner_is_ended_on_both_sides(place, make_classifier, tmp_path):
    script = tmp_path / "hangs"
    script.write_text(f'#!/bin/sh\necho $$ > {tmp_path / "pid"}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    slow = place.model_copy(update={"python": str(script), "timeout": 4.0})
    endless = replace(request(make_classifier()), protocol=SHORT.model_copy(update={"seconds": 3600.0}))
    with runner_at(slow) as runner, pytest.raises(CannotLoad, match="no answer within 4 s"):
        runner(endless)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(1000):
        if not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child on the other side still runs")


def test_a_machine_that_is_not_there(make_classifier):
    nobody = Place(kind="ssh", host="nobody@127.0.0.1", port=1)
    if shutil.which("ssh") is None:
        pytest.skip("no ssh here")
    with runner_at(nobody) as runner, pytest.raises(NotMeasurable, match=r"ssh nobody@127\.0\.0\.1: .*refused"):
        runner(request(make_classifier()))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (Place(kind="ssh", host="a@b"), "ssh is not installed; install an SSH client"),
        (Place(kind="adb"), "adb is not installed; install the Android platform tools"),
        (Place(kind="qemu", simulated=True), "qemu-aarch64 is not installed; install it: apt install qemu-user"),
    ],
)
def test_a_missing_program_is_named(monkeypatch, make_classifier, place, said):
    monkeypatch.setenv("PATH", "")
    with runner_at(place) as runner, pytest.raises(NotMeasurable, match=said):
        runner(request(make_classifier()))


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch x"])
def test_a_host_that_is_none(host):
    from edgekd.config import validated

    with pytest.raises(BadSetting, match="ssh needs a host"):
        validated(Place, {"kind": "ssh", "host": host}, "runner")


def test_a_python_without_onnxruntime_is_named(place, make_classifier, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    told = r"No module named .*; install onnxruntime there"
    with (
        runner_at(place.model_copy(update={"python": str(bare)})) as runner,
        pytest.raises(NotMeasurable, match=told),
    ):
        runner(request(make_classifier()))
