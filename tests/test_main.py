"""The command line: one clear line for every mistake, and nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from configs import llava, llava_clear, orl
from mmunlearner_jax import main
from mmunlearner_jax.config import typed
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.weights.io import save_pretrained
from tests.helpers.benchmarks import Clear, Published
from tests.helpers.questions import llava as tiny_llava

ROOT = Path(__file__).parents[1]

# Everything that takes long is imported once; each command line then has its own process.
SERVER = """
import json, os, runpy, sys
import mmunlearner_jax.stages
for line in sys.stdin:
    sys.argv[1:] = json.loads(line)
    out, err = os.pipe(), os.pipe()
    if not (child := os.fork()):
        os.dup2(out[1], 1), os.dup2(err[1], 2)
        runpy.run_module("mmunlearner_jax.main", run_name="__main__", alter_sys=True)
        sys.exit()
    os.close(out[1]), os.close(err[1])
    texts = [os.fdopen(fd).read() for fd in (out[0], err[0])]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, *texts]), flush=True)
"""


def python(program: str, cwd: Path, **options: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=cwd,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs `python -m mmunlearner_jax.main ARGUMENTS`: exit code, stdout, stderr."""
    cwd = tmp_path_factory.mktemp("cwd")
    (cwd / "configs").symlink_to(ROOT / "configs")
    with python(SERVER, cwd, stdin=subprocess.PIPE) as server:
        stdin, stdout = server.stdin, server.stdout
        assert stdin is not None and stdout is not None

        def run(*arguments: str) -> tuple[int, str, str]:
            stdin.write(json.dumps(arguments) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

        yield run
        stdin.close()
    assert [path.name for path in cwd.iterdir()] == ["configs"]


def only_line(err: str) -> str:
    """What is said, but for the hint that absl appends to its own."""
    (line,) = [line for line in err.splitlines() if not line.startswith("Pass --help")]
    assert line.startswith(("error: ", "FATAL Flags parsing error: "))
    return line


def test_help(command):
    _, out, err = command("--help")
    assert "--workdir" in out
    assert "--config" in out
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--config.unlearn.nope=1"], "nope"),
        (["--config.nope.steps=1"], "nope"),
        (["--config.finetune.steps=ten"], "config.finetune.steps"),
        (["--config.finetune.steps=0"], "config.finetune.steps"),
        (["--config.unlearn.forget_every=-3"], "config.unlearn.forget_every"),
        (["--config.checkpoint_every=0"], "config.checkpoint_every"),
        (["--config.profile.steps=-1"], "config.profile.steps"),
        (["--config.stages=('prepare','forget')"], "config.stages"),
        (["--config=configs/missing.py"], "configs/missing.py"),
        (["--nope"], "nope"),
        (["extra"], "extra"),
        (["--workdir=", "--config.stages=()"], "--workdir"),
    ],
)
def test_one_line_tells_what_is_wrong(command, tmp_path, arguments, named):
    workdir = tmp_path / "run"
    code, _, err = command("--config=configs/orl.py", f"--workdir={workdir}", *arguments)
    assert code == 1
    assert named in only_line(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["workdir", "config"])
def test_both_flags_are_needed(command, tmp_path, flag):
    flags = {"config": "configs/orl.py", "workdir": str(tmp_path / "run")}
    code, _, err = command(*(f"--{k}={v}" for k, v in flags.items() if k != flag))
    assert code == 1
    assert f"--{flag}" in only_line(err)
    assert list(tmp_path.iterdir()) == []


def test_llava_needs_a_checkpoint(command, tmp_path):
    code, _, err = command("--config=configs/llava.py", f"--workdir={tmp_path / 'run'}")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: config.model.checkpoint is empty: give")
    assert "Traceback" not in err
    assert not list(tmp_path.glob("run/*"))


def test_torch_and_tensorflow_are_not_imported(tmp_path):
    """By nothing that `import mmunlearner_jax.main` loads; test_package looks at our files.

    Nor do the stages load nltk, which takes seconds.
    """
    program = """
import sys, mmunlearner_jax.main
print({'torch', 'tensorflow'} & sys.modules.keys())
mmunlearner_jax.main.hide_torch()
import mmunlearner_jax.stages
print({'nltk'} & sys.modules.keys())
"""
    with python(program, tmp_path) as process:
        assert process.communicate()[0].splitlines()[-2:] == ["set()", "set()"]


