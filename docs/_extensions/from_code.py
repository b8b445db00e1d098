"""Fills pages with what the code says: commands, error lines, pages of the repository's root.

A page holds a comment, `<!-- from the code: NAME -->`, in whose place a table or a list is put.
In docstrings, text between backticks is code, as in Markdown.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import command_pages
import error_lines
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


def _of_root(name: str) -> Callable[[], str]:
    """Returns what reads a page of the repository's root, with links that hold in `project/`."""

    def read() -> str:
        text = (ROOT / name).read_text()
        return text.replace("](docs/", "](../").replace("](CHANGELOG.md)", "](changelog.md)")

    return read


PARTS: Mapping[str, Callable[[], str]] = {
    "commands": command_pages.markdown,
    "errors": error_lines.markdown,
    "contributing": _of_root("CONTRIBUTING.md"),
    "changelog": _of_root("CHANGELOG.md"),
}


def fill(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts what the code says in place of the comments of a page."""
    for name, write in PARTS.items():
        mark = f"<!-- from the code: {name} -->"
        if mark in source[0]:
            source[0] = source[0].replace(mark, write())


def as_code(
    app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Reads a docstring as its authors mean it: backticks hold code, and the rest is plain text."""
    code = re.compile(r"((?<![`:])`[^`]+`(?![`_]))")
    parts = code.split("\n".join(lines))
    plain = [re.sub(r"([|]|[*](?=[\w*]))", r"\\\1", part) for part in parts[::2]]
    spans = [f"`{part}`" for part in parts[1::2]]
    text = "".join(part for pair in zip(plain, [*spans, ""], strict=True) for part in pair)
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension; Sphinx calls it."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", as_code, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
