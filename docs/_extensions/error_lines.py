"""Every error line of the package with its mend, read from the source.

A line is the message of an `InputError`. Places that are filled in when it is raised stand in
capitals: `{path}: is missing; {mend}` becomes `PATH: is missing; MEND`. Constants are replaced by
their text.
"""

import ast
import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import mmunlearner_jax

PACKAGE = Path(mmunlearner_jax.__file__).parent
RAISING = ("InputError", "Diverged")
# Where no semicolon comes before the mend, a colon and one of these words do.
_MENDS = re.compile(
    r": (?=(?:add|audit|begin|call|choose|compare|correct|fetch|give|leave|pip|remove|run|set|train"
    r"|tune|use|write) )"
)

# What a part of the package is about, as a heading; the first that a path begins with.
HEADINGS = {
    "config/": "Options",
    "options": "Options",
    "command": "The command line",
    "data/builders": "The command line",
    "data/": "Benchmarks and pictures",
    "examples/": "The examples",
    "models/": "Models",
    "processing/": "Tokenizers, processors and chat templates",
    "weights/": "Checkpoints",
    "unlearn/": "Unlearning",
    "evaluation/": "Evaluation",
    "audit/": "The audit",
    "comparison/": "Comparisons",
    "planning/": "The planner",
    "plan": "The planner",
    "stages/": "Stages",
    "": "Runs and workdirs",
}


@dataclasses.dataclass(frozen=True)
class ErrorLine:
    """An error line.

    Attributes:
        file: Module that raises it, relative to the package.
        line: Line of the file.
        fault: What is wrong.
        mend: What to do about it; "" where the line leaves that to its reader.
    """

    file: str
    line: int
    fault: str
    mend: str


def error_lines() -> list[ErrorLine]:
    """Returns all error lines, by file and line; not those that only pass another line on."""
    return [
        found
        for path in sorted(PACKAGE.rglob("*.py"))
        for found in _of_file(path.relative_to(PACKAGE))
        if re.search("[a-z]", found.fault + found.mend)
    ]


def markdown() -> str:
    """Returns a table for each part of the package."""
    parts = defaultdict(list)
    for line in error_lines():
        heading = next(HEADINGS[start] for start in HEADINGS if line.file.startswith(start))
        parts[heading].append(line)
    tables = []
    for heading in dict.fromkeys(HEADINGS.values()):
        if parts[heading]:
            rows = [
                f"| {_cell(x.fault)} | {_cell(x.mend)} | {_cell(x.file)} |" for x in parts[heading]
            ]
            head = "| line | mend | raised in |\n|---|---|---|"
            tables.append("\n".join([f"## {heading}", "", head, *dict.fromkeys(rows)]))
    return "\n\n".join(tables)


def _cell(text: str) -> str:
    """Returns a text as code, in which a table's bars are escaped."""
    text = re.sub(r"([A-Z]{2})(?=[a-z]{4})", r"\1 ", " ".join(text.split()))
    return f"`{text}`".replace("|", r"\|") if text else ""


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text())


def _of_file(file: Path) -> Iterator[ErrorLine]:
    for node, names in _calls(_tree(file), _constants(file)):
        if node.args and ast.unparse(node.func).rpartition(".")[2] in RAISING:
            yield _split(str(file), node.lineno, _text(node.args[0], names))
        elif len(node.args) == 2 and ast.unparse(node.func) == "refusing":
            place, mend = (_text(argument, names) for argument in node.args)
            yield ErrorLine(str(file), node.lineno, f"{place}: (what the library says)", mend)


def _split(file: str, line: int, text: str) -> ErrorLine:
    fault, _, mend = text.rpartition("; ")
    if not fault:
        fault, *rest = _MENDS.split(text, maxsplit=1)
        mend = ": ".join(rest)
    return ErrorLine(file, line, fault, mend)


def _calls(
    tree: ast.AST, names: Mapping[str, ast.expr]
) -> Iterator[tuple[ast.Call, Mapping[str, ast.expr]]]:
    """Yields each call, and what names stand for there."""
    for node in ast.iter_child_nodes(tree):
        inside = names
        if isinstance(node, ast.FunctionDef):
            inside = {**names, **_defaults(node), **_assigned(ast.walk(node))}
        if isinstance(node, ast.Call):
            yield node, inside
        yield from _calls(node, inside)


def _assigned(nodes: Iterator[ast.AST]) -> dict[str, ast.expr]:
    """Returns the names that are assigned once, to a text."""
    texts = defaultdict(list)
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            texts[node.targets[0].id].append(node.value)
    return {k: v[0] for k, v in texts.items() if len(v) == 1 and _is_text(v[0])}


def _defaults(function: ast.FunctionDef) -> dict[str, ast.expr]:
    """Returns what a keyword `mend` stands for where it is not given."""
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {x.arg: y for x, y in pairs if y is not None and x.arg == "mend"}


def _is_text(node: ast.expr) -> bool:
    constant = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return constant or isinstance(node, ast.JoinedStr)


@functools.cache
def _constants(file: Path) -> Mapping[str, ast.expr]:
    """Returns a module's own texts, and those that it imports from the package."""
    found = {}
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmunlearner_jax."):
            there = Path(*str(node.module).split(".")[1:])
            module = there.with_suffix(".py")
            module = module if (PACKAGE / module).is_file() else there / "__init__.py"
            theirs = _assigned(iter(_tree(module).body))
            found |= {x.asname or x.name: theirs[x.name] for x in node.names if x.name in theirs}
    return found | _assigned(iter(_tree(file).body))


def _text(node: ast.expr, names: Mapping[str, ast.expr]) -> str:
    """Returns the text of an expression, with capitals where it is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, names) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, names)
    if isinstance(node, ast.Name) and node.id in names:
        rest = {k: v for k, v in names.items() if k != node.id}
        return _text(names[node.id], rest)
    return _placeholder(node)


def _placeholder(node: ast.expr) -> str:
    """Returns the words of an expression in capitals, e.g. `FILE NAME` for `shown(file.name)`."""
    if isinstance(node, ast.Call) and node.args:
        if ast.unparse(node.func) == "getattr":
            return _placeholder(node.args[1])
        if ast.unparse(node.func) in ("shown", "repr", "str", "listed", "in_words", "min", "max"):
            return _placeholder(node.args[0])
        if ast.unparse(node.func).endswith(".join"):
            return _placeholder(node.args[0])
        return ast.unparse(node.func).rpartition(".")[2].strip("_").replace("_", " ").upper()
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_").replace("_", " ").upper()
    words = [x for x in re.findall("[A-Za-z]{2,}", ast.unparse(node)) if x != "self"]
    return " ".join(words[:3]).upper() or "N"
