"""The documentation builds without a warning, leads nowhere outside itself, and tells what the code tells."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgekd.config import DistillSettings, Recipe
from edgekd.devices import load_target

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("material") is None:
        pytest.skip("edgekd[docs] is not installed")
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_every_command_option_function_and_setting_is_there(site: Path) -> None:
    commands = (site / "commands.html").read_text(encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-m", "edgekd", "distill", "--help"], capture_output=True, text=True, check=True
    )
    options = set(re.findall(r"--[a-z][a-z-]+", told.stdout)) - {"--help"}
    assert len(options) > 20
    assert {option for option in options if f"{option}" not in commands} == set()
    settings = (site / "settings.html").read_text(encoding="utf-8")
    fields = {*DistillSettings.model_fields, *Recipe.model_fields}
    assert {field for field in fields if f"<code>{field}</code>" not in settings} == set()
    python = (site / "python.html").read_text(encoding="utf-8")
    assert all(f'id="edgekd{name}"' in python for name in ("distill", "export", "bench", "gate"))
    assert "DeepInversion, eq. 4" in (site / "methods.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 8
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^" >]+)', text)
        fetched += re.findall(r'<link(?=[^>]*rel="?(?:stylesheet|icon|preconnect))[^>]* href="?([^" >]+)', text)
        assert fetched
        assert [url for url in fetched if "//" in url] == [], page


def test_every_answer_is_two_clicks_away() -> None:
    """Every page is linked from the first one, and in the menu."""
    index, menu = (DOCS / "index.md").read_text(encoding="utf-8"), (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    assert {page for page in pages if f"]({page}" not in index} == set()
    assert {page for page in pages if f": {page}" not in menu} == set()


def test_pages_that_errors_name_are_there_with_their_headings() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "edgekd").rglob("*.py"))
    named = set(re.findall(r'"([a-z/]+\.md(?:#[a-z-]+)?)"', code))
    assert {"extend/target.md", "extend/student.md", "methods.md", "tutorial.md#only-an-endpoint"} <= named
    for one in named:
        page, _, heading = one.partition("#")
        text = (DOCS / page).read_text(encoding="utf-8")
        headings = {
            re.sub(r"[^a-z ]", "", found.lower()).replace(" ", "-") for found in re.findall(r"^#+ (.*)$", text, re.M)
        }
        assert not heading or heading in headings, one


def test_the_example_of_a_target_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"```toml\n(.*?)```", (DOCS / "extend" / "target.md").read_text(encoding="utf-8"), re.DOTALL
    )
    file = tmp_path / "my-board.toml"
    file.write_text(example)
    assert load_target(str(file)).quantization.activation == "uint8"


def test_the_example_of_a_student_answers() -> None:
    import torch

    (example,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "extend" / "student.md").read_text(encoding="utf-8"), re.DOTALL
    )
    names: dict = {}
    exec(example, names)
    assert names["factory"]((3, 32, 32), 7, 0.5)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
