"""Qwen2-VL and Qwen2.5-VL against transformers, from modules to greedy decoding.

What only Qwen2.5-VL has is in `test_qwen2_5_vl.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

import mmunlearner_jax as mmu
from mmunlearner_jax.models.qwen2_5_vl import QWEN2_5_VL
from mmunlearner_jax.models.qwen2_vl import QWEN2_VL, grids
from mmunlearner_jax.models.qwen2_vl.hf import TABLE
from mmunlearner_jax.models.qwen2_vl.vision import vision_rope
from mmunlearner_jax.models.rope import rope
from mmunlearner_jax.models.vision_language import abstract_model
from tests.helpers import compare
from tests.helpers.compare import close, close_by_name, layer_of, torch_gradients
from tests.helpers.torch_qwen2_vl import CASES, END, GRIDS, IMAGE, START, torch_windows

PATCHES = [24, 4, 12]  # of GRIDS


@pytest.fixture
def packed(qwen) -> tuple[np.ndarray, np.ndarray]:
    """All pictures as one example's: 40 patches in a row of 64."""
    return grids.pack(qwen.patches(GRIDS), GRIDS, np.array([3]), merge=2)


def features(qwen, count: int) -> np.ndarray:
    size = qwen.ours.config.vision.features
    return np.random.default_rng(1).normal(size=(count, size)).astype(np.float32)


def test_embeddings(qwen, packed):
    ids = qwen.batch("right")["input_ids"]
    close(
        qwen.ours.language_model.embed_tokens(ids),
        qwen.theirs.model.language_model.embed_tokens(torch.from_numpy(ids)),
    )
    ours = qwen.ours.visual.patch_embedding(packed[0])[0, : sum(PATCHES)]
    close(ours, qwen.theirs.model.visual.patch_embed(torch.from_numpy(qwen.patches(GRIDS))))


@pytest.mark.parametrize("qwen", CASES, indirect=True)
def test_vision_layer(qwen, packed):
    """Two dimensions turn, and no picture sees another nor the padding."""
    tower, head_size = qwen.theirs.model.visual, qwen.ours.config.vision.head_size
    x = features(qwen, packed[0].shape[1])
    pictures, places = grids.patch_places(packed[1], len(x), 2)
    ours = layer_of(qwen.ours.visual.layers, 1)(x[None], vision_rope(places, head_size), pictures)
    real = torch.from_numpy(x[: sum(PATCHES)])
    where = torch.from_numpy(np.array(places[0, : sum(PATCHES)]))
    theirs = tower.blocks[1](
        real,
        cu_seqlens=torch.tensor([0, *np.cumsum(PATCHES)]),
        position_embeddings=tower.rotary_pos_emb(real, where),
    )
    close(ours[0, : sum(PATCHES)], theirs)


def test_vision_features(qwen, packed):
    patches, thw = torch.from_numpy(qwen.patches(GRIDS)), torch.from_numpy(GRIDS)
    theirs = qwen.theirs.model.visual(patches, grid_thw=thw)
    last = theirs.last_hidden_state
    if hasattr(qwen.ours.config.vision, "window_size"):  # then in the order of windows
        back = torch.argsort(torch_windows(qwen, GRIDS)[0])
        last = last.reshape(len(back), -1)[back].reshape(last.shape)
    close(qwen.ours.visual(*packed)[0, : sum(PATCHES)], last)
    ours = qwen.ours.image_features(*packed)[0, : sum(PATCHES) // 4]
    close(ours, theirs.pooler_output)


def test_merger(qwen):
    x = features(qwen, 24)
    close(qwen.ours.merger(x[None])[0], qwen.theirs.model.visual.merger(torch.from_numpy(x)))


def test_decoder_layer(qwen):
    text, theirs = qwen.ours.config.text, qwen.theirs.model.language_model
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 7, text.hidden_size)).astype(np.float32)
    positions = rng.integers(0, 20, (2, 7, 3))
    angles = rope(jnp.asarray(positions), text.head_size, text.rope_theta, text.sections)
    x_torch, bias = torch.from_numpy(x), torch.full((7, 7), -torch.inf).triu(1)[None, None]
    turned = theirs.rotary_emb(x_torch, torch.from_numpy(np.moveaxis(positions, 2, 0).copy()))
    close(
        layer_of(qwen.ours.language_model.layers, 1)(x, angles, jnp.ones((2, 7), bool)),
        theirs.layers[1](x_torch, attention_mask=bias, position_embeddings=turned),
    )


