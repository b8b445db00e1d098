"""Ours against `transformers.LlavaForConditionalGeneration`, from modules to greedy decoding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from flax import nnx
from transformers import LlavaForConditionalGeneration

from mmunlearner_jax.models import llama
from mmunlearner_jax.models.llava import Llava, LlavaConfig
from mmunlearner_jax.weights.io import to_hf_names
from mmunlearner_jax.weights.llava import TABLE

IGNORE = -100


def close(ours, theirs, tolerance=1e-5):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=tolerance, atol=tolerance)


def layer_of(layers: nnx.Module, index: int) -> nnx.Module:
    graphdef, params = nnx.split(layers)
    return nnx.merge(graphdef, jax.tree.map(lambda p: p[index], params))


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.grad, argnums=1)
def gradients(graphdef, params, batch, labels):
    logits, targets = nnx.merge(graphdef, params)(**batch)[:, :-1], labels[:, 1:]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(targets, 0))
    return jnp.mean(loss, where=targets != IGNORE)


@pytest.fixture(params=["left", "right"])
def padding(request) -> str:
    return request.param


def test_embeddings(case):
    ids, pixels = case.batch("right")["input_ids"], case.batch("right")["pixel_values"]
    tower = case.theirs.model.vision_tower
    close(
        case.ours.language_model.embed_tokens(ids),
        case.theirs.model.language_model.embed_tokens(torch.from_numpy(ids)),
    )
    close(
        case.ours.vision_tower.embeddings(pixels),
        tower.pre_layrnorm(tower.embeddings(torch.from_numpy(pixels))),
    )


def test_vision_layer(case):
    x = np.random.default_rng(1).normal(size=(2, 10, 32)).astype(np.float32)
    theirs = case.theirs.model.vision_tower.encoder.layers[1](torch.from_numpy(x), None)
    close(layer_of(case.ours.vision_tower.layers, 1)(x[None])[0], theirs)


def test_vision_features(case):
    config, pixels = case.ours.config, case.batch("right")["pixel_values"]
    theirs = case.theirs.model.vision_tower(torch.from_numpy(pixels), output_hidden_states=True)
    close(case.ours.vision_tower(pixels[None])[0], theirs.hidden_states[config.feature_layer])


def test_projected_features(case):
    pixels = case.batch("right")["pixel_values"]
    theirs = case.theirs.get_image_features(torch.from_numpy(pixels)).pooler_output
    close(case.ours.image_features(pixels[None])[0], torch.stack(theirs))


def test_projector(case):
    x = np.random.default_rng(1).normal(size=(2, 10, 32)).astype(np.float32)
    close(
        case.ours.multi_modal_projector(x),
        case.theirs.model.multi_modal_projector(torch.from_numpy(x)),
    )


def test_decoder_layer(case):
    text, theirs = case.ours.config.text, case.theirs.model.language_model
    x = np.random.default_rng(1).normal(size=(2, 7, 32)).astype(np.float32)
    positions = np.arange(7)[None].repeat(2, 0)
    angles = llama.rope(jnp.asarray(positions), text.head_size, text.rope_theta)
    x_torch, bias = torch.from_numpy(x), torch.full((7, 7), -torch.inf).triu(1)[None, None]
    turned = theirs.rotary_emb(x_torch, torch.from_numpy(positions))
    close(
        layer_of(case.ours.language_model.layers, 1)(x, angles, jnp.ones((2, 7), bool)),
        theirs.layers[1](x_torch, attention_mask=bias, position_embeddings=turned),
    )


def test_logits(case, padding):
    batch, valid = case.batch(padding), case.batch(padding)["attention_mask"].astype(bool)
    with torch.no_grad():
        theirs = case.theirs(**case.torch_batch(padding)).logits
    close(case.ours(**batch)[valid], theirs[valid], 1e-4)
    close(case.ours(**case.ours.group_pictures(batch))[valid], theirs[valid], 1e-4)


def test_logits_of_text_alone(case):
    ids = np.arange(1, 15).reshape(2, 7)
    with torch.no_grad():
        theirs = case.theirs(input_ids=torch.from_numpy(ids)).logits
    close(case.ours(ids), theirs, 1e-4)


def test_gradients(case, padding):
    batch = case.batch(padding)
    # The first token has nothing before it but padding, whose outputs mean nothing.
    supervised = np.cumsum(batch["attention_mask"], axis=1) > 1
    labels = np.where(supervised & (batch["attention_mask"] == 1), batch["input_ids"], IGNORE)
    case.theirs.zero_grad()
    case.theirs(**case.torch_batch(padding), labels=torch.from_numpy(labels)).loss.backward()
    ours = to_hf_names(case.ours, gradients(*nnx.split(case.ours), batch, labels))
    theirs = dict(case.theirs.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, parameter in theirs.items():
        # Layers behind the features get no gradient at all in torch.
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        np.testing.assert_allclose(ours[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_greedy_tokens(case):
    steps, batch = 8, case.batch("left")
    inputs = case.torch_batch("left")
    del inputs["position_ids"]
    start = inputs["input_ids"].shape[1]
    with torch.no_grad():
        theirs = case.theirs.generate(**inputs, max_new_tokens=steps, do_sample=False)[:, start:]
    cache = case.ours.init_cache(len(theirs), start + steps)
    logits, cache = case.ours.decode(**batch, cache=cache)
    tokens = [jnp.argmax(logits[:, -1], axis=-1)]
    for _ in range(steps - 1):
        logits, cache = case.ours.decode(tokens[-1][:, None], None, cache)
        tokens.append(jnp.argmax(logits[:, -1], axis=-1))
    np.testing.assert_array_equal(np.stack(tokens, axis=1), theirs)


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_published_sizes(size):
    """Names and shapes of the whole model, without a weight on either side."""
    config = getattr(LlavaConfig, f"llava_1_5_{size}")()
    with torch.device("meta"):
        theirs = LlavaForConditionalGeneration(transformers.LlavaConfig(**config.to_hf()))
    params = nnx.split(nnx.eval_shape(lambda: Llava(config, rngs=nnx.Rngs(0))))[1]
    ours = {name: e.shape for e in TABLE.entries(params) for name in e.names}
    assert ours == {name: tuple(p.shape) for name, p in theirs.named_parameters()}
