"""Batches of a step that run through the decoder's layers together."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from configs import orl
from mmunlearner_jax.config import typed
from mmunlearner_jax.models.packing import answer_places
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn.losses import cross_entropy, mean, score_tokens
from mmunlearner_jax.unlearn.method import ANSWERS
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.unlearn.scoring import LOG_PROBS
from mmunlearner_jax.unlearn.steps import TrainState, mean_loss, retain_step
from tests.helpers.meshes import CONFIG, initial, tiny_batch


def batches():
    """Pictures, and text with other lengths and other numbers of supervised tokens."""
    pictures = tiny_batch(0)
    text = {k: v[:, 5:] for k, v in tiny_batch(1).items() if k != "pixel_values"}
    text["input_ids"] = text["input_ids"] % 30 + 1
    text["labels"] = np.where(np.arange(7) >= 2, text["input_ids"], -100).astype(np.int32)
    made = [batch | {"answer_places": answer_places(batch["labels"])} for batch in (pictures, text)]
    rng = np.random.default_rng(2)
    for batch in made:
        shape = (*batch["answer_places"].shape, 32)
        batch[LOG_PROBS] = np.array(jax.nn.log_softmax(rng.normal(size=shape)), np.float32)
    return made


@pytest.mark.parametrize(
    ("sizes", "method", "frozen"),
    [((1, 1, 1), "mmunlearner", ()), ((1, 2, 2), "kl_min", ("vision_tower",))],
)
def test_the_gradient_is_the_sum_of_the_batches_gradients(sizes, method, frozen):
    loss = METHODS[method].retain or ANSWERS
    terms = loss.configured(typed(orl.get_config()).unlearn.of_loss(loss))
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
    graphdef, _ = abstract_model(dataclasses.replace(CONFIG, remat="full"), mesh)
    params = jax.device_put(initial(), param_shardings(initial(), mesh))
    still, moving = nnx.split_state(params, lambda path, _: path[0] in frozen, ...)
    given = [put_batch(batch, mesh) for batch in batches()]

    def apart(params, batches):
        return mean(terms(*score_tokens(graphdef, params, [batch])) for batch in batches)

    def together(params, batches):
        return mean_loss(graphdef, params, batches, terms)

    def gradient(of):
        def of_moving(moving):
            return of(nnx.merge_state(moving, still), given)

        return jax.jit(jax.value_and_grad(of_moving))(moving)

    (wanted, sums), (value, got) = map(gradient, (apart, together))
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(sums))
    assert largest > 1e-3
    for one, other in zip(*map(jax.tree.leaves, (sums, got)), strict=True):
        assert one.sharding.is_equivalent_to(other.sharding, one.ndim)
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5 * largest)


def test_layers_have_one_gradient_for_all_batches():
    """A second batch adds no gradient of the decoder's layers to what is held."""
    sizes = dict(hidden_size=64, intermediate_size=256, num_hidden_layers=8)
    config = dataclasses.replace(
        CONFIG, text=dataclasses.replace(CONFIG.text, **sizes), remat="full"
    )
    graphdef, params = abstract_model(config, None)
    sgd = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    state = TrainState(params, (jax.eval_shape(sgd.init, params),))
    size = sum(4 * p.size for p in jax.tree.leaves(params))
    pictures, text = (
        retain_step(graphdef, sgd, cross_entropy)
        .lower(state, given)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for given in (batches()[:1], batches())
    )
    assert text - pictures < 0.2 * size
