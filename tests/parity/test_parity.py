"""Ours against `transformers.LlavaForConditionalGeneration`, from modules to greedy decoding."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from transformers import LlavaForConditionalGeneration

from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.models.llava.hf import TABLE
from mmunlearner_jax.models.llava.model import Llava, LlavaConfig
from mmunlearner_jax.models.rope import rope
from tests.helpers import compare
from tests.helpers.compare import close, layer_of


def test_embeddings(case):
    ids, pixels = case.batch("right")["input_ids"], case.batch("right")["pixel_values"]
    tower = case.theirs.model.vision_tower
    close(
        case.ours.language_model.embed_tokens(ids),
        case.theirs.model.language_model.embed_tokens(torch.from_numpy(ids)),
    )
    theirs = tower.embeddings(torch.from_numpy(pixels))
    if hasattr(tower, "pre_layrnorm"):
        theirs = tower.pre_layrnorm(theirs)
    close(case.ours.vision_tower.embeddings(pixels), theirs)


def test_vision_layer(case):
    x = np.random.default_rng(1).normal(size=(2, 10, 32)).astype(np.float32)
    ours, theirs = case.ours.vision_tower, case.theirs.model.vision_tower.encoder
    is_dinov2 = hasattr(theirs, "layer")
    (ours, theirs) = (ours.blocks, theirs.layer) if is_dinov2 else (ours.layers, theirs.layers)
    close(layer_of(ours, 1)(x[None])[0], theirs[1](torch.from_numpy(x), None))


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
    angles = rope(jnp.asarray(positions), text.head_size, text.rope_theta)
    x_torch, bias = torch.from_numpy(x), torch.full((7, 7), -torch.inf).triu(1)[None, None]
    turned = theirs.rotary_emb(x_torch, torch.from_numpy(positions))
    close(
        layer_of(case.ours.language_model.layers, 1)(x, angles, jnp.ones((2, 7), bool)),
        theirs.layers[1](x_torch, attention_mask=bias, position_embeddings=turned),
    )


def test_logits(case, padding):
    compare.logits_agree(case, padding)


def test_hidden_states(case):
    compare.hidden_states_agree(case, "left")


def test_logits_of_text_alone(case):
    compare.logits_of_text_agree(case)


def test_gradients(case, padding):
    compare.gradients_agree(case, padding, case.batch(padding))


def test_greedy_tokens(case):
    compare.greedy_tokens_agree(case)


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_published_sizes(size):
    """Names and shapes of the whole model, without a weight on either side."""
    config = getattr(LlavaConfig, f"llava_1_5_{size}")()
    with torch.device("meta"):
        theirs = LlavaForConditionalGeneration(transformers.LlavaConfig(**LLAVA.to_hf(config)))
    params = nnx.split(nnx.eval_shape(lambda: Llava(config, rngs=nnx.Rngs(0))))[1]
    ours = {name: e.shape for e in TABLE.entries(params) for name in e.names}
    assert ours == {name: tuple(p.shape) for name, p in theirs.named_parameters()}
