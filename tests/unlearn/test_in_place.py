"""Gradients that are added in place are those of all batches together."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from configs import orl
from mmunlearner_jax.config import typed
from mmunlearner_jax.config.checks import check_config
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.packing import answer_places
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn.losses import cross_entropy
from mmunlearner_jax.unlearn.method import ANSWERS
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.unlearn.scoring import LOG_PROBS
from mmunlearner_jax.unlearn.steps import TrainState, in_place_step, retain_step
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
def test_a_step_is_the_step_of_all_batches_together(sizes, method, frozen):
    loss = METHODS[method].retain or ANSWERS
    options = typed(orl.get_config()).unlearn.of_loss(loss)
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
    config = dataclasses.replace(CONFIG, remat="full")
    graphdef, _ = abstract_model(config, mesh)
    params = jax.device_put(initial(), param_shardings(initial(), mesh))
    still, moving = nnx.split_state(params, lambda path, _: path[0] in frozen, ...)
    sgd = optax.sgd(0.1)
    given = [put_batch(batch, mesh) for batch in batches()]
    ends, values = [], []
    for make in (retain_step, in_place_step):
        step = make(graphdef, sgd, loss.configured(options))
        state = TrainState.create(jax.tree.map(jax.numpy.copy, moving), sgd)
        state, value = step(state, given, still)
        ends.append(state.params)
        values.append(float(value))
    np.testing.assert_allclose(*values, rtol=1e-6)
    largest = max(
        np.abs(a - b).max()
        for a, b in zip(jax.tree.leaves(ends[0]), jax.tree.leaves(moving), strict=True)
    )
    assert largest > 1e-3
    for one, other in zip(*map(jax.tree.leaves, ends), strict=True):
        assert one.sharding.is_equivalent_to(other.sharding, one.ndim)
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5 * largest)


def test_one_gradient_is_held():
    """The temporaries lack a tree of gradients."""
    config = dataclasses.replace(
        CONFIG,
        text=dataclasses.replace(
            CONFIG.text, hidden_size=64, intermediate_size=256, num_hidden_layers=8
        ),
        remat="full",
    )
    graphdef, params = abstract_model(config, None)
    sgd = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    state = TrainState(params, (jax.eval_shape(sgd.init, params),))
    size = sum(4 * p.size for p in jax.tree.leaves(params))
    taken = []
    for make in (retain_step, in_place_step):
        step = make(graphdef, sgd, cross_entropy)
        compiled = step.lower(state, batches()).compile()
        taken.append(compiled.memory_analysis().temp_size_in_bytes)
    assert taken[0] - taken[1] > 0.6 * size  # text has no gradient of the vision tower


def test_where_it_is_refused():
    config = orl.get_config()
    config.unlearn.gradients = "in_place"
    check_config(typed(config), jax.devices()[:1])
    config.unlearn.lora.rank = 2
    with pytest.raises(InputError, match="config.unlearn.gradients is 'in_place': give 'at_once'"):
        check_config(typed(config), jax.devices()[:1])
