"""What Qwen2-VL and Qwen2.5-VL do with pictures and clips; `tests/parity` has their parity."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_5_vl import QWEN2_5_VL
from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5Config, Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_5_vl.vision import WindowedConfig
from mmunlearner_jax.models.qwen2_vl import QWEN2_VL
from mmunlearner_jax.models.qwen2_vl.model import Qwen2Config, Qwen2VLConfig
from mmunlearner_jax.models.qwen2_vl.vision import Qwen2VisionConfig
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from tests.helpers.models import filled
from tests.helpers.per_example import in_one_pass

IMAGE, VIDEO, START, END = 26, 27, 28, 29
PATCH = 3 * 2 * 2 * 2

CONFIG = Qwen2VLConfig(
    vision=Qwen2VisionConfig(
        depth=2, embed_dim=16, hidden_size=16, num_heads=2, mlp_ratio=2, patch_size=2
    ),
    text=Qwen2Config(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        mrope_section=(1, 1, 0),
    ),
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    vision_start_token_id=START,
    vision_end_token_id=END,
)
WINDOWED = Qwen2_5VLConfig(
    vision=WindowedConfig(
        depth=3,
        hidden_size=16,
        out_hidden_size=16,
        intermediate_size=12,
        num_heads=2,
        patch_size=2,
        window_size=12,
        fullatt_block_indexes=(1,),
    ),
    text=Qwen2_5Config(**dataclasses.asdict(CONFIG.text)),
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    vision_start_token_id=START,
    vision_end_token_id=END,
)


def as_processed(rows, *, padding="left", length=None, seed=0):
    """What a processor would give for rows of tokens.

    A picture is written as its (height, width), a clip as its (moments, height, width).
    """
    tokens, grids, clips = [], [], []
    for row in rows:
        tokens.append([])
        for part in row:
            if isinstance(part, tuple):
                kind, shown = (IMAGE, grids) if len(part) == 2 else (VIDEO, clips)
                shown.append((1, *part)[-3:])
                tokens[-1] += [START, *[kind] * (np.prod(part) // 4), END]
            else:
                tokens[-1].append(part)
    length = length or max(map(len, tokens))
    ids = np.zeros((len(rows), length), int)
    mask = np.zeros_like(ids)
    for row, own in enumerate(tokens):
        where = slice(length - len(own), None) if padding == "left" else slice(len(own))
        ids[row, where], mask[row, where] = own, 1
    batch = dict(input_ids=ids, attention_mask=mask)
    rng = np.random.default_rng(seed)
    for shown, names in (
        (grids, ("pixel_values", "image_grid_thw")),
        (clips, ("pixel_values_videos", "video_grid_thw")),
    ):
        if shown:
            thw = np.array(shown)
            patches = rng.normal(size=(thw.prod(axis=1).sum(), PATCH)).astype(np.float32)
            batch |= dict(zip(names, (patches, thw), strict=True))
    return batch


ROWS = [
    [3, (4, 6), 5, (2, 2), 7],
    [4, 8, (2, 8), 16, 23, 2],
    [1, 2, 3, 5, 8, 13],
    [(4, 4), 9, 6],
]


@pytest.fixture(params=[CONFIG, WINDOWED], ids=lambda config: config.model_type)
def config(request):
    return request.param


@pytest.fixture
def model(config):
    return filled(config)


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_all_state_is_parameters_with_logical_names(model):
    for path, leaf in nnx.to_flat_state(nnx.split(model)[1]):
        assert type(leaf) is nnx.Param
        assert len(leaf.get_metadata()["logical"]) == leaf.ndim - ("layers" in path), path


def test_pictures_are_packed_by_example(model):
    batch = as_processed(ROWS) | {"mm_token_type_ids": None}
    grouped = model.group_pictures(batch)
    patches, grids = batch["pixel_values"], grouped["image_grid_thw"]
    assert grouped["pixel_values"].shape == (4, 32, PATCH)  # 28 are needed
    assert grids.tolist() == [
        [[1, 4, 6], [1, 2, 2]],
        [[1, 2, 8], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0]],
        [[1, 4, 4], [0, 0, 0]],
    ]
    for row, (start, end) in enumerate([(0, 28), (28, 44), (44, 44), (44, 60)]):
        own = grouped["pixel_values"][row]
        np.testing.assert_array_equal(own[: end - start], patches[start:end])
        assert not own[end - start :].any()
    assert "mm_token_type_ids" not in grouped
    assert model.group_pictures(grouped).keys() == grouped.keys()
    assert model.group_pictures(batch, (48, 36, 28))["pixel_values"].shape[1] == 28
    text = as_processed([[1, 2, 3]])
    assert model.group_pictures(text).keys() == text.keys()


CLIPS = [
    [3, (2, 2, 4), 5, (2, 2), 7],
    [4, (2, 8), 6, (3, 2, 2), 16],
    [1, 2, 3, 5],
]


def test_pictures_and_clips_are_packed_in_the_order_of_their_tokens(model):
    batch = as_processed(CLIPS) | {"second_per_grid_ts": [0.5, 2]}
    grouped = model.group_pictures(batch)
    assert grouped["image_grid_thw"].tolist() == [
        [[2, 2, 4], [1, 2, 2]],
        [[1, 2, 8], [3, 2, 2]],
        [[0, 0, 0], [0, 0, 0]],
    ]
    pictures, clips = batch["pixel_values"], batch["pixel_values_videos"]
    own = grouped["pixel_values"]
    np.testing.assert_array_equal(own[0, :20], np.concatenate([clips[:16], pictures[:4]]))
    np.testing.assert_array_equal(own[1, :28], np.concatenate([pictures[4:], clips[16:]]))
    assert not own[0, 20:].any() and not own[1, 28:].any() and not own[2].any()
    if model.config.timed:
        assert grouped["second_per_grid_ts"].tolist() == [[0.5, 1], [1, 2], [0, 0]]
    assert not {"pixel_values_videos", "video_grid_thw"} & grouped.keys()
    again = model.group_pictures(grouped)
    assert all(np.array_equal(again[name], array) for name, array in grouped.items())
    close(model(**grouped), model(**batch))


def test_a_clip_that_is_longer_than_high_and_wide(model):
    """Its decoding equals the forward pass, whatever follows."""
    whole = as_processed([[3, (4, 2, 2), 5, 9, 6], [(2, 2, 4), (5, 2, 2), 8]])
    valid = whole["attention_mask"].astype(bool)
    wanted = model(**whole)[valid]
    first = as_processed([[3, (4, 2, 2)], [(2, 2, 4), (5, 2, 2)]])
    cache = model.init_cache(2, 30)
    parts = []
    for batch in (first, as_processed([[5, 9, 6], [8]])):
        logits, cache = model.decode(**batch, cache=cache)
        parts.append([logits[row][batch["attention_mask"][row] == 1] for row in range(2)])
    got = np.concatenate([np.concatenate(both) for both in zip(*parts, strict=True)])
    close(got, wanted)
    each = model.config.steps(None)  # positions of a moment
    assert cache.position.tolist() == [3 + 3 * each + 4, 2 + each + 1 + 2 + 4 * each + 1 + 1]


def test_examples_do_not_see_each_other_nor_padding(model):
    logits = model(**as_processed(ROWS))
    valid = as_processed(ROWS)["attention_mask"].astype(bool)
    right = as_processed(ROWS, padding="right", length=25)
    budget = model.group_pictures(right, (64,))
    moved = model(**budget)[right["attention_mask"].astype(bool)]
    close(moved, logits[valid])
    alone = as_processed(ROWS[:1])
    close(model(**alone)[0], logits[0][valid[0]])


def test_decoding_equals_the_forward_pass(model):
    """A text, then pictures, then a token at a time; positions go on from call to call."""
    whole = as_processed(ROWS)
    wanted = model(**whole)[whole["attention_mask"].astype(bool)]
    first = as_processed([[3], [4, 8], [1], []], length=2)
    second = as_processed([ROWS[0][1:], ROWS[1][2:], [2, 3, 5, 8, 13], ROWS[3]])
    cache = model.init_cache(4, 40)
    parts = []
    for batch in (first, second):
        logits, cache = model.decode(**batch, cache=cache)
        parts.append([logits[row][batch["attention_mask"][row] == 1] for row in range(4)])
    got = np.concatenate([np.concatenate(both) for both in zip(*parts, strict=True)])
    close(got, wanted)
    assert cache.position.tolist() == [11, 11, 6, 6]

    longer = as_processed([[*row, 9, 6] for row in ROWS])
    wanted = model(**longer)[:, -2:]
    for step, token in enumerate((9, 6)):
        logits, cache = model.decode(jnp.full((4, 1), token), None, cache)
        close(logits[:, 0], wanted[:, step])


def test_a_picture_that_is_shared(model):
    beginnings = [[3, (2, 8)], [(4, 4)]]
    asked = [(0, [5, 7]), (0, [8, 2]), (1, [9]), (1, [4, 6, 2])]
    _, before = model.decode(**as_processed(beginnings), cache=model.init_cache(2, 20))
    cache = model.init_cache(4, 5, before)
    got, cache = model.decode(**as_processed([text for _, text in asked]), cache=cache, last=True)
    assert got.shape[1] == 1 and cache.position.tolist() == [9, 9, 5, 7]
    patches = as_processed(beginnings)["pixel_values"].reshape(2, 16, PATCH)
    whole = as_processed([beginnings[at] + text for at, text in asked])
    whole["pixel_values"] = patches[[at for at, _ in asked]].reshape(-1, PATCH)
    close(got[:, -1], model(**whole)[:, -1])


def test_a_budget_is_compiled_once(config, compilations):
    model = filled(dataclasses.replace(config, remat="full"))  # no other test uses it here
    graphdef, params = nnx.split(model)
    step = jax.jit(jax.grad(lambda params, batch: jnp.sum(nnx.merge(graphdef, params)(**batch))))
    sizes = [[(4, 6), (2, 2)], [(2, 2, 2), (2, 2)], [(8, 4)], [(2, 2, 8)], [(6, 4)]]
    counts = []
    for number, (one, two) in enumerate(zip(sizes, sizes[::-1], strict=True)):
        rows = [[3, *one, 5], [4, *two[:1], 7]]
        batch = as_processed(rows, length=20, seed=number)
        # Two pictures at most, wherever they are.
        batch = model.group_pictures(
            as_processed([*rows, [1, (2, 2), (2, 2, 2)]], length=20), (32, 64)
        )
        compilations.clear()
        step(params, batch)
        counts.append(len(compilations))
    assert counts[0] > 0
    assert counts[1:] == [0] * 4


def test_sharded_squares_are_those_of_one_device(config, model):
    batch = model.group_pictures(as_processed(ROWS))
    _, wanted = in_one_pass(*nnx.split(model), batch)
    mesh = make_mesh((2, 2, 2))
    graphdef, params = nnx.split(filled(config, mesh))
    params = jax.device_put(params, param_shardings(params, mesh))
    _, got = in_one_pass(graphdef, params, put_batch(batch, mesh))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def exchanged(config, sizes, what):
    """The shapes of what devices exchange for a gradient; a row has 37 tokens and 44 patches."""
    mesh = make_mesh(sizes, jax.devices()[: np.prod(sizes)])
    model = filled(config, mesh)
    graphdef, params = nnx.split(model)
    params = jax.device_put(params, param_shardings(params, mesh))
    rows = as_processed([[(4, 6), 3]] * 8, length=37)
    batch = put_batch(model.group_pictures(rows, (44,)), mesh)
    loss = jax.jit(jax.grad(lambda params: jnp.sum(nnx.merge(graphdef, params)(**batch) ** 2)))
    program = str(loss.lower(params).compile().as_text())
    return re.findall(rf"= \(?\w+\[([\d,]*)\].* all-(?:{what})\(", program)


# Axes of tokens and patches, and of the chunks that windows are cut into: 2 x 36 patches.
LENGTHS = {"37", "44", "11", "72", "36", "108"}


def test_devices_exchange_parameters_and_not_activations(config):
    shapes = exchanged(config, (1, 8, 1), "gather|reduce")
    assert {"16,3,2,8", "16,12"} <= set(shapes)  # of a vision and of a text layer
    assert [shape for shape in shapes if LENGTHS & set(shape.split(","))] == []


def test_heads_are_not_gathered(config):
    shapes = exchanged(config, (1, 2, 2), "gather")
    assert [shape for shape in shapes if {"44", "72", "108"} & set(shape.split(","))] == []


@pytest.mark.parametrize("by", ["parameters", "computation"])
def test_dtypes(config, model, by):
    batch = as_processed(ROWS)
    valid, wanted = batch["attention_mask"].astype(bool), model(**batch)
    if by == "parameters":
        graphdef, params = nnx.split(model)
        model = nnx.merge(graphdef, jax.tree.map(lambda p: p.astype(jnp.bfloat16), params))
    else:
        model = filled(dataclasses.replace(config, dtype="bfloat16"))
    grouped = model.group_pictures(batch)
    features = model.image_features(grouped["pixel_values"], grouped["image_grid_thw"])
    assert features.dtype == model.init_cache(1, 1).keys.dtype == jnp.bfloat16
    logits = model(**batch)
    assert logits.dtype == jnp.float32
    largest = np.max(np.abs(wanted[valid]))
    np.testing.assert_allclose(logits[valid], wanted[valid], atol=0.05 * largest)


def changed(name, change):
    batch = as_processed(ROWS)
    return batch | {name: change(batch[name])}


def swapped(grids):
    return grids[[1, 0, 2, 3]]


def of_video(ids):
    return np.where(ids == IMAGE, VIDEO, ids)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (as_processed(ROWS) | {"pixel_values": None}, "pixel_values and image_grid_thw: shapes"),
        (changed("pixel_values", lambda p: p[:, 1:]), "must be [patches, 24]"),
        (changed("pixel_values", lambda p: p[4:]), "there are 56 patches, but the grids have 60"),
        (changed("image_grid_thw", lambda g: g[1:]), "4 runs of image tokens, but there are 3"),
        (
            changed("image_grid_thw", swapped),
            "row 0 has 6 image tokens for picture 0",
        ),
        (
            changed("image_grid_thw", lambda g: g * [2, 1, 1]),
            "row 0 has 6 image tokens for picture 0, which needs 12",
        ),
        (
            changed("image_grid_thw", lambda g: g + [0, 0, 1]),
            "4 x 7 patches",
        ),
        (changed("input_ids", of_video), "hold 0 runs of image tokens, but there are 4 in pixel"),
        (
            as_processed(CLIPS) | {"video_grid_thw": None, "pixel_values_videos": None},
            "hold 2 runs of video tokens, but there are 0 in pixel_values_videos",
        ),
        (as_processed(CLIPS) | {"video_grid_thw": np.array([[2, 2, 4]] * 2)}, "the grids have 32"),
        (
            as_processed(CLIPS) | {"second_per_grid_ts": [1.0]},
            "second_per_grid_ts: 1 numbers for 2 clips",
        ),
        (changed("input_ids", lambda i: np.where(i == IMAGE, 5, i)), "hold 0 runs of image tokens"),
        (as_processed([[3, IMAGE, 4]]), "hold 1 runs of image tokens, but there are 0 pictures"),
    ],
)
def test_pictures_must_belong_to_image_tokens(model, batch, message):
    for call in (model, lambda **b: model.group_pictures(b)):
        with pytest.raises(InputError, match=re.escape(message)) as error:
            call(**batch)
        assert "\n" not in str(error.value)


def test_pictures_of_another_row(model):
    grouped = model.group_pictures(as_processed([[(2, 2), 5], [(2, 2), 6], [7, (2, 2), (2, 2)]]))
    grids = grouped["image_grid_thw"].copy()
    grids[0, 1], grids[1, 0] = grids[1, 0], 0
    with pytest.raises(InputError, match="row 1 has 1 image tokens for picture 1, .* in row 0"):
        model(**grouped | {"image_grid_thw": grids})


def test_above_the_budget(model):
    batch = as_processed(ROWS)
    with pytest.raises(InputError, match="row 0 have 28 patches, above the budget of 24") as error:
        model.group_pictures(batch, (8, 24))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="30 patches is not a multiple of 4"):
        model.group_pictures(batch, (30,))


def test_under_jit_pictures_are_grouped(model):
    graphdef, params = nnx.split(model)
    with pytest.raises(InputError, match=re.escape("(under jit always) [examples, patches, 24]")):
        jax.jit(lambda batch: nnx.merge(graphdef, params)(**batch))(as_processed(ROWS))


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("vision", {"num_heads": 3}, "embed_dim=16"),
        ("vision", {"patch_size": [2, 2]}, "vision_config.patch_size must be one number"),
        ("vision", {"hidden_act": "swish"}, "vision_config.hidden_act"),
        ("text", {"mrope_section": (1, 1, 1)}, "mrope_section=[1, 1, 1]"),
        ("text", {"num_key_value_heads": 3}, "num_key_value_heads=3"),
        ("windowed", {"window_size": 6}, "window_size=6 must be a multiple of the 4 pixels"),
        ("windowed", {"hidden_size": 12}, "vision_config.hidden_size=12 must be a multiple"),
    ],
)
def test_unsupported_configs(part, fields, message):
    config = WINDOWED.vision if part == "windowed" else getattr(CONFIG, part)
    with pytest.raises(InputError, match=re.escape(message)):
        dataclasses.replace(config, **fields)


# What the published config.json files have in common.
PUBLISHED = {
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
}


def test_config_of_the_published_checkpoint():
    """`Qwen/Qwen2-VL-2B-Instruct`, whose text part stands at the top."""
    hub = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        **PUBLISHED,
        "hidden_size": 1536,
        "initializer_range": 0.02,
        "intermediate_size": 8960,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "model_type": "qwen2_vl",
        "num_attention_heads": 12,
        "num_hidden_layers": 28,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": 32,
            "embed_dim": 1280,
            "mlp_ratio": 4,
            "num_heads": 16,
            "in_chans": 3,
            "hidden_size": 1536,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": 151936,
    }
    assert QWEN2_VL.read_config(hub) == Qwen2VLConfig.qwen2_vl_2b()


def test_config_of_the_published_successor():
    """`Qwen/Qwen2.5-VL-7B-Instruct`, as transformers 4.49 wrote it."""
    hub = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        **PUBLISHED,
        "hidden_size": 3584,
        "initializer_range": 0.02,
        "intermediate_size": 18944,
        "max_position_embeddings": 128000,
        "max_window_layers": 28,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": 32,
            "hidden_act": "silu",
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "in_chans": 3,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vocab_size": 152064,
    }
    assert QWEN2_5_VL.read_config(hub) == Qwen2_5VLConfig.qwen2_5_vl_7b()


def test_published_numbers_of_parameters():
    """As the hub says: 2.21, 8.29 and 73.4 billion; of Qwen2.5-VL 3.75 and 8.29."""

    def billions(config):
        params = nnx.split(nnx.eval_shape(lambda: config.make(rngs=nnx.Rngs(0))))[1]
        return round(sum(p.size for p in jax.tree.leaves(params)) / 1e9, 2)

    sizes = [make for record in (QWEN2_VL, QWEN2_5_VL) for make in record.sizes.values()]
    assert [billions(make()) for make in sizes] == [2.21, 8.29, 73.41, 3.75, 8.29]
