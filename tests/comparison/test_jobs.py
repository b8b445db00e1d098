"""Which runs a comparison is made of."""

import json

import pytest

from configs import llava, orl
from mmunlearner_jax.comparison.jobs import jobs, rows
from mmunlearner_jax.config import typed
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.options import flatten


@pytest.fixture
def config():
    made = orl.get_config()
    made.compare.seeds, made.compare.ratios = (3, 4), (5, 10)
    return made


def test_a_vanilla_model_per_seed_and_a_gold_one_per_cell(config, tmp_path):
    todo = jobs(typed(config), tmp_path)
    names = [job.name for job in todo if job.stage == 1]
    assert names == [
        f"seed-{seed}/{model}" for seed in (3, 4) for model in ("vanilla", "retain-95", "retain-90")
    ]
    gold = next(job for job in todo if job.name == "seed-3/retain-90")
    assert gold.overrides["finetune.retain_only"] and gold.overrides["data.forget_ratio"] == 10


def test_cells_share_a_seeds_model_and_benchmark(config, tmp_path):
    cells = [job for job in jobs(typed(config), tmp_path) if job.stage == 2]
    assert [job.name for job in cells] == [
        f"seed-{seed}/forget-{ratio}" for seed in (3, 4) for ratio in (5, 10)
    ]
    for cell in cells:
        home = cell.workdir.parent
        assert cell.overrides["model.checkpoint"] == home / "vanilla/vanilla"
        assert cell.overrides["data.benchmark"] == home / "vanilla/benchmark"
        ratio = cell.overrides["data.forget_ratio"]
        assert cell.overrides["compare.retain_only"] == home / f"retain-{100 - ratio}/vanilla"
        assert cell.rows == rows(typed(config), retain_only=True)
        assert cell.rows[:2] == ("vanilla", "retain_only")


def test_overrides_are_keys_of_the_config(config, tmp_path):
    for job in jobs(typed(config), tmp_path):
        for key in job.overrides:
            typed(config).with_values({key: flatten(config.to_dict())[key]})


def test_what_a_job_says_overrules_what_all_are_told(config, tmp_path):
    (vanilla, *_) = jobs(typed(config), tmp_path)
    values = {"stages": ("report",), "unlearn.alpha": 2.0, "finetune.steps": 7}
    told = vanilla.arguments("configs/orl.py", values)
    assert told[:3] == ["-m", "mmunlearner_jax.main", "--config=configs/orl.py"]
    assert [x for x in told if "stages" in x] == ["--config.stages=('prepare', 'finetune')"]
    assert "--config.finetune.steps=7" in told
    assert not [x for x in told if "unlearn." in x]  # no stage of this job reads it


def test_what_is_made_is_counted(config, tmp_path):
    vanilla, *_, cell = jobs(typed(config), tmp_path)
    assert (vanilla.done(), vanilla.size) == (0, 1)
    assert (cell.done(), cell.size) == (0, len(cell.rows))
    (vanilla.workdir / "vanilla").mkdir(parents=True)
    cell.workdir.mkdir(parents=True)
    told = {"variants": {"vanilla": {}, "ga": {}, "of_an_older_config": {}}}
    (cell.workdir / "results.json").write_text(json.dumps(told))
    assert vanilla.done() == 1 and cell.done() == 2


def test_without_fine_tuning_there_are_cells_alone(config, tmp_path):
    config.stages = ("importance",)
    todo = jobs(typed(config), tmp_path)
    assert {job.stage for job in todo} == {2} and len(todo) == 4
    assert "retain_only" not in todo[0].rows and "model.checkpoint" not in todo[0].overrides


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", (0, 0)),
        ("ratios", (5, 10, 5)),
        ("methods", ()),
        ("seeds", ()),
        ("controls", 2 * ("no_mask",)),
    ],
)
def test_given_twice_or_not_at_all(config, tmp_path, key, value):
    config.compare[key] = value
    with pytest.raises(InputError, match=rf"config\.compare\.{key}"):
        jobs(typed(config), tmp_path)


def test_a_control_that_is_a_method_too(config, tmp_path):
    config.compare.methods = (*config.compare.methods, "lora")
    with pytest.raises(InputError, match="lora"):
        jobs(typed(config), tmp_path)


@pytest.mark.parametrize("methods", [("npo", "mmunlearner"), ("ga",)])
def test_controls_of_a_method_without_a_mask_or_that_is_not_run(config, tmp_path, methods):
    config.compare.methods = methods
    config.unlearn.method = "npo" if "npo" in methods else "mmunlearner"
    with pytest.raises(InputError, match="config.compare.controls change"):
        jobs(typed(config), tmp_path)


def test_every_config_can_be_compared(tmp_path):
    todo = jobs(typed(llava.get_config()), tmp_path)
    assert {job.stage for job in todo} == {2} and len(todo) == 9
