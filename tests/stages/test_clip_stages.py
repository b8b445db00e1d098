"""People who are shown in clips: taught, measured, masked, forgotten and asked about."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import orl_clips
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.data.clips import is_clip
from mmunlearner_jax.session import Session
from mmunlearner_jax.stages import find_stage
from tests.helpers.commands import SHORT, SMALL

STAGES = ("prepare", "finetune", "importance", "mask", "unlearn", "evaluate")


@pytest.fixture
def config():
    """Frames of 28 x 56 pixels: a clip has 16 patches, as a digit has."""
    config = orl_clips.get_config()
    config.mesh = (1, 1, -1)
    config.update_from_flattened_dict(SHORT | SMALL["orl_clips"] | {"controls": ()})
    config.prepare.update(dict(min_pixels=28 * 56, max_pixels=56 * 56))
    config.model.patch_budgets = (16,)
    config.finetune.update(dict(steps=2, warmup=1, picture_batch=8, text_batch=8))
    config.importance.update(dict(examples=16, batch_size=8))
    config.unlearn.update(dict(iterations=2, forget_every=1, stop_every=2, stop_examples=16))
    config.evaluate.update(dict(most_questions=2, splits=("forget", "test", "realworld")))
    return config


def test_every_stage(config, tmp_path):
    config = typed(config)
    check_config(config, jax.devices())
    for name in STAGES:
        assert find_stage(name)(Session(config, tmp_path))
    session = Session(config, tmp_path)
    forgotten = {sample.image for sample in session.pictures(session.forget)}
    kept = {sample.image for sample in session.pictures(session.retain)}
    assert len(forgotten) == 8 and len(kept) == 88 and all(map(is_clip, forgotten | kept))
    questions = session.questions()
    unseen = {question.image for question in questions["test"] if question.image}
    assert unseen and all(map(is_clip, unseen)) and not unseen & (forgotten | kept)
    assert not any(is_clip(q.image) for q in questions["realworld"] if q.image)
    clip = next(iter(forgotten))
    assert session.encoder.image_tokens(clip) == 4  # two moments of two tokens
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["unlearn"]["forget_steps"] == 2
    for label in ("before", "after"):
        assert results[label]["forget"]["vqa"]["classification"]["n"] == 2
    vanilla, mask = load_file(tmp_path / "vanilla/model.safetensors"), tmp_path / "mask.safetensors"
    chosen = load_file(mask)["model.visual.patch_embed.proj.weight"]
    assert chosen.any() and not chosen.all()
    assert all(np.isfinite(weights).all() for weights in vanilla.values())
