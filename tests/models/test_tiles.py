"""LLaVA-NeXT in the pipeline: squares, features of a frozen tower, shapes, and random changes."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx
from PIL import Image

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.pipeline import Jitter
from mmunlearner_jax.data.processors import load_processor
from mmunlearner_jax.models.llava_next import tiles
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.weights.io import save_pretrained
from tests.helpers.per_example import in_one_pass, losses
from tests.helpers.photographs import photo
from tests.helpers.questions import PHOTOS, PICTURES, assert_close, llava_next, whole

# One for every grid of tiles: wide, tall and square.
OF_EVERY_GRID = [photo(*size) for size in ((32, 64), (64, 32), (64, 64), (30, 110), (110, 30))]


@pytest.fixture(scope="module")
def made():
    return llava_next()


@pytest.fixture(scope="module")
def batch(made):
    given = whole(PICTURES, made[1], 1)
    return {k: v for k, v in given.items() if k not in ("labels", "answer_places")}


def test_squares_are_those_of_single_examples(made, batch):
    graphdef, params = nnx.split(made[0])

    @jax.jit
    def one_by_one(params):
        def squared(example):
            example = jax.tree.map(lambda x: x[None], example)
            gradients = jax.grad(lambda p: losses(graphdef, p, example)[0])(params)
            return jax.tree.map(jnp.square, gradients)

        return jax.tree.map(lambda s: jnp.sum(s, 0), jax.lax.map(squared, batch))

    with jax.default_matmul_precision("highest"):
        wanted, (_, got) = one_by_one(params), in_one_pass(graphdef, params, batch)
    assert_close(got, wanted, 1e-4)
    assert np.all(np.asarray(got["image_newline"]["embedding"][...]) > 0)


def test_features_of_a_frozen_tower_give_the_same_logits(made, batch, tmp_path):
    model, encoder = made
    features = Features(tmp_path, model, encoder, make_mesh((1, 1, 1), jax.devices()[:1]))
    features.add(PHOTOS)
    rows = [PHOTOS[:2], PHOTOS[1:]]
    tokens = [sum(map(encoder.image_tokens, row)) for row in rows]
    ids = np.full((2, max(tokens) + 1), 5)
    for row, count in zip(ids, tokens, strict=True):
        row[:count] = model.config.image_token_id
    inputs = nnx.jit(lambda model, pictures: model.decoder_inputs(ids, **pictures))
    seen, again = (inputs(model, x.pack(rows, 0)) for x in (encoder, features))
    np.testing.assert_allclose(seen, again, rtol=1e-5, atol=1e-6)
    assert np.ptp(seen, axis=1).min() > 0


def test_pictures_of_all_sizes_have_one_shape(made):
    model, encoder = made
    shapes, layouts = set(), []
    for image in OF_EVERY_GRID:
        packed = encoder.pack([[image]], encoder.image_tokens(image))
        shapes.add(tuple(sorted((name, x.shape) for name, x in packed.items())))
        layouts.append(packed["image_sizes"][0, 0])
        wanted = tiles.tokens(layouts[-1], model.config.side)
        assert encoder.image_tokens(image) == wanted <= model.config.image_tokens(0)
    assert len({tuple(layout[:2]) for layout in layouts}) == 5
    (shape,) = shapes
    planned = model.config.picture_arrays(0)
    assert dict(shape) == {name: (1, *x.shape) for name, x in planned.items()}


def test_tiles_are_those_of_the_processor(made):
    _, encoder = made
    for image in OF_EVERY_GRID:
        picture = Image.open(io.BytesIO(image)).convert("RGB")
        wanted = encoder.processor(text="<image>", images=picture, return_tensors="np")
        packed = encoder.pack([[image]], 0)["pixel_values"][0, 0]
        count = len(wanted["pixel_values"][0])
        np.testing.assert_array_equal(packed[:count], wanted["pixel_values"][0])
        assert not packed[count:].any()


def test_a_random_change_is_alike_in_both_sizes(made):
    picture, _ = made[1].image(PHOTOS[0])
    changed = Jitter(shift=0, gain=0.5, offset=0.5, noise=0).of_picture(picture, 3)
    assert changed.size == picture.size
    (base, larger), (was, before) = ((x.base, x.larger) for x in (changed, picture))
    gain = np.std(base) / np.std(was)
    assert abs(gain - 1) > 1e-2
    np.testing.assert_allclose(larger - gain * before, (base - gain * was).mean(), atol=1e-5)


def test_the_saved_checkpoint_is_read_with_its_processor(made, tmp_path):
    model, encoder = made
    save_pretrained(model, tmp_path / "saved", processor=encoder.processor)
    again = Encoder(*load_processor(model.config, str(tmp_path / "saved")))
    for sample in PICTURES[:2]:
        ours, theirs = again.encode(sample), encoder.encode(sample)
        np.testing.assert_array_equal(ours["input_ids"], theirs["input_ids"])
        np.testing.assert_array_equal(ours["picture"].larger, theirs["picture"].larger)
    prompt = encoder.prompt("Who is this?", 1)
    picture = Image.open(io.BytesIO(PHOTOS[0])).convert("RGB")
    automatic = transformers.AutoProcessor.from_pretrained(tmp_path / "saved")
    wanted = automatic(text=prompt, images=picture, return_tensors="np")
    assert wanted["input_ids"][0].tolist() == again.prompt_ids(prompt, PHOTOS[:1])
    packed = again.pack([PHOTOS[:1]], 0)["pixel_values"][0, 0]
    (cut,) = wanted["pixel_values"]
    np.testing.assert_array_equal(packed[: len(cut)], cut)
