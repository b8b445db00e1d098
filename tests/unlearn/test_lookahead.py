"""The gradient after fine-tuning against a loop in torch, and the step that takes it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from mmunlearner_jax.models.packing import answer_places
from mmunlearner_jax.unlearn.lookahead import Ahead, gradient_ahead
from mmunlearner_jax.unlearn.steps import TrainState, forget_step, mean_loss, retain_step
from mmunlearner_jax.unlearn.transforms import masked_ascent
from tests.helpers.models import filled
from tests.helpers.tokens import CONFIG, IDS, LABELS

STEPS, RATE = 3, 0.05


def test_it_is_torchs_gradient_after_steps_of_adam():
    rng = np.random.default_rng(0)
    w, x, y, forgotten = (
        rng.normal(size=shape).astype(np.float32) for shape in ((4,), (6, 4), (6,), (5, 4))
    )

    def gradient(value):
        return lambda params, batches, frozen: jax.value_and_grad(value)(params, *batches)

    def learned(w, batch):
        return jnp.sum((batch[0] @ w - batch[1]) ** 2)  # its gradient is clipped

    def forget(w, batch):
        return jnp.mean(jnp.tanh(batch @ w) ** 2)

    ahead = gradient_ahead(gradient(forget), gradient(learned), Ahead(STEPS, RATE))
    value, got = jax.jit(ahead)(jnp.asarray(w), [forgotten, (x, y)], None)

    theirs = torch.tensor(w, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=RATE)
    for _ in range(STEPS):
        adam.zero_grad()
        ((torch.tensor(x) @ theirs - torch.tensor(y)) ** 2).sum().backward()
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        adam.step()
    adam.zero_grad()
    wanted = (torch.tanh(torch.tensor(forgotten) @ theirs) ** 2).mean()
    wanted.backward()
    np.testing.assert_allclose(value, wanted.item(), rtol=1e-5)
    np.testing.assert_allclose(got, theirs.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_a_forget_step_moves_the_model_by_the_gradient_of_the_copy():
    graphdef, params = nnx.split(filled(CONFIG))
    forget = {"input_ids": IDS, "labels": LABELS, "answer_places": answer_places(LABELS)}
    shown = {**forget, "input_ids": (IDS + 5) % 15}
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(RATE))
    learn, copy = retain_step(graphdef, adam), TrainState.create(_copied(params), adam)
    for _ in range(STEPS):
        copy, _ = learn(copy, [shown])
    value = jax.jit(jax.value_and_grad(lambda p: mean_loss(graphdef, p, [forget])))
    wanted, grads = value(copy.params)

    sgd = optax.sgd(0.1)
    mask = jax.tree.map(lambda p: jnp.arange(p.size).reshape(p.shape) % 2 == 0, params)
    step = forget_step(graphdef, masked_ascent(sgd), ahead=Ahead(STEPS, RATE))
    state, loss = step(TrainState.create(_copied(params), sgd), [forget, shown], mask)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    for old, grad, chosen, new in zip(
        *map(jax.tree.leaves, (params, grads, mask, state.params)), strict=True
    ):
        np.testing.assert_allclose(new, old + 0.1 * grad * chosen, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(new[~chosen], old[~chosen])


def _copied(params):
    return jax.tree.map(jnp.copy, params)
