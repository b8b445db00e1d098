"""The command `mmu`, configs by their names, and the wheel that carries them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from absl import flags

from mmunlearner_jax import __main__ as mmu
from mmunlearner_jax import __version__, command_help, listing
from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.command_line import _ConfigFile
from mmunlearner_jax.unlearn.controls import CONTROLS
from mmunlearner_jax.unlearn.methods import METHODS

ROOT = Path(__file__).parents[1]


def called(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["mmu", *arguments])
    try:
        mmu.main()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    return status, *capsys.readouterr()


def test_help_has_a_line_for_each_command(monkeypatch, capsys):
    for ask, wanted in (("--help", 0), ("-h", 0), ("", 2)):
        status, out, _ = called(monkeypatch, capsys, *filter(None, [ask]))
        assert status == wanted
        lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
        assert {*mmu.COMMANDS} <= {*lines} and all(len(lines[x].split()) > 3 for x in mmu.COMMANDS)


def test_version_and_a_name_that_is_near(monkeypatch, capsys):
    assert called(monkeypatch, capsys, "--version") == (0, f"mmunlearner_jax {__version__}\n", "")
    status, _, said = called(monkeypatch, capsys, "comparre", "--config=orl")
    assert status == 2 and said == "error: there is no command 'comparre'. Did you mean compare?\n"
    status, _, said = called(monkeypatch, capsys, "zzz")
    assert status == 2 and "Give one of run, compare," in said


def test_lists_have_what_there_is():
    text = listing.listing(listing.KINDS)
    for name in (*METHODS, *CONTROLS, *ATTACKS, "orl", "llava_mllmu", "importance", "clear"):
        assert f"\n  {name} " in text


def test_configs_have_names_in_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command_help.config_file("orl") == ROOT / "configs/orl.py"
    assert command_help.config_file("../orl") is None and command_help.config_file("orly") is None
    made = _ConfigFile("config").parse("orl_qwen")  # it imports configs.orl
    assert made.prepare.architecture == "qwen2_vl"
    assert _ConfigFile("config").parse("llava_mllmu:ratio=15").data.forget_ratio == 15
    with pytest.raises(flags.Error, match="Did you mean --config=llava_mllmu:ratio=5?"):
        _ConfigFile("config").parse("lava_mllmu:ratio=5")
    # A folder of one's own comes first.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/orl.py").write_text("")
    assert command_help.config_file("orl") == Path("configs/orl.py")


def test_no_program_says_that_there_is_no_torch():
    """`plan` imports transformers with its modules, others later (tests/end_to_end)."""
    program = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *a: None if name.split(".")[0] == "torch" else find(name, *a)
import mmunlearner_jax.plan, transformers
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_wheel_runs_outside_of_the_repository(tmp_path):
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([sys.executable, "-m", *build, tmp_path, ROOT], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(tmp_path / "site")
        names = {*files.namelist()}
    shipped = {f"mmunlearner_jax/shipped/{p.relative_to(ROOT)}" for p in ROOT.glob("configs/*.py")}
    shipped |= {f"mmunlearner_jax/shipped/{p.relative_to(ROOT)}" for p in ROOT.glob("launch/*")}
    assert shipped <= names and "mmunlearner_jax/py.typed" in names
    assert any(name.endswith("reporting/page.css") for name in names)
    program = "import mmunlearner_jax.__main__ as m; print(m.__file__, flush=True); m.main()"
    small = ["--config.prepare.people=12", "--config.stages=('prepare',)"]
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "--config=orl", "--workdir=run", *small],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert (tmp_path / "run/initial/model.safetensors").is_file()
