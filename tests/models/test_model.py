import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.models.llava.model import Llava, LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.squares import probe
from mmunlearner_jax.sharding import batch_sharding, make_mesh, param_shardings


def test_all_state_is_parameters_with_logical_names(make_model):
    params = nnx.split(make_model())[1]
    for path, leaf in nnx.to_flat_state(params):
        assert type(leaf) is nnx.Param
        stacked = "layers" in path
        assert len(leaf.get_metadata()["logical"]) == leaf.ndim - stacked, path


def test_pictures_in_both_conventions(make_model, batch):
    model = make_model()
    flat = batch | {"pixel_values": batch["pixel_values"][[0, 0, 1], [0, 1, 0]]}
    np.testing.assert_array_equal(model.group_pictures(flat)["pixel_values"], batch["pixel_values"])
    np.testing.assert_allclose(model(**flat), model(**batch), rtol=1e-5, atol=1e-6)


def test_examples_do_not_see_each_other_nor_padding(make_model, batch):
    model = make_model()
    logits = model(**batch)
    alone = model(**{k: v[1:2] for k, v in batch.items()})
    np.testing.assert_allclose(logits[1:2], alone, rtol=1e-5, atol=1e-6)
    short = model(batch["input_ids"][2:3, :8])
    np.testing.assert_allclose(logits[2:3, :8], short, rtol=1e-5, atol=1e-6)
    unpadded = model(batch["input_ids"][:1, 2:], None, batch["pixel_values"][:1])
    np.testing.assert_allclose(logits[:1, 2:], unpadded, rtol=1e-5, atol=1e-6)


def test_decoding_equals_the_forward_pass(make_model, batch):
    """A prompt with pictures and left padding, then tokens; one row has already ended."""
    model = make_model()
    more = np.array([[3, 4, 5], [6, 7, 8], [9, 0, 0], [1, 1, 2]])
    more_mask = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]])
    ids = np.concatenate([batch["input_ids"], more], axis=1)
    mask = np.concatenate([batch["attention_mask"], more_mask], axis=1)
    whole = model(ids, mask, batch["pixel_values"])
    logits, cache = model.decode(**batch, cache=model.init_cache(4, 20))
    parts = [logits]
    for step in range(3):
        columns = slice(step, step + 1)
        logits, cache = model.decode(more[:, columns], more_mask[:, columns], cache)
        parts.append(logits)
    got = np.concatenate(parts, axis=1)
    valid = mask.astype(bool)
    np.testing.assert_allclose(got[valid], whole[valid], rtol=1e-5, atol=1e-6)
    assert int(cache.used) == ids.shape[1]


def test_nothing_is_compiled_twice(make_model, batch, compilations):
    model, again = (make_model(remat="dots") for _ in range(2))  # no other test uses it here
    step = np.ones((4, 1), int)

    def everything(model):
        model(**batch)
        _, cache = model.decode(**batch, cache=model.init_cache(4, 20))
        for _ in range(2):
            _, cache = model.decode(step, step, cache)

    everything(model)
    assert compilations
    compilations.clear()
    everything(model)
    everything(again)  # an equal model shares the programs
    assert not compilations


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_no_gradient(make_model, remat):
    ids = np.arange(12).reshape(2, 6)

    def gradient(remat):
        graphdef, params = nnx.split(make_model(remat=remat))
        return jax.jit(jax.grad(lambda p: jnp.sum(nnx.merge(graphdef, p)(ids) ** 2)))(params)

    for a, b in zip(
        jax.tree.leaves(gradient(remat)), jax.tree.leaves(gradient("none")), strict=True
    ):
        # Relative to the largest: an entry's own terms may cancel.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


def test_remat_saves_memory(make_model):
    def saved(remat):
        graphdef, params = nnx.split(make_model(remat=remat))
        ids = np.ones((16, 64), int)
        step = jax.jit(jax.grad(lambda p: jnp.sum(nnx.merge(graphdef, p)(ids) ** 2)))
        jaxpr = str(step.trace(params).jaxpr)
        # What the forward scan hands to the backward scan: arrays with a leading layer axis.
        return len(set(re.findall(r"[a-z]+:\w+\[2,(?:16,64|1024)[^\]]*\]", jaxpr)))

    assert saved("full") < saved("dots") < saved("none")


def test_big_weights_are_not_moved():
    """No transpose, copy or conversion of a weight in the compiled forward pass."""
    config = LlavaConfig(
        vision=ClipConfig(64, 128, 3, 4, 3, 28, 14),
        text=LlamaConfig(500, 96, 160, 2, 4, 2),
        image_token_id=499,
        feature_layer=-1,
    )
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Llava(config, rngs=nnx.Rngs(0))))
    ids, pixels = jnp.ones((2, 8), int), jnp.ones((2, 1, 3, 28, 28))
    forward = jax.jit(lambda params: nnx.merge(graphdef, params)(ids, None, pixels))
    program = str(forward.lower(params).compile().as_text())
    kernels = {p.shape for p in jax.tree.leaves(params) if p.ndim > 1}
    sizes = {tuple(sorted(s[-2:])) for s in kernels} | {tuple(sorted(s)) for s in kernels}
    moved = re.findall(r"f32\[([\d,]+)\]\S* (?:transpose|copy|convert|pad)\(", program)
    shapes = [tuple(sorted(map(int, shape.split(",")))) for shape in moved]
    assert [s for s in shapes if s in sizes] == []


