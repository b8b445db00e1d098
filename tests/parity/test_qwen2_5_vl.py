"""Windows of Qwen2.5-VL against transformers; test_qwen2_vl.py compares the rest of the model."""

import functools

import jax
import numpy as np
import pytest
import torch

from mmunlearner_jax.models.qwen2_5_vl.windows import reorder, window_order
from mmunlearner_jax.models.qwen2_vl import grids
from mmunlearner_jax.models.qwen2_vl.vision import vision_rope
from tests.helpers.compare import close, layer_of
from tests.helpers.torch_qwen2_vl import torch_windows

# Pictures that fill their windows, that do not, and that are smaller than one; 2 and 3 tokens; and
# a clip.
LARGE = np.array([[1, 12, 12], [1, 10, 14], [1, 2, 2], [1, 2, 18], [3, 6, 10], [1, 8, 8]])
pytestmark = pytest.mark.parametrize(
    "qwen", ["windows of four", "windows of nine, tied"], indirect=True
)


def order_of(qwen, thw, length):
    """Token at every place, place of every token, window at every place."""
    side = qwen.ours.config.vision.window_side
    order = jax.jit(functools.partial(window_order, length=length, merge=2, side=side))
    return [np.asarray(x[0]) for x in order(thw[None])]


def test_window_index_and_its_inverse(qwen):
    rng = np.random.default_rng(0)
    for _ in range(10):
        thw = np.c_[rng.integers(1, 4, 4), 2 * rng.integers(1, 9, (4, 2))]
        index, ends = torch_windows(qwen, thw)
        order, place, window = order_of(qwen, thw, 770)
        np.testing.assert_array_equal(order[: len(index)], index)
        np.testing.assert_array_equal(place[: len(index)], torch.argsort(index))
        np.testing.assert_array_equal(order[len(index) :], np.arange(len(index), 770))
        starts = 1 + np.flatnonzero(np.diff(window[: len(index)]))
        np.testing.assert_array_equal(4 * starts, ends[1:-1])
        assert (window[: len(index)] > 0).all() and not window[len(index) :].any()


def test_tower_with_many_windows(qwen):
    """Windows that end within a chunk, at its edge and in the next one; padding at the end."""
    patches = qwen.patches(LARGE)
    theirs = qwen.theirs.model.visual(torch.from_numpy(patches), torch.from_numpy(LARGE))
    count = len(patches)
    for budget in (count, 640):  # the first is no multiple of a window
        row = grids.pack(patches, LARGE, np.array([len(LARGE)]), 2, (budget,))
        close(qwen.ours.image_features(*row)[0, : count // 4], theirs.pooler_output)


@pytest.mark.parametrize("index", [0, 1])
def test_layers_with_windows_and_without(qwen, index):
    vision, tower = qwen.ours.config.vision, qwen.theirs.model.visual
    whole = index in vision.fullatt_block_indexes
    count = LARGE.prod(axis=1).sum()
    x = np.random.default_rng(1).normal(size=(count, vision.features)).astype(np.float32)
    order, _, window = order_of(qwen, LARGE, count // 4)
    pictures, places = grids.patch_places(LARGE[None], count, 2)
    places = reorder(places, order[None])
    rest = vision_rope(places, vision.head_size), pictures, window.repeat(4)[None], whole
    ours = layer_of(qwen.ours.visual.layers, index)(x[None], *rest)[0]
    ends = torch.tensor([0, *np.cumsum(np.repeat(LARGE[:, 1:].prod(axis=1), LARGE[:, 0]))])
    turned = tower.rotary_pos_emb(torch.from_numpy(x), torch.from_numpy(np.array(places[0])))
    theirs = tower.blocks[index](
        torch.from_numpy(x),
        cu_seqlens=ends if whole else torch_windows(qwen, LARGE)[1],
        position_embeddings=turned,
    )
    close(ours, theirs)
