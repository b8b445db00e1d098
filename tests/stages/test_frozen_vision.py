"""Stages with a frozen vision tower: its weights stay, its mask is False, it sees nothing twice."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import orl_qwen
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import find_stage
from tests.helpers.commands import SHORT, SMALL

STAGES = ("prepare", "finetune", "importance", "mask", "unlearn", "export")


@pytest.fixture
def config():
    config = orl_qwen.get_config()
    config.mesh = (1, 1, -1)
    config.update_from_flattened_dict(SHORT | SMALL["orl_qwen"] | {"controls": ()})
    config.finetune.update(dict(steps=2, warmup=1, picture_batch=8, text_batch=8))
    config.importance.update(dict(examples=16, batch_size=8))
    config.unlearn.update(
        dict(iterations=2, forget_every=1, stop_every=2, stop_examples=16, pack=1)
    )
    config.model.frozen = ("vision",)
    return config


def test_unknown_and_too_many_groups(config):
    for groups, said in (
        (("vision", "tower"), "give names out of vision, projector, language, not 'tower'"),
        (("vision", "projector", "language"), "give fewer groups: nothing would move"),
    ):
        config.model.frozen = groups
        with pytest.raises(InputError, match=f"config.model.frozen is .*{said}"):
            typed(config)


def test_every_stage(config, tmp_path, monkeypatch):
    seen = []
    compute = Features._seen

    def counted(self, together, bar):
        seen.extend(image for image, _ in together)
        return compute(self, together, bar)

    monkeypatch.setattr(Features, "_seen", counted)
    config = typed(config)
    check_config(config, jax.devices())
    counts = {}
    for name in STAGES:
        assert find_stage(name)(Session(config, tmp_path))
        counts[name] = len(seen)
    # Fine-tuning changes every photograph each time, so none is kept.
    assert counts["prepare"] == counts["finetune"] == 0 < counts["importance"]
    assert counts["mask"] == counts["importance"] < counts["unlearn"] == counts["export"]
    assert len(set(seen)) == len(seen)
    before, vanilla, after = (
        load_file(tmp_path / name / "model.safetensors")
        for name in ("initial", "vanilla", "export")
    )
    mask = load_file(tmp_path / "mask.safetensors")
    towers = [name for name in before if name.startswith("visual.") and "merger" not in name]
    assert towers
    for name in towers:
        np.testing.assert_array_equal(before[name], vanilla[name])
        np.testing.assert_array_equal(vanilla[name], after[name])
        assert not mask["model." + name].any()
    assert any(np.any(before[name] != vanilla[name]) for name in before)
    assert any(np.any(vanilla[name] != after[name]) for name in before)
    by_module = json.loads((tmp_path / "results.json").read_text())["mask"]["by_module"]
    assert by_module["vision"] == 0 < min(by_module["projector"], by_module["language"])
