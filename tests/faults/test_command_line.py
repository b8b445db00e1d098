"""Flags and config files that cannot be read: one plain line that names what to give."""

import sys
from pathlib import Path

import pytest
from absl import flags, logging

from mmunlearner_jax import command_line, progress

OVERRIDES = {
    "unlearn.learnin_rate=1": 'Did you mean "learning_rate" instead of "learnin_rate"?',
    "unlearn.nope=1": "config.unlearn has no key 'nope'. Give accumulate, adam_eps, ahead and ",
    "nope.a=1": "config has no key 'nope'. Give ",
    "to_json=1": "config has no key 'to_json'",
    "model.__class__=1": "config.model has no key '__class__'",
    "seed.x=1": "config.seed is a value, which has no keys",
    "mesh[0]=3": "has no key 'mesh[0]'. Did you mean \"mesh\"",
    "mesh.x=3": "config.mesh is a value, which has no keys",
    "=1": "config has no key ''",
    ".a=1": "config has no key ''",
    "seed=abc": "flag --config.seed=abc: invalid literal for int() with base 10: 'abc'",
    "seed=1.5": "flag --config.seed=1.5: invalid literal",
    f"seed={'9' * 9999}": "flag --config.seed=9999",
    f"unlearn.learning_rate={'x' * 9999}": "could not convert string to float",
    "unlearn.forget_text=maybe": "Non-boolean argument to boolean flag",
    "unlearn=5": "is not a dict",
    "unlearn.lora.targets=x y": "as tuple",
    "seed": "Missing value for flag --config.seed",
    "data.benchmark": "Missing value for flag --config.data.benchmark",
    "nope\x1b[31m=1": r"has no key 'nope\x1b[31m'",
    f"{'n' * 9999}=1": "has no key",
}
HEAD = "from ml_collections import ConfigDict\n"
FILES = {
    "def get_config(:": "SyntaxError: invalid syntax",
    "raise RuntimeError('a\\nb\\x1b[31m' + 'x' * 9999)": r"RuntimeError: a b\x1b[31mxx",
    "import sys; sys.exit(0)": "SystemExit: 0",
    "import sys; sys.exit('no\\nway')": "SystemExit: no way",
    "x = 1": "has no attribute 'get_config'",
    "def get_config(): return None": "NoneType",
    "def get_config(): return {'seed': 1}": "'dict' object has no attribute",
    "def get_config(): return {}['a']": "KeyError: 'a'",
    "def get_config(): return b'\\xff'.decode()": "UnicodeDecodeError: 'utf-8' codec can't decode",
    "def get_config(a, b): pass": "missing 2 required positional arguments",
    "def get_config(): return get_config()": "RecursionError",
    "def get_config(): raise OSError('disk')": "OSError: disk",
    "def get_config(): open('/nope/x')": "FileNotFoundError",
    "import nope_module": "No module named 'nope_module'",
    HEAD + "def get_config(): return ConfigDict({'a': object()})": "is not JSON serializable",
    "try: {}['a']\nexcept KeyError: raise RuntimeError('mine')": "RuntimeError: mine",
}


@pytest.fixture
def said(monkeypatch, capsys):
    """Parses a command line: what the program would say as it ends, or the config."""
    known = {*flags.FLAGS}

    def parse(*arguments):
        argv = ["program", *arguments]
        sys.modules.pop("config_config", None)  # the file that was read before
        monkeypatch.setattr(sys, "argv", argv)
        try:
            config = command_line.read_config(command_line.parse_flags(argv))
        except SystemExit as end:
            line = str(end.code)
            assert line.startswith("error: ") and line.isprintable() and len(line) < 700
            assert "Traceback" not in line and "mmunlearner_jax.errors" not in line
            return line
        finally:
            flags.FLAGS.unparse_flags()
            for name in {*flags.FLAGS} - known:
                delattr(flags.FLAGS, name)
        return config

    return parse


@pytest.mark.parametrize("override", OVERRIDES, ids=range(len(OVERRIDES)))
def test_an_override_that_is_none(said, override):
    assert OVERRIDES[override] in said("--config=configs/orl.py", f"--config.{override}")


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_a_config_file_that_is_none(said, tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a long path is shortened
    Path("mine.py").write_text(text)
    line = said("--config=mine.py")
    assert (
        FILES[text] in line and line.endswith("; correct the file") and "--config=mine.py" in line
    )


@pytest.mark.parametrize(
    "path", ["configs/nope.py", "configs", "/dev/null", "", ":", "\x1b", "a\nb"]
)
def test_a_config_that_is_no_file(said, path):
    assert "there is no such file" in said(f"--config={path}")


@pytest.mark.parametrize(
    ("config", "there"),
    [
        ("llava_mllmu.py:ratio=7", "there is no ratio=7: give one of 5, 10, 15"),
        ("qwen2_vl_mllmu.py:ratio=1", "there is no ratio=1: give one of 5, 10, 15"),
        ("llava_clear.py:ratio=7", "there is no ratio=7: give one of 1, 5, 10"),
        ("qwen2_vl_clear.py:ratio=-5", "there is no ratio=-5: give one of 1, 5, 10"),
        ("llava_mllmu.py:ratio=", "ratio is of type int: ratio=5, semantics=paper"),
        ("llava_mllmu.py:ratio", "ratio is of type int"),
        ("llava_mllmu.py:ratio=1e1", "ratio is of type int"),
        ("llava_mllmu.py:7", "'7' is none of ratio=5, semantics=paper"),
        ("llava_mllmu.py:" + "x" * 9999, "is none of ratio=5, semantics=paper"),
        ("llava_mllmu.py:semantics=mine", "write FILE, FILE:paper or FILE:released"),
        ("llava.py:ratio=7", "--config=FILE:ratio=7: write FILE, FILE:paper or FILE:released"),
        ("orl.py:\x1b[31m", r"FILE:\x1b[31m: write FILE"),
    ],
    ids=range(12),
)
def test_an_argument_that_there_is_not(said, config, there):
    assert there in said(f"--config=configs/{config}")


def test_of_what_is_given_twice_the_last_counts(said):
    config = said(
        "--config=configs/llava_mllmu.py:ratio=10",
        *("--config.seed=1", "--config.controls=('no_mask',)", "--config.stages=report"),
        *("--config.seed=2", "--config.controls=('ga', 'lora')"),
    )
    assert (config.seed, config.data.forget_ratio) == (2, 10)
    assert (config.controls, config.stages) == (("ga", "lora"), ("report",))


def test_words_and_unknown_flags(said):
    assert "unexpected argument 'more" in said("--config=configs/orl.py", "more\x1b" + "x" * 9999)
    assert "Unknown command line flag 'nope" in said("--config=configs/orl.py", "--nope\x1b=1")


@pytest.mark.parametrize(("given", "level"), [(None, 30), (0, 20), (-2, 40)])
def test_verbosity_is_that_of_the_command_line_or_warnings(said, monkeypatch, given, level):
    levels, read = [], command_line.typed

    def typed(config):
        levels.append(logging.get_absl_logger().getEffectiveLevel())
        return read(config)

    monkeypatch.setattr(command_line, "typed", typed)
    said("--config=configs/orl.py", *([] if given is None else [f"--verbosity={given}"]))
    assert levels == [level]


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_silences_progress(said, quiet, capsys, monkeypatch):
    monkeypatch.setattr(progress._Run, "quiet", False)
    said("--config=configs/orl.py", *["--quiet"] * quiet)
    progress.say("a line")
    assert capsys.readouterr().err == ("" if quiet else "a line\n")
