from __future__ import annotations

import copy
import json
import shutil
import subprocess

import pytest

from edgekd import baseline
from edgekd.bench import bench
from edgekd.devices import Target
from edgekd.errors import BadRun, BadSetting

MS = 10**6


def record(path, *times, label="m"):
    """A bench record of a file whose processes take the given times in ms."""
    waiting = list(times)

    def runner(request):
        spent = round(MS * waiting.pop(0))
        return {
            **{"load_ns": 5 * MS, "first_ns": 2 * MS, "warmup_runs": 10, "samples_ns": [spent] * 20},
            **{"baseline_bytes": 40_000_000, "peak_bytes": 50_000_000},
        }

    device = Target(schema=1, name="here", title="Here", bench={"processes": len(times)})
    return bench({label: path}, device, runner=runner)


@pytest.fixture
def then(make_classifier):
    return record(make_classifier("a.onnx", filters=8), 1.0, 1.0, 1.0)


@pytest.fixture
def now(make_classifier):
    return record(make_classifier("b.onnx", filters=16), 1.5, 1.5, 1.5)


def test_what_changed(now, then):
    found = baseline.compare(now, then, "base.json")["models"]["m"]
    assert found["p50"]["verdict"] == "regressed"
    assert found["p50"] | {"verdict": ""} == {
        **{"now": 1.5, "baseline": 1.0, "ratio": 1.5, "interval": [1.5, 1.5], "floor": 0.02, "verdict": ""}
    }
    assert found["load"]["verdict"] == "ok"
    assert found["parameters"]["ratio"] == now["models"]["m"]["parameters"] / then["models"]["m"]["parameters"]
    json.dumps(found)


def test_on_another_machine_nothing_is_decided(now, then):
    then["environment"] |= {"cpu": "another", "load_average": [9, 9, 9]}
    found = baseline.compare(now, then, "base.json")
    assert found["differences"] == [f"cpu is {now['environment']['cpu']}, was another"]
    assert found["models"]["m"]["p50"]["verdict"] == "inconclusive"
    assert baseline.compare(now, then, "base.json", paired=True)["models"]["m"]["p50"]["verdict"] == "regressed"


def test_labels(now, then):
    then["models"]["other"] = then["models"].pop("m")
    assert "m" in baseline.compare(now, then, "b")["models"]  # the only one on both sides
    then["models"]["third"] = then["models"]["other"]
    with pytest.raises(BadRun, match="b: it holds no 'm'; allowed: other, third"):
        baseline.compare(now, then, "b")
    now["models"] |= {"teacher": copy.deepcopy(now["models"]["m"])}
    then["models"] = {"m": then["models"]["other"]}
    assert set(baseline.compare(now, then, "b")["models"]) == {"m"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r.update(schema="edgekd.bench/9"), "its schema is 'edgekd.bench/9'; allowed: edgekd.bench/1"),
        (lambda r: r.pop("environment"), "environment: Field required"),
        (lambda r: r["models"]["m"].pop("bytes"), "models.m.bytes: Field required"),
        (lambda r: r["models"]["m"].update(bytes="many"), "models.m.bytes: "),
    ],
)
def test_what_is_no_baseline(then, spoil, said):
    spoil(then)
    with pytest.raises(BadRun, match=said) as caught:
        baseline.read(json.dumps(then), "b.json")
    assert "--save-baseline" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "\u0000"])
def test_what_is_no_record_at_all(text):
    with pytest.raises(BadRun):
        baseline.read(text, "b.json")


def test_no_such_file(tmp_path):
    with pytest.raises(BadRun, match=r"none\.json: cannot be read: No such file"):
        baseline.find(str(tmp_path / "none.json"))


@pytest.fixture
def repository(tmp_path, then, monkeypatch):
    """A git repository whose only commit holds b.json, changed since."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "repository"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.json").write_text(json.dumps(then))
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    (folder / "deep" / "b.json").write_text("{}")
    monkeypatch.chdir(folder / "deep")
    return folder


def test_a_record_out_of_the_history(repository, then):
    assert baseline.find("v1:b.json") == then
    assert baseline.find(f"HEAD:{repository / 'deep' / 'b.json'}") == then


@pytest.mark.parametrize(
    ("name", "said"),
    [("v2:b.json", "invalid object name 'v2'"), ("v1:c.json", "c.json' does not exist in 'v1'")],
)
def test_what_the_history_does_not_hold(repository, name, said):
    with pytest.raises(BadSetting, match=said) as caught:
        baseline.find(name)
    assert "shallow checkout" in str(caught.value)


def test_outside_of_any_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(BadSetting, match="not a git repository"):
        baseline.at_revision("HEAD", tmp_path / "b.json")
