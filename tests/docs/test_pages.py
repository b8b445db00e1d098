"""The pages: what is read from the code, links, and numbers that stand where a link says."""

import ast
import re
import subprocess
import tarfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from hatchling.builders.sdist import SdistBuilder

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mmunlearner_jax"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
BUILT = "docs/reference/api/"  # `make docs` writes it


@pytest.fixture
def from_code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs/_extensions"))
    import command_pages
    import error_lines

    return command_pages, error_lines


def test_every_error_of_the_package_has_its_line(from_code):
    lines = from_code[1].error_lines()
    found = {(line.file, line.line) for line in lines}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "InputError":
                continue
            place = str(path.relative_to(PACKAGE)), node.lineno
            words = re.findall("[a-z]{2,}", _written(node.args[0]))
            assert place in found or not words, place
    assert len(lines) > 250 and sum(bool(line.mend) for line in lines) > 0.85 * len(lines)


def _written(message):
    """The part of a message that stands in the source; the rest is another error's text."""
    parts = message.values if isinstance(message, ast.JoinedStr) else [message]
    return " ".join(str(part.value) for part in parts if isinstance(part, ast.Constant))


def test_error_lines_have_constants_and_places(from_code):
    _, error_lines = from_code
    lines = {line.fault: line for line in error_lines.error_lines()}
    line = lines["PATH: has ST SIZE bytes, above MOST"]
    assert (line.file, line.mend) == ("files.py", "MEND")
    line = lines["chat template: renders the answer ANSWER as RENDERED"]
    assert line.mend == "use the chat template of the checkpoint this one was made from"
    mends = {x.fault: x.mend for x in lines.values() if x.file == "session.py"}
    assert mends["config.model.checkpoint is empty"].startswith("give the folder (or Hugging Face")
    page = error_lines.markdown()
    assert page.startswith("## ") and len(page.splitlines()) > len(lines)
    for row in page.splitlines():
        assert not row.startswith("|") or len(re.findall(r"(?<!\\)\|", row)) == 4, row


def test_the_page_of_a_command_is_its_help(from_code):
    section = from_code[0]._section("list", "mmunlearner_jax.listing")
    assert section.startswith("## `mmu list`\n\nLists configs, stages, methods")
    assert "usage: mmu list [-h]" in section and section.endswith("```")


def test_links_lead_to_files():
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for _, target in LINK.findall(text):
            if re.match(r"[a-z]+:|#", target):
                continue
            there = (page.parent / unquote(target.partition("#")[0])).resolve()
            assert there.exists() or str(there.relative_to(ROOT)).startswith(BUILT), (page, target)


def test_numbers_of_the_results_page_stand_where_they_link_to():
    page = ROOT / "docs/results/index.md"
    checked = 0
    for row in page.read_text().splitlines():
        for text, target in LINK.findall(row) if row.startswith("|") else ():
            assert text in (page.parent / target).read_text(), (text, target)
            checked += any(letter.isdigit() for letter in text)
    assert checked > 40


def test_readme_is_short_and_its_table_is_that_of_its_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    rows = [row for row in text.splitlines() if "±" in row and row.startswith("|")]
    page = (ROOT / "docs/orl.md").read_text()
    for row in rows:
        for value in re.findall(r"[\d.]+ ± [\d.]+", row):
            assert f"| {value} |" in page
    assert len(rows) == 8


def test_the_sdist_has_what_git_has(tmp_path):
    (made,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(made) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"PKG-INFO", "Makefile", "configs/orl.py", "docs/conf.py", "tests/conftest.py"} <= names
    if (ROOT / ".git").exists():
        done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
        assert {*done.stdout.splitlines()} <= names