@pytest.mark.parametrize("qwen", ["every head its own", "windows of four"], indirect=True)
def test_positions_are_those_of_get_rope_index(qwen):
    index = jax.jit(functools.partial(grids.rope_index, merge=2))
    rng = np.random.default_rng(0)
    for padding in ["left", "right"] * 10:
        rows, thw, counts = [], [], rng.integers(0, 4, 3)
        counts[0] = 3  # the shape of the grids stays, and with it the program
        for count in counts:
            row = rng.integers(1, 40, rng.integers(1, 9)).tolist()
            for grid in np.c_[np.ones(count, int), 2 * rng.integers(1, 5, (count, 2))]:
                row += [START, *[IMAGE] * (grid.prod() // 4), END]
                row += rng.integers(1, 40, rng.integers(0, 6)).tolist()
                thw.append(grid)
            rows.append(row)
        rows.append([7] * 100)
        batch = compare.padded(rows, padding, 0)
        wanted, deltas = qwen.theirs.model.get_rope_index(
            **qwen.torch_inputs(batch | {"image_grid_thw": np.array(thw)})
        )
        patches = np.zeros((np.prod(thw, axis=1).sum(), 1))
        _, own = grids.pack(patches, np.array(thw), np.array([*counts, 0]), 2)
        valid = batch["attention_mask"].astype(bool)
        got, following = index(batch["input_ids"] == IMAGE, valid, own)
        np.testing.assert_array_equal(np.moveaxis(got, 2, 0), wanted)
        np.testing.assert_array_equal(following, deltas[:, 0].numpy() + valid.sum(axis=1))


def test_logits(qwen, padding):
    compare.logits_agree(qwen, padding)


def test_hidden_states(qwen):
    compare.hidden_states_agree(qwen, "left")


def test_logits_of_text_alone(qwen):
    compare.logits_of_text_agree(qwen)


def test_gradients(qwen, padding):
    compare.gradients_agree(qwen, padding, qwen.ours.group_pictures(qwen.batch(padding)))


def test_greedy_tokens(qwen):
    compare.greedy_tokens_agree(qwen)


@pytest.mark.parametrize(
    "qwen", ["tied", "seven heads share", "windows of nine, tied"], indirect=True
)
def test_importance_per_example(qwen):
    batch = compare.with_answers(qwen.batch("right"))
    split = np.cumsum([24 + 4, 12])[:2]
    patches = np.split(batch["pixel_values"], split)
    thw = np.split(batch["image_grid_thw"], [2, 3])
    squares = []
    for row in range(3):
        one = {k: batch[k][row : row + 1] for k in ("input_ids", "attention_mask", "labels")}
        if len(thw[row]):
            one |= dict(pixel_values=patches[row], image_grid_thw=thw[row])
        squares.append({k: g**2 for k, g in torch_gradients(qwen, one).items()})
    expected = {k: np.mean([s[k] for s in squares], axis=0) for k in squares[0]}
    got = mmu.importance(qwen.ours, [batch], fisher="example")
    close_by_name(mmu.to_hf_names(qwen.ours, got), expected)


@pytest.mark.parametrize(
    ("record", "size"),
    [(record, size) for record in (QWEN2_VL, QWEN2_5_VL) for size in record.sizes],
)
def test_published_sizes(record, size):
    """Names and shapes of the whole model, without a weight on either side."""
    config = record.sizes[size]()
    kind = getattr(transformers, config.architecture)
    with torch.device("meta"):
        theirs = kind(kind.config_class(**record.to_hf(config)))
    _, params = abstract_model(config, None)
    ours = {name: e.shape for e in TABLE.entries(params) for name in e.names}
    assert ours == {name: tuple(p.shape) for name, p in theirs.named_parameters()}
