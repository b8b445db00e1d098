"""Every stage compiles in its first steps and never again, however many follow."""

import json

import jax
import pytest

from configs import orl
from mmunlearner_jax import compilations, main, session
from mmunlearner_jax.config import typed
from mmunlearner_jax.profiling import Trace
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.unlearn.schedule import StopRule

STAGES = "finetune", "evaluate", "importance", "mask", "unlearn", "controls"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def counts(workdir):
    """The number of programs after every step of every stage, by the stage's folder."""
    config = orl.get_config()
    config.stages = ("prepare", *STAGES)
    config.prepare.people = 24
    config.checkpoint_every = 2
    for part in (config.prepare.vision, config.prepare.text):
        part.hidden_size, part.intermediate_size, part.num_hidden_layers = 16, 16, 2
    options = config.finetune
    options.text_first, options.steps, options.warmup = 5, 9, 1
    options.picture_batch, options.text_batch = 8, 8
    config.importance.examples, config.importance.text_pack = 80, 2
    options = config.unlearn
    options.iterations, options.stop_every, options.stop_examples = 13, 2, 32
    options.forget_batch, options.retain_batch, options.text_batch = 8, 8, 8
    config.controls = ("random_mask", "ga")
    config.evaluate.splits, config.evaluate.photos_per_person = ("forget", "realworld"), 1
    config.evaluate.decode.batch_size = 16

    found = {}
    so_far, step = compilations.count(), Trace.step

    def counted(trace):
        step(trace)
        found.setdefault(str(trace._folder), []).append(so_far()["programs"])

    folder = jax.config.values["jax_compilation_cache_dir"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trace, "step", counted)
        patch.setattr(StopRule, "reached", lambda *_: False)  # it has nothing to forget
        one = make_mesh((1, 1, 1), jax.devices()[:1])
        patch.setattr(session, "make_mesh", lambda sizes: one)
        main.run(typed(config), workdir)
    jax.config.update("jax_compilation_cache_dir", folder)
    return {k.removeprefix(f"{workdir}/tensorboard/"): v for k, v in found.items()}


TRAINED = (
    "finetune_text",
    "finetune",
    "importance/forget",
    "importance/text",
    "unlearn",
    "controls/ga",
)


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINED)
def test_steps_compile_before_the_second_one(counts, stage):
    assert len(counts[stage]) > 4 and len(set(counts[stage])) == 1
    assert counts[stage][0] > 0


@pytest.mark.slow
def test_questions_compile_by_their_shapes_alone(counts):
    assert len(counts["evaluate/before"]) > 30 > 10 > len(set(counts["evaluate/before"]))
    # One control is asked what another was; options behind more words may take a longer program.
    assert counts["evaluate/ga"][-1] <= counts["controls/ga"][-1] + 2


@pytest.mark.slow
def test_results_tell_how_many(counts, workdir):
    told = json.loads((workdir / "results.json").read_text())["compilations"]
    assert told["unlearn"]["programs"] >= 3 and told["unlearn"]["seconds"] > 0
    assert told.keys() == {"prepare", *STAGES}
