"""Unlearning with adapters through its stages: killed and started again, merged, saved, masked."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import orl
from mmunlearner_jax import session as session_module
from mmunlearner_jax.config import typed
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.metrics import Metrics
from mmunlearner_jax.movable import movable, save_peft
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.stages import find_stage
from mmunlearner_jax.stages import unlearn as stage
from tests.helpers.commands import SHORT

BEFORE = "prepare", "finetune", "importance", "mask"


def config_of(**more):
    config = orl.get_config()
    config.update_from_flattened_dict(SHORT | {"controls": ()} | more)
    for part in (config.prepare.vision, config.prepare.text):
        part.hidden_size, part.intermediate_size, part.num_hidden_layers = 16, 16, 2
    config.prepare.people = 12
    config.finetune.update(dict(text_first=2, steps=2, warmup=1, picture_batch=8, text_batch=8))
    config.importance.update(dict(examples=16, batch_size=8))
    config.unlearn.update(dict(iterations=4, forget_every=1, stop_every=2, stop_examples=16))
    config.unlearn.update(dict(forget_batch=8, retain_batch=8, text_batch=8))
    config.unlearn.lora.rank = 2
    return config


def session_of(workdir):
    return Session(typed(config_of()), workdir)


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    one = make_mesh((1, 1, 1), jax.devices()[:1])
    monkeypatch.setattr(session_module, "make_mesh", lambda sizes: one)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Everything up to the mask."""
    workdir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        one = make_mesh((1, 1, 1), jax.devices()[:1])
        patch.setattr(session_module, "make_mesh", lambda sizes: one)
        for name in BEFORE:
            assert find_stage(name)(session_of(workdir))
    return workdir


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"unlearn.lora.rank": -1}, "config.unlearn.lora.rank is -1: give 0"),
        ({"unlearn.lora.alpha": 0.0}, "config.unlearn.lora.alpha is 0.0: give a number above 0"),
        ({"unlearn.lora.targets": ()}, "config.unlearn.lora.targets is .*give patterns"),
    ],
)
def test_values_that_are_refused(values, said):
    config = config_of()
    config.update_from_flattened_dict(values)
    with pytest.raises(InputError, match=said):
        typed(config)


def test_targets_are_checked_where_the_model_is_loaded(workdir):
    for frozen, targets in (((), ("qkv",)), (("vision",), ("vision_tower",))):
        config = config_of()
        config.model.frozen, config.unlearn.lora.targets = frozen, targets
        with pytest.raises(InputError, match="targets holds .* decides nothing"):
            movable(Session(typed(config), workdir, str(workdir / "initial")), None)


@pytest.mark.slow
def test_masked_adapters_killed_and_started_again(workdir, monkeypatch):
    write = Metrics.write

    def killed(self, step, **row):
        if step == 3:
            raise KeyboardInterrupt
        write(self, step, **row)

    monkeypatch.setattr(Metrics, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.run(session_of(workdir))
    monkeypatch.setattr(Metrics, "write", write)
    assert (workdir / "checkpoints/unlearn/2").exists()
    assert stage.run(session_of(workdir)) and find_stage("export")(session_of(workdir))
    (workdir / "export").rename(workdir / "resumed")
    results = json.loads((workdir / "results.json").read_text())["unlearn"]
    assert 0 < results["lora"]["coverage"] < 1
    assert results["lora"]["peft"].startswith("not written")
    assert not (workdir / "adapters").exists()

    (workdir / "unlearned").rename(workdir / "unlearned.old")
    (workdir / "checkpoints").rename(workdir / "checkpoints.old")
    assert stage.run(session_of(workdir)) and find_stage("export")(session_of(workdir))
    resumed, straight, vanilla = (
        load_file(workdir / name / "model.safetensors") for name in ("resumed", "export", "vanilla")
    )
    mask = load_file(workdir / "mask.safetensors")
    moved = 0
    for name, value in straight.items():
        assert value.tobytes() == resumed[name].tobytes(), name
        ours = name.replace("language_model.model.", "model.language_model.")
        ours = ours.replace("vision_tower.vision_model.", "model.vision_tower.")
        ours = ours.replace("multi_modal_projector.", "model.multi_modal_projector.")
        protected = mask[ours.replace("language_model.lm_head.", "lm_head.")] == 0
        assert value[protected].tobytes() == vanilla[name][protected].tobytes(), name
        moved += np.sum(value != vanilla[name])
    assert moved > 0


@pytest.mark.slow
def test_adapters_without_a_mask_are_written_for_peft(workdir):
    session = session_of(workdir).with_values({"unlearn.method": "ga"})
    outcome = stage.Unlearner(session).run(None, label="plain")
    told = save_peft(session, outcome.parts)["lora"]
    saved = load_file(workdir / "adapters/adapter_model.safetensors")
    assert told["peft"] == "adapters"
    assert told["parameters"] == sum(x.size for x in saved.values())
    assert all(np.any(x) for name, x in saved.items() if "language_model" in name)
