"""With features in place of pixels everything is the same, and each picture is seen once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmunlearner_jax.data import features as module
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.pipeline import Batches, Jitter
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_vl.inputs import AnySize
from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor
from mmunlearner_jax.models.vision_language import Asked, abstract_model
from mmunlearner_jax.sharding import make_mesh, param_shardings
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.steps import mean_loss
from mmunlearner_jax.weights.io import in_groups
from tests.helpers.questions import (
    PHOTOS,
    PICTURES,
    assert_close,
    llava,
    qwen2_5_vl,
    qwen2_vl,
    together,
    whole,
)

ONE = make_mesh((1, 1, 1), jax.devices()[:1])


@pytest.fixture(params=[llava, qwen2_vl, qwen2_5_vl], ids=lambda make: make.__name__)
def made(request):
    return request.param()


@pytest.fixture
def seen(monkeypatch):
    """Grows by the number of pictures that a tower sees."""
    counts = []
    compute = Features._seen

    def counted(self, together, bar):
        counts.append(len(together))
        return compute(self, together, bar)

    monkeypatch.setattr(Features, "_seen", counted)
    return counts


def test_losses_gradients_and_importances_are_the_same(made, tmp_path):
    model, encoder = made
    features = Features(tmp_path, model, encoder, ONE)
    with jax.default_matmul_precision("highest"):
        features.add(PHOTOS)
    kinds = [together(PICTURES, encoder, 3, features=given) for given in (None, features)]
    (pixels,), (given,) = kinds
    assert "pixel_values" not in given
    assert given.keys() - {"vision_features"} == pixels.keys() - {"pixel_values"}
    graphdef, params = nnx.split(model)
    still = in_groups(model.config.model_type, ("vision",))
    frozen, moving = nnx.split_state(params, still, ...)

    @jax.jit
    def value_and_grad(batch):
        def loss(moving):
            return mean_loss(graphdef, nnx.merge_state(moving, frozen), [batch])

        return jax.value_and_grad(loss)(moving)

    add = accumulator(graphdef, fisher="example", sizes=kinds[0].sizes)
    with jax.default_matmul_precision("highest"):
        for run in (value_and_grad, lambda b: add(FisherSums.zeros(moving), moving, b, frozen)):
            assert_close(run(given), run(pixels))


def test_a_picture_is_what_it_is_alone(made, tmp_path):
    model, encoder = made
    together, alone = (Features(tmp_path / name, model, encoder, ONE) for name in ("a", "b"))
    together.add(PHOTOS)
    for photo in PHOTOS:
        alone.add([photo])
        np.testing.assert_array_equal(alone[photo], together[photo])


def test_nothing_is_seen_twice(made, tmp_path, seen):
    model, encoder = made
    features = Features(tmp_path, model, encoder, ONE)
    features.add([*PHOTOS[:2], *PHOTOS[:2]])
    assert sum(seen) == 2
    features.add(PHOTOS)
    assert sum(seen) == 3
    # The next stage; from the files, too.
    for room in (0, 2**30):
        again = Features(tmp_path, model, encoder, ONE, in_memory=room)
        again.add(PHOTOS)
        assert sum(seen) == 3
        for photo in PHOTOS:
            np.testing.assert_array_equal(again[photo], features[photo])
        (read,), (kept,) = (
            together(PICTURES, encoder, 1, features=given) for given in (again, features)
        )
        for name, array in read.items():
            np.testing.assert_array_equal(array, kept[name])


def test_files_are_written_on_the_way(made, tmp_path, seen, monkeypatch):
    monkeypatch.setattr(module, "FILE", 1)
    model, encoder = made
    features = Features(tmp_path, model, encoder, ONE)
    photos = [*PHOTOS[:2], b"no picture"]
    with pytest.raises(InputError, match="cannot be decoded"):
        features.add(photos)
    again = Features(tmp_path, model, encoder, ONE)
    again.add(PHOTOS)
    assert sum(seen) == 3


def test_other_weights_processing_or_computation_are_other_features(tmp_path, seen):
    model, encoder = qwen2_vl()
    Features(tmp_path, model, encoder, ONE).add(PHOTOS)
    assert sum(seen) == len(PHOTOS)
    # Other weights of the language model are no matter.
    model.language_model.norm.scale.set_value(2 * model.language_model.norm.scale.get_value())
    Features(tmp_path, model, encoder, ONE).add(PHOTOS)
    assert sum(seen) == len(PHOTOS)
    processor = build_chatml_processor(PICTURES, max_pixels=56 * 56)
    smaller = Encoder(processor, AnySize(processor.image_processor))
    Features(tmp_path, model, smaller, ONE).add(PHOTOS)
    assert sum(seen) == 2 * len(PHOTOS)
    graphdef, params = nnx.split(model)
    config = dataclasses.replace(model.config, dtype="bfloat16")
    half = nnx.merge(abstract_model(config, None)[0], params)
    features = Features(tmp_path, half, encoder, ONE)
    features.add(PHOTOS)
    assert sum(seen) == 3 * len(PHOTOS)
    assert features[PHOTOS[0]].dtype == jnp.bfloat16
    kernel = model.visual.layers.fc1.kernel
    kernel.set_value(kernel.get_value().at[0, 0, 0].add(1))
    Features(tmp_path, model, encoder, ONE).add(PHOTOS)
    assert sum(seen) == 4 * len(PHOTOS)


def test_a_mesh_gives_what_one_device_gives(made, tmp_path):
    model, encoder = made
    alone = Features(tmp_path / "one", model, encoder, ONE)
    alone.add(PHOTOS)
    mesh = make_mesh((2, 2, 2))
    params = nnx.split(model)[1]
    params = jax.device_put(params, param_shardings(params, mesh))
    split = nnx.merge(abstract_model(model.config, mesh)[0], params)
    features = Features(tmp_path / "many", split, encoder, mesh)
    features.add(PHOTOS)
    for photo in PHOTOS:
        np.testing.assert_allclose(features[photo], alone[photo], rtol=1e-4, atol=1e-5)


def test_what_is_augmented_is_not_kept(made, tmp_path):
    model, encoder = made
    features = Features(tmp_path, model, encoder, ONE)
    with pytest.raises(InputError, match="augment changes each picture"):
        Batches(PICTURES, encoder, batch_size=2, seed=0, augment=Jitter(), features=features)


def test_features_of_another_shape(made):
    model, encoder = made
    given = {
        k: v for k, v in whole(PICTURES, encoder, 1).items() if k in ("input_ids", "image_grid_thw")
    }
    wrong = jnp.zeros((len(given["input_ids"]), 1, 4, 3))
    with pytest.raises(InputError, match="vision_features"):
        model.score(
            lambda logits, targets: targets, Asked({**given, "vision_features": wrong}, wrong)
        )
