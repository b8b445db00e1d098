"""Clips in Qwen2-VL and Qwen2.5-VL against transformers, beside pictures and alone."""

import functools

import jax
import numpy as np
import pytest
import torch

from mmunlearner_jax.models.qwen2_vl import grids
from tests.helpers import compare
from tests.helpers.compare import close
from tests.helpers.torch_qwen2_vl import END, IMAGE, START, VIDEO, Clips, positions

CASES = ["every head its own", "tied", "windows of four", "windows of nine, tied"]
some = pytest.mark.parametrize("qwen", CASES, indirect=True)
two = pytest.mark.parametrize("qwen", CASES[1:3], indirect=True)


@pytest.fixture
def clips(qwen):
    return Clips(qwen.theirs, qwen.ours, qwen.path)


@pytest.fixture
def long(qwen):
    return Clips(qwen.theirs, qwen.ours, qwen.path, long=True)


@some
def test_logits(clips, long):
    """Of clips that are longer than high and wide, transformers is given the positions."""
    compare.logits_agree(clips, "left")
    compare.logits_agree(long, "right")


@two
def test_gradients(long):
    compare.gradients_agree(long, "right", long.ours.group_pictures(long.batch("right")))


@two
def test_greedy_tokens(clips):
    compare.greedy_tokens_agree(clips)


@some
def test_features_of_a_clip_are_those_of_its_moments(qwen, clips):
    batch = clips.batch("right")
    patches, thw = batch["pixel_values_videos"], batch["video_grid_thw"]
    theirs = qwen.theirs.model.visual(torch.from_numpy(patches), torch.from_numpy(thw))
    packed = grids.pack(patches, thw, np.array([len(thw)]), 2)
    close(qwen.ours.image_features(*packed)[0, : len(patches) // 4], theirs.pooler_output)
    # A moment is a picture to the tower.
    apart = np.repeat(thw * [0, 1, 1] + [1, 0, 0], thw[:, 0], axis=0)
    alone = grids.pack(patches, apart, np.array([len(apart)]), 2)
    close(qwen.ours.image_features(*alone)[0, : len(patches) // 4], theirs.pooler_output)


@pytest.mark.parametrize("qwen", CASES[:3:2], indirect=True)
def test_positions_are_those_of_get_rope_index(qwen):
    """Of pictures and clips in any order, of any length, at any rate."""
    config = qwen.ours.config

    @functools.partial(jax.jit, static_argnames="merge")
    def index(kinds, valid, thw, seconds, merge=2):
        return grids.rope_index(kinds, valid, thw, merge, config.steps(seconds))

    rng, unlike = np.random.default_rng(0), 0
    for padding in ["left", "right"] * 10:
        rows, thw, seconds, clips = [], [], [], []
        own, times = np.zeros((3, 4, 3), int), np.zeros((3, 4), np.float32)
        for row in range(3):
            tokens = rng.integers(1, 40, rng.integers(1, 9)).tolist()
            for place in range(rng.integers(0, 4) if row else 4):
                clip = bool(rng.integers(2))
                grid = [rng.integers(1, 9) if clip else 1, *2 * rng.integers(1, 4, 2)]
                tokens += [START, *[VIDEO if clip else IMAGE] * (np.prod(grid) // 4), END]
                tokens += rng.integers(1, 40, rng.integers(0, 6)).tolist()
                own[row, place], times[row, place] = grid, rng.choice([0.1, 0.5, 2 / 3, 1, 1.7])
                (clips if clip else thw).append(grid)
                if clip:
                    seconds.append(times[row, place])
            rows.append(tokens)
        rows[-1] += [7] * (330 - len(rows[-1]))
        batch = compare.padded(rows, padding, 0)
        ids, valid = batch["input_ids"], batch["attention_mask"].astype(bool)
        batch["mm_token_type_ids"] = (ids == IMAGE) + 2 * (ids == VIDEO)
        batch |= {"image_grid_thw": np.array(thw).reshape(-1, 3)}
        batch |= {"video_grid_thw": np.array(clips).reshape(-1, 3)}
        if config.timed:
            batch["second_per_grid_ts"] = np.array(seconds, np.float32)
        given = {name: torch.from_numpy(array) for name, array in batch.items()}
        wanted, following = positions(qwen, given)
        got, ours = index((ids == IMAGE) | (ids == VIDEO), valid, own, times)
        np.testing.assert_array_equal(np.moveaxis(got, 2, 0), wanted)
        np.testing.assert_array_equal(ours, following)
        theirs = qwen.theirs.model.get_rope_index(**given)[0]
        unlike += bool((theirs != wanted).any())
    assert 0 < unlike < 20  # in others, no clip is longer than high and wide