@pytest.fixture
def config():
    """The default config; `run` sets where compiled programs are kept."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    yield orl.get_config()
    jax.config.update("jax_compilation_cache_dir", folder)


def mistake(config: ConfigDict, workdir: Path) -> str:
    with pytest.raises(InputError) as error:
        main.run(typed(config), workdir)
    (line,) = str(error.value).splitlines()
    return line


def test_a_workdir_of_another_config(config, tmp_path):
    config.stages = ("unlearn",)
    assert main.check_workdir(typed(config), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    config.unlearn.learning_rate = 1e-3
    config.seed, config.stages = 5, ("report",)
    line = mistake(config, tmp_path)
    assert "seed was 0 and is now 5 (2 fields differ)" in line
    assert str(tmp_path / "config.json") in line
    assert (tmp_path / "config.json").read_bytes() == before


def test_options_that_no_stage_has_read_may_differ(config, tmp_path):
    config.stages = ("mask",)
    main.check_workdir(typed(config), tmp_path)
    config.stages, config.unlearn.learning_rate = ("unlearn",), 1e-3
    assert not main.check_workdir(typed(config), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["stages"] == ["mask", "unlearn"]
    assert written["unlearn"]["learning_rate"] == 1e-3
    config.unlearn.learning_rate = 1e-4
    with pytest.raises(InputError, match="unlearn.learning_rate was 0.001 and is now 0.0001"):
        main.check_workdir(typed(config), tmp_path)


def test_an_option_that_a_stage_refused_may_be_mended(config, tmp_path):
    config.stages = ("mask",)
    main.check_workdir(typed(config), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    config.stages, config.unlearn.learning_rate = ("unlearn",), 1e-3
    assert "config.model.checkpoint is empty" in mistake(config, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("stages", "key", "said"),
    [
        (("mask",), "unlearn.alpha", "add 'unlearn' or 'controls' or 'tune' or 'compare'"),
        (("mask",), "controls", "add 'controls' to config.stages, or leave it out"),
        (("mask",), "plan.text", "no stage of this run reads it; leave it out"),
        (("unlearn",), "unlearn.alpha", ""),
        (("mask",), "model.remat", ""),
    ],
)
def test_an_option_that_no_stage_reads_is_refused(config, tmp_path, stages, key, said):
    config.stages, config.controls = stages, ("no_mask",) if key == "controls" else ()
    if key not in ("controls", "model.remat"):
        config.update_from_flattened_dict({key: 3})
    if not said:
        assert main.check_workdir(typed(config), tmp_path, [key])
        return
    with pytest.raises(InputError, match=said):
        main.check_workdir(typed(config), tmp_path, [key])
    assert main.check_workdir(typed(orl.get_config()), tmp_path / "default", [key])
    # A stage that an earlier command has run reads it, too.
    config.stages = ("unlearn", "controls")
    main.check_workdir(typed(config), tmp_path)
    config.stages = stages
    if key != "plan.text":
        main.check_workdir(typed(config), tmp_path, [key])


def test_stages_and_profile_may_differ(config, tmp_path):
    config.stages = ()
    main.run(typed(config), tmp_path)
    config.stages, config.profile.steps = ("report",), 10
    config.compare.seeds, config.compare.methods = (7,), ("npo",)
    config.controls = ("no_mask",)
    assert "seed" not in mistake(config, tmp_path)


def test_a_single_stage_finds_the_model_that_was_finetuned_here(config, tmp_path):
    (tmp_path / "vanilla").mkdir()
    config.stages = ("mask",)
    assert "benchmark is missing" in mistake(config, tmp_path)


def test_a_workdir_that_cannot_be_made(config, tmp_path):
    config.stages = ()
    file = tmp_path / "file"
    file.touch()
    assert str(file) in mistake(config, file)
    assert str(file) in mistake(config, file / "run")


def test_a_ratio_that_is_not_there_and_a_mended_config(tmp_path, config):
    root = Published(tmp_path / "published").write()
    config = llava.get_config()
    config.model.checkpoint = str(tmp_path)
    workdir = tmp_path / "run"
    assert "set config.data.benchmark" in mistake(config, workdir)
    config.data.benchmark = str(root)  # the first try does not make this another config
    line = mistake(config, workdir)
    assert "forget_5" in line
    assert "there are" in line and "forget_25, forget_50" in line
    config.data.forget_ratio = 25
    assert "config.json" in mistake(config, workdir)  # the checkpoint's: the folder has none
    assert not list(workdir.iterdir())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """All of a checkpoint but its weights, which no mistake in data waits for."""
    folder = tmp_path_factory.mktemp("checkpoint") / "llava"
    model, encoder = tiny_llava()
    save_pretrained(model, folder, processor=encoder.processor)
    (folder / "model.safetensors").unlink()
    return str(folder)


def test_mllmu_rows_of_a_late_stage_are_looked_at_before_any_compute(tmp_path, checkpoint, config):
    published = Published(tmp_path / "published")
    cut = {"bytes": b"\x89PNG\r\n", "path": None}
    published.tables["Test_Set"][2] = published.tables["Test_Set"][2] | {"images": [cut]}
    config = llava.get_config()
    config.stages, config.model.checkpoint = ("importance",), checkpoint
    config.data.benchmark, config.data.forget_ratio = str(published.write()), 25
    config.evaluate.splits = ()
    line = mistake(config, tmp_path / "run")
    assert "Test_Set/train-00000-of-00001.parquet: row 2: images[0] cannot be decoded: " in line
    assert "; correct the file or raise max_bad_fraction" in line


def test_clear_rows_of_a_late_stage_are_looked_at_before_any_compute(tmp_path, checkpoint, config):
    published = Clear(tmp_path / "clear")
    cut = {"image": {"bytes": b"\x89PNG\r\n", "path": None}}
    published.tables["retain90"] = [row | cut for row in published.tables["retain90"]]
    config = llava_clear.get_config("ratio=10")
    config.model.checkpoint = checkpoint
    config.data.benchmark = str(published.write())
    line = mistake(config, tmp_path / "run")
    assert "retain90/train-00000-of-00001.parquet: row 0: image cannot be decoded" in line


def test_a_reference_that_was_taught_everybody_or_asked_something_else(
    tmp_path, checkpoint, config
):
    config = llava_clear.get_config("ratio=10")
    config.model.checkpoint = checkpoint
    config.data.benchmark = str(Clear(tmp_path / "clear").write())
    config.evaluate.reference = str(tmp_path / "other")
    assert "predictions/before-forget.jsonl or config.json is missing; give the w" in mistake(
        config, tmp_path / "run"
    )
    (tmp_path / "other/predictions").mkdir(parents=True)
    (tmp_path / "other/predictions/before-forget.jsonl").touch()
    theirs = config.to_dict()
    theirs["finetune"] = {"retain_only": ""}
    (tmp_path / "other/config.json").write_text(json.dumps(theirs))
    assert "was taught all people; give the workdir" in mistake(config, tmp_path / "run")
    theirs["finetune"]["retain_only"] = "gold"
    theirs["seed"] = 7
    (tmp_path / "other/config.json").write_text(json.dumps(theirs))
    assert "has seed=7, this run 0; give the workdir" in mistake(config, tmp_path / "run")


def test_mllmu_splits_that_are_not_there(tmp_path, checkpoint, config):
    config = llava.get_config()
    config.stages, config.model.checkpoint = ("importance",), checkpoint
    config.data.benchmark = str(Published(tmp_path / "published").write())
    config.data.forget_ratio = 25
    config.evaluate.splits = ("forget", "real_faces")
    line = mistake(config, tmp_path / "run")
    assert line.startswith("config.evaluate.splits: no split real_faces; give some of forget, test")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finetune.steps", -1),
        ("unlearn.iterations", 0),
        ("unlearn.iterations", -5),
        ("unlearn.stop_every", 0),
        ("checkpoint_every", 0),
        ("importance.batch_size", 0),
        ("importance.examples", -1),
        ("importance.fisher", "token"),
        ("unlearn.method", "nothing"),
        ("unlearn.forget_repeat", -1),
        ("unlearn.accumulate", 0),
        ("unlearn.decay", "some"),
        ("unlearn.warmup", -1),
        ("unlearn.clip", -1.0),
        ("unlearn.npo.beta", 0.0),
        ("unlearn.npo.over", "token"),
        ("unlearn.kl_min.over", "batch"),
        ("unlearn.mask_on", "nothing"),
        ("unlearn.optimizers", 3),
        ("unlearn.learning_rate", float("nan")),
        ("finetune.warmup", 600),
        ("model.remat", "some"),
        ("model.attention", "some"),
        ("model.param_dtype", "float33"),
        ("controls", ("no_mask", "nothing")),
        ("finetune.optimizer", "sgd"),
        ("compare.methods", ("ga", "nothing")),
        ("compare.controls", ("nothing",)),
        ("compare.learning_rates", ()),
        ("compare.learning_rates", (1e-4, 0.0)),
        ("compare.apart", 1.0),
        ("compare.seeds", (0, -1)),
        ("compare.seeds", (0, 100)),
        ("compare.development_seeds", (100, 7)),
        ("compare.learning_rates", (1e-4,)),
        ("compare.learning_rates", (1e-4, 1e-4)),
        ("compare.primary", "mmunlearner,random_mask"),
        ("compare.secondary", ("mmunlearner,nothing,retain/qa",)),
        ("compare.secondary", ("ga,ga,retain/qa",)),
        ("seed", -1),
        ("mask.cover", "("),
        ("importance.preserve.vision", ("pictures", "words")),
        ("importance.preserve.language", ()),
        ("unlearn.stop_remembered", 1.0),
        ("compare.margin", 0.0),
        ("compare.forget_steps", 0),
        ("unlearn.forget_optimizer", "adam"),
        ("evaluate.decode.max_new_tokens", 0),
        ("unlearn.text_batch", 12),
        ("importance.text_pack", 10),
    ],
)
def test_values_are_refused_before_anything_is_written(config, tmp_path, key, value):
    config.stages = ()
    config.update_from_flattened_dict({key: value})
    assert mistake(config, tmp_path / "run").startswith(f"config.{key} is ")
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_prepares_no_model(config, tmp_path):
    config = llava.get_config()
    config.mesh, config.stages = (1, 4, -1), ("prepare",)
    said = mistake(config, tmp_path / "run")
    assert said.startswith("config.prepare.vision is {}: give the sizes of the model")


def test_controls_to_compare_need_the_method_that_they_change(config, tmp_path):
    config.stages, config.compare.methods = ("compare",), ("npo",)
    said = mistake(config, tmp_path / "run")
    assert "change 'mmunlearner', config.unlearn.method" in said


def test_controls_of_a_mask_that_is_none(config, tmp_path):
    config.unlearn.method, config.controls = "npo", ("no_mask", "random_mask")
    said = mistake(config, tmp_path / "run")
    assert said.startswith("config.controls is ")
    assert said.endswith("give none that changes the mask, or the method mmunlearner")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("retain_batch", 4000, "epochs: a pass over the retain pictures has 1 steps, fewer than"),
        ("warmup", 10**6, "warmup is 1000000: give fewer than the "),
    ],
)
def test_a_schedule_that_is_none(tmp_path, checkpoint, key, value, said):
    config = llava.get_config()
    config.stages, config.model.checkpoint = ("importance", "unlearn"), checkpoint
    config.data.benchmark = str(Published(tmp_path / "published").write())
    config.data.forget_ratio, config.mesh, config.unlearn.forget_batch = 25, (1, 1, -1), 1
    config.unlearn[key] = value
    assert mistake(config, tmp_path / "run").startswith(f"config.unlearn.{said}")


def test_a_kernel_of_another_platform(config, tmp_path):
    config.model.attention = "cudnn"
    said = mistake(config, tmp_path / "run")
    assert said == "config.model.attention='cudnn' does not run on cpu: use xla or blocks or splash"


def test_a_mesh_that_the_devices_do_not_fill(config, tmp_path):
    config.mesh = (3, 1, 1)
    assert mistake(config, tmp_path / "run").startswith("config.mesh (3, 1, 1): the sizes")
    assert list(tmp_path.iterdir()) == []


def test_more_general_ability_may_be_asked_of_a_run(config, tmp_path):
    config.stages = ("evaluate",)
    main.check_workdir(typed(config), tmp_path)
    config.evaluate.general, config.evaluate.general_files = ("pope",), "somewhere"
    assert not main.check_workdir(typed(config), tmp_path)
