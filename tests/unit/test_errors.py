"""The tree of errors, as drawn and as it is."""

from __future__ import annotations

import inspect
import re

import pytest

from edgekd import errors, terminal
from edgekd.errors import BadInput, BadModel, CannotLoad, EdgekdError, UnknownName


def drawn() -> dict[str, str]:
    """Name to parent, from the tree in the module's docstring."""
    found: dict[str, str] = {}
    branch: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([ │├└─]*)(?:── )?([A-Z][A-Za-z]+)  ", line)
        if match is None or match[2] not in vars(errors):
            continue
        depth = len(match[1])
        branch = [item for item in branch if item[0] < depth]
        found[match[2]] = branch[-1][1] if branch else ""
        branch.append((depth, match[2]))
    return found


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    classes = {
        name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    real = {name: kind.__base__.__name__ for name, kind in classes.items() if kind.__module__ == errors.__name__}
    assert drawn() == real | {"EdgekdError": ""}


def test_exit_codes_of_the_docstring_are_those_of_the_classes() -> None:
    codes = dict(re.findall(r"([A-Z][A-Za-z]+) +([0-9]) ", errors.__doc__ or ""))
    assert {name: str(getattr(errors, name).exit_code) for name in codes} == codes
    assert set(codes) == {"EdgekdError", "BadInput", "CannotLoad"}
    assert BadModel.exit_code == BadInput.exit_code


def test_a_message_says_what_where_allowed_and_next_in_one_line() -> None:
    error = EdgekdError("it is\n  wrong", where="a.onnx", allowed="b", hint="do c")
    assert str(error) == "a.onnx: it is wrong; allowed: b; do c"
    assert str(CannotLoad("plain")) == "plain"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cpuu", "unknown target 'cpuu'; allowed: cpu, pi; did you mean cpu?"),
        ("zzz", "unknown target 'zzz'; allowed: cpu, pi"),
    ],
)
def test_an_unknown_name_lists_the_known_and_the_nearest(name: str, said: str) -> None:
    assert str(UnknownName("target", name, ["pi", "cpu"])) == said


def test_an_unknown_name_of_nothing() -> None:
    assert str(UnknownName("target", "a", [])) == "unknown target 'a'; allowed: none"


def test_an_error_may_name_a_page_which_the_command_line_tells(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise UnknownName("target", "zzz", ["cpu"])

    assert terminal.guarded(fail) == 2
    assert capsys.readouterr().err == "edgekd: error: unknown target 'zzz'; allowed: cpu; see docs/extend/target.md\n"
    assert str(UnknownName("target", "zzz", ["cpu"])) == "unknown target 'zzz'; allowed: cpu"
