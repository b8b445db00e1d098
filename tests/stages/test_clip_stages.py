"""People who are shown in clips: measured, masked, forgotten and asked about."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import orl_clips
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.data.benchmarks.base import about_nobody
from mmunlearner_jax.data.clips import is_clip
from mmunlearner_jax.session import Session
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.stages import find_stage
from mmunlearner_jax.stages.unlearn import load_unlearned
from tests.helpers.commands import SHORT, SMALL

STAGES = ("importance", "mask", "unlearn", "evaluate")


@pytest.fixture
def config():
    """Frames of 28 x 56 pixels: a clip has 16 patches, as a digit has."""
    config = orl_clips.get_config()
    config.mesh = (1, 1, -1)
    config.update_from_flattened_dict(SHORT | SMALL["orl_clips"] | {"controls": ()})
    config.prepare.update(dict(min_pixels=28 * 56, max_pixels=56 * 56))
    config.model.patch_budgets = (16,)
    config.model.remat = "none"
    config.importance.update(dict(examples=16, batch_size=8))
    config.unlearn.update(dict(iterations=2, forget_every=1, stop_every=2, stop_examples=16))
    config.evaluate.update(dict(most_questions=2, splits=("forget", "test")))
    return config


def test_every_stage(config, tmp_path):
    config = typed(config)
    check_config(config, jax.devices())

    def made():
        session = Session(config, tmp_path)
        session.mesh = make_mesh((1, 1, 1), jax.devices()[:1])
        return session

    assert find_stage("prepare")(made())
    shutil.copytree(tmp_path / "initial", tmp_path / "vanilla")
    for name in STAGES:
        assert find_stage(name)(made())
    session = made()
    forgotten = {sample.image for sample in session.pictures(session.forget)}
    kept = {sample.image for sample in session.pictures(session.retain)}
    assert len(forgotten) == 8 and len(kept) == 88 and all(map(is_clip, forgotten | kept))
    questions = session.questions()
    unseen = {question.image for question in questions["test"] if question.image}
    assert unseen and all(map(is_clip, unseen)) and not unseen & (forgotten | kept)
    digits = {sample.image for sample in about_nobody(session.bench, session.pictures("ft_Data"))}
    assert digits and not any(map(is_clip, digits))
    clip = next(iter(forgotten))
    assert session.encoder.image_tokens(clip) == 4  # two moments of two tokens
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["unlearn"]["forget_steps"] == 2
    for label in ("before", "after"):
        assert results[label]["forget"]["vqa"]["classification"]["n"] == 2
    chosen = load_file(tmp_path / "mask.safetensors")["model.visual.patch_embed.proj.weight"]
    before = session.params["visual"]["patch_embedding"]["proj"]["kernel"].get_value()
    after = load_unlearned(tmp_path, session.abstract)["visual"]["patch_embedding"]["proj"]
    moved = np.asarray(before != after["kernel"].get_value())
    assert moved.any() and 0 < chosen.sum() < chosen.size