@pytest.mark.parametrize("squared", [False, True])
def test_devices_exchange_parameters_and_not_activations(make_model, squared):
    mesh = make_mesh((1, 8, 1))
    graphdef, params = nnx.split(make_model(mesh=mesh))
    params = jax.device_put(params, param_shardings(params, mesh))
    ids = jax.device_put(np.ones((8, 37), int), batch_sharding(mesh))

    def loss(moved):
        model = nnx.merge(graphdef, probe(params, moved, kind="batch") if squared else moved)
        return jnp.sum(model(ids) ** 2)

    program = str(jax.jit(jax.grad(loss)).lower(params).compile().as_text())
    exchanged = re.findall(r"= \(?\w+\[([\d,]*)\].* all-(?:gather|reduce)\(", program)
    assert "8,12" in exchanged  # a layer's gate projection
    assert [shape for shape in exchanged if "37" in shape.split(",")] == []


def test_parameters_give_the_dtype(make_model, batch):
    graphdef, params = nnx.split(make_model())
    half = nnx.merge(graphdef, jax.tree.map(lambda p: p.astype(jnp.bfloat16), params))
    assert half.image_features(batch["pixel_values"]).dtype == jnp.bfloat16
    assert half.init_cache(1, 1).keys.dtype == jnp.bfloat16
    logits = half(**batch)
    assert logits.dtype == jnp.float32
    valid = batch["attention_mask"].astype(bool)
    wanted = make_model()(**batch)[valid]
    np.testing.assert_allclose(logits[valid], wanted, atol=0.05 * np.max(np.abs(wanted)))


def test_compute_dtype_leaves_parameters_alone(make_model, batch):
    model = make_model(dtype="bfloat16")
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(nnx.split(model)[1]))
    assert model.image_features(batch["pixel_values"]).dtype == jnp.bfloat16
    assert model.init_cache(1, 1).keys.dtype == jnp.bfloat16
    assert model(**batch).dtype == jnp.float32


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_not_rounded(make_model, tied):
    """A bfloat16 product would leave logits with 8 bits."""
    logits = np.asarray(make_model(tied=tied, dtype="bfloat16")(np.ones((1, 4), int)))
    assert np.any(logits != logits.astype(jnp.bfloat16).astype(np.float32))


def test_pictures_must_belong_to_image_tokens(make_model, batch):
    model, pixels = make_model(), batch["pixel_values"]
    for wrong, message in (
        (None, "12 image tokens, but 0 pictures"),
        (pixels[:2, 0], "12 image tokens, but 2 pictures need 8"),
        (pixels[:, :1], "at most 4"),
        (pixels[..., :2], "must be"),
    ):
        with pytest.raises(InputError, match=message):
            model(batch["input_ids"], None, wrong)
    with pytest.raises(InputError, match="split between two rows"):
        model.group_pictures({"input_ids": np.full((2, 6), 29), "pixel_values": pixels[:3, 0]})


def test_config_returns_from_its_own_json(make_model):
    for changes in ({}, {"feature_layer": 1, "feature_select": "full", "projector_bias": False}):
        config = make_model(**changes).config
        again = LLAVA.read_config(LLAVA.to_hf(config))
        text = dataclasses.replace(config.text, head_dim=2)  # written out
        assert again == dataclasses.replace(config, text=text)


def test_config_of_the_published_checkpoint():
    """`llava-hf/llava-1.5-7b-hf`, as far as it matters: most is left to defaults."""
    hub = {
        "model_type": "llava",
        "image_token_index": 32000,
        "projector_hidden_act": "gelu",
        "text_config": {
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "pad_token_id": 32001,
            "rms_norm_eps": 1e-05,
            "vocab_size": 32064,
        },
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    assert LLAVA.read_config(hub) == LlavaConfig.llava_1_5_7b()
    assert LlavaConfig.llava_1_5_7b().tokens_per_image == 576


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"model_type": "llava_next"}, "model_type"),
        ({"text_config": {"model_type": "gemma"}}, "text_config.model_type"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "vision_config.model_type"),
        ({"text_config": {"rope_scaling": {"type": "linear", "factor": 2.0}}}, "rope_type"),
        ({"text_config": {"rope_parameters": {"rope_type": "llama3"}}}, "rope_type"),
        ({"text_config": {"hidden_act": "swish"}}, "text_config.hidden_act"),
        ({"text_config": {"num_key_value_heads": 5}}, "num_key_value_heads"),
        ({"vision_config": {"hidden_act": "swish"}}, "vision_config.hidden_act"),
        ({"vision_config": {"num_attention_heads": 7}}, "num_attention_heads"),
        ({"vision_config": {"image_size": [336, 224]}}, "vision_config.image_size"),
        ({"vision_feature_layer": [-2, -5]}, "vision_feature_layer"),
        ({"vision_feature_layer": -99}, "vision_feature_layer"),
        ({"vision_feature_select_strategy": "mean"}, "vision_feature_select_strategy"),
        ({"projector_hidden_act": "tanh"}, "projector_hidden_act"),
    ],
)
def test_unsupported_configs(wrong, field):
    with pytest.raises(InputError, match=re.escape(field)) as error:
        LLAVA.read_config({"model_type": "llava"} | wrong)
    assert "\n" not in str(error.value)
