"""Which runs a comparison is made of."""

import json

import pytest

from configs import llava, orl
from mmunlearner_jax.comparison.jobs import jobs
from mmunlearner_jax.config import typed
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.options import flatten


@pytest.fixture
def config():
    made = orl.get_config()
    made.compare.seeds, made.compare.development_seeds = (3, 4), (103,)
    made.compare.control_seeds = 0
    made.compare.ratios = (5, 10)
    return made


def tuned_workdir(folder, ratio, seed=103, names=()):
    """A workdir in which the stage `tune` was run."""
    folder.mkdir()
    written = {"seed": seed, "data": {"forget_ratio": ratio}}
    (folder / "config.json").write_text(json.dumps(written))
    trials = [{"learning_rate": 1e-5, "reached": True, "left": 0.2, "kept": 0.9}]
    (folder / "results.json").write_text(
        json.dumps({"tuning": dict.fromkeys(names or orl.get_config().compare.methods, trials)})
    )
    return folder


def named(todo, stage):
    return [job.name for job in todo if job.stage == stage]


def test_models_of_every_seed_and_cells_that_tune_or_score(config, tmp_path):
    todo = jobs(typed(config), tmp_path)
    never = ("vanilla", "never_taught-5", "never_taught-10")
    assert named(todo, 1) == ["seed-103/vanilla", *(f"seed-{s}/{m}" for s in (3, 4) for m in never)]
    assert named(todo, 2) == [f"seed-{s}/gold-{r}" for s in (103, 3, 4) for r in (5, 10)]
    assert named(todo, 3) == ["seed-103/tune-5", "seed-103/tune-10"]
    assert named(todo, 4) == [f"seed-{s}/forget-{r}" for s in (3, 4) for r in (5, 10)]
    gold = next(job for job in todo if job.name == "seed-3/gold-10")
    assert gold.overrides["finetune.retain_only"] == "gold"
    assert gold.overrides["data.forget_ratio"] == 10
    # The text is the vanilla model's; what was never taught it begins anew.
    assert gold.overrides["finetune.taught_text"] == gold.workdir.parent / "vanilla"
    assert gold.needs == (gold.workdir.parent / "vanilla",)
    never = next(job for job in todo if job.name == "seed-3/never_taught-10")
    assert "finetune.taught_text" not in never.overrides and not never.needs


def test_cells_share_a_seeds_models_and_benchmark_and_need_what_is_tuned(config, tmp_path):
    for cell in (job for job in jobs(typed(config), tmp_path) if job.stage == 4):
        home, ratio = cell.workdir.parent, cell.overrides["data.forget_ratio"]
        assert cell.overrides["model.checkpoint"] == home / "vanilla/vanilla"
        assert cell.overrides["data.benchmark"] == home / "vanilla/benchmark"
        for kind in ("gold", "never_taught"):
            assert cell.overrides[f"compare.{kind}"] == home / f"{kind}-{ratio}/vanilla"
            assert home / f"{kind}-{ratio}" in cell.needs
        assert cell.rows[:3] == ("vanilla", "gold", "never_taught")
        assert cell.rows[3:] == (*config.compare.methods, *config.compare.controls)
        tuned = tmp_path / f"seed-103/tune-{ratio}"
        assert cell.overrides["compare.tuned"] == (str(tuned),) and tuned in cell.needs


def test_later_seeds_run_the_controls_of_named_contrasts_alone(config, tmp_path):
    config.compare.control_seeds = 1
    todo = jobs(typed(config), tmp_path)
    assert named(todo, 1)[1:] == [
        "seed-3/vanilla",
        "seed-3/never_taught-5",
        "seed-3/never_taught-10",
        "seed-4/vanilla",
    ]
    first, *_, last = (job for job in todo if job.stage == 4)
    assert first.rows[3:] == (*config.compare.methods, *config.compare.controls)
    assert last.rows == ("vanilla", "gold", *config.compare.methods, "other_people_mask")
    assert last.overrides["compare.controls"] == ("other_people_mask",)


def test_without_development_seeds_every_cell_tunes_itself(config, tmp_path):
    config.compare.development_seeds = ()
    todo = jobs(typed(config), tmp_path)
    assert {job.stage for job in todo} == {1, 2, 4}
    cell = todo[-1]
    assert cell.overrides["stages"] == ("importance", "mask", "tune", "compare")
    assert "compare.tuned" not in cell.overrides


def test_workdirs_that_were_tuned_take_the_place_of_development_seeds(config, tmp_path):
    earlier = [tuned_workdir(tmp_path / f"tune-{ratio}", ratio) for ratio in (5, 10)]
    config.compare.tuned = tuple(map(str, earlier))
    todo = jobs(typed(config), tmp_path)
    assert not [job for job in todo if job.stage == 3 or "seed-103" in job.name]
    for cell in (job for job in todo if job.stage == 4):
        assert cell.overrides["stages"] == ("importance", "mask", "compare")
        tuned = tmp_path / f"tune-{cell.overrides['data.forget_ratio']}"
        assert cell.overrides["compare.tuned"] == (str(tuned),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, "seed is 4: rates are chosen on seeds of 100 and more"),
        ({"ratio": 15}, "none was tuned with config.data.forget_ratio=5"),
        ({"names": ("ga",)}, "no learning rates of mmunlearner.* were tried: run the stage tune"),
    ],
)
def test_workdirs_that_do_not_tune_everything_are_refused(config, tmp_path, change, said):
    config.compare.tuned = (str(tuned_workdir(tmp_path / "earlier", **{"ratio": 5} | change)),)
    with pytest.raises(InputError, match=said):
        jobs(typed(config), tmp_path)


def test_where_no_text_is_taught_gold_is_never_taught_any(config, tmp_path):
    config.finetune.text_first = config.finetune.text_batch = 0
    todo = jobs(typed(config), tmp_path)
    assert {job.workdir.name for job in todo if job.stage == 1} == {"vanilla", "gold-5", "gold-10"}
    assert not [job for job in todo if "compare.never_taught" in job.overrides]


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
    vanilla, *_, cell = todo = jobs(typed(config), tmp_path)
    assert (vanilla.done(), vanilla.size) == (0, 1)
    assert (cell.done(), cell.size) == (0, len(cell.rows))
    (vanilla.workdir / "vanilla").mkdir(parents=True)
    cell.workdir.mkdir(parents=True)
    told = {"variants": {"vanilla": {}, "ga": {}, "of_an_older_config": {}}}
    (cell.workdir / "results.json").write_text(json.dumps(told))
    assert vanilla.done() == 1 and cell.done() == 2
    tune = next(job for job in todo if job.stage == 3)
    tune.workdir.mkdir(parents=True)
    tried = [{"learning_rate": rate, "diverged": True} for rate in config.compare.learning_rates]
    tuning = {"ga": tried, "npo": tried, "kl_min": tried[1:]}  # a rate was added to the grid
    (tune.workdir / "results.json").write_text(json.dumps({"tuning": tuning}))
    assert (tune.done(), tune.size) == (2, len(config.compare.methods))


def test_without_fine_tuning_there_are_cells_alone(config, tmp_path):
    config.stages = ("importance",)
    todo = jobs(typed(config), tmp_path)
    assert [job.stage for job in todo] == [3, 3, 4, 4, 4, 4]
    assert "gold" not in todo[-1].rows and "model.checkpoint" not in todo[-1].overrides


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", (0, 0)),
        ("ratios", (5, 10, 5)),
        ("methods", ()),
        ("seeds", ()),
        ("development_seeds", (100, 100)),
        ("controls", 2 * ("no_mask",)),
    ],
)
def test_given_twice_or_not_at_all(config, tmp_path, key, value):
    config.compare[key] = value
    with pytest.raises(InputError, match=rf"config\.compare\.{key}"):
        jobs(typed(config), tmp_path)


def test_a_control_that_is_a_method_too(config, tmp_path):
    config.compare.methods = (*config.compare.methods, config.compare.controls[0])
    with pytest.raises(InputError, match="among the methods"):
        jobs(typed(config), tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("primary", "mmunlearner,lora,test/vqa", "the contrast .*lora.* needs lora: add it to"),
        ("methods", ("ga",), "the controls no_mask.* change 'mmunlearner'"),
    ],
)
def test_what_contrasts_and_controls_need(config, tmp_path, key, value, said):
    config.compare.controls = ("no_mask",)
    config.compare.secondary = ()
    config.compare[key] = value
    with pytest.raises(InputError, match=said):
        jobs(typed(config), tmp_path)


def test_a_control_among_methods_must_change_something(config, tmp_path):
    config.importance.normalise = "none"  # as with plain importances
    with pytest.raises(InputError, match="'plain_importances' changes nothing"):
        jobs(typed(config), tmp_path)


@pytest.mark.parametrize("methods", [("npo", "mmunlearner"), ("ga",)])
def test_controls_of_a_method_without_a_mask_or_that_is_not_run(config, tmp_path, methods):
    config.compare.methods = methods
    config.unlearn.method = "npo" if "npo" in methods else "mmunlearner"
    with pytest.raises(InputError, match="config.compare: the controls .* change"):
        jobs(typed(config), tmp_path)


def test_every_config_can_be_compared(tmp_path):
    todo = jobs(typed(llava.get_config()), tmp_path)
    assert [job.stage for job in todo] == 6 * [3] + 30 * [4]
