"""The anchor of retain steps against NumPy, and the step that it is part of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy.special import log_softmax

from mmunlearner_jax.models.packing import answer_places
from mmunlearner_jax.unlearn.anchors import ANCHORS
from mmunlearner_jax.unlearn.anchors.picture_features import feature_distance
from mmunlearner_jax.unlearn.losses import OF_TOKENS, cross_entropy
from mmunlearner_jax.unlearn.scoring import LOG_PROBS
from mmunlearner_jax.unlearn.steps import TrainState, anchored_step, mean_loss
from mmunlearner_jax.weights.io import leaf_labels
from tests.helpers.models import filled
from tests.helpers.questions import PICTURES, llava, qwen2_vl, whole
from tests.helpers.tokens import CONFIG, IDS, LABELS


@pytest.fixture(params=[llava, qwen2_vl], ids=["llava", "qwen2_vl"], scope="module")
def made(request):
    model, encoder = request.param()
    graphdef, vanilla = nnx.split(model)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(vanilla))))
    moved = jax.tree.map(lambda p: p + 0.02 * jax.random.normal(next(keys), p.shape), vanilla)
    return model, graphdef, vanilla, moved, whole(PICTURES, encoder, 1)


def test_distance_of_features(made):
    model, graphdef, vanilla, moved, batch = made
    pictures = {k: batch[k] for k in ("pixel_values", "image_grid_thw") if k in batch}
    seen = batch["input_ids"] == model.config.image_token_id
    ours, theirs = (
        np.concatenate(
            [
                features.reshape(-1, features.shape[-1])[: np.sum(row)]
                for features, row in zip(
                    np.asarray(nnx.merge(graphdef, p).image_features(**pictures), np.float64),
                    seen,
                    strict=True,
                )
            ]
        )
        for p in (moved, vanilla)
    )
    spread = np.sum((theirs - theirs.mean(0)) ** 2)
    got = feature_distance((graphdef, moved), (graphdef, vanilla), batch)
    np.testing.assert_allclose(got, np.sum((ours - theirs) ** 2) / spread, rtol=1e-4)
    assert feature_distance((graphdef, vanilla), (graphdef, vanilla), batch) == 0


def test_it_pulls_vision_and_projector_alone(made):
    model, graphdef, vanilla, moved, batch = made
    grads = jax.grad(lambda p: feature_distance((graphdef, p), (graphdef, vanilla), batch))(moved)
    groups = leaf_labels(model)[1]
    norms: dict[str, float] = {}
    for group, grad in zip(jax.tree.leaves(groups), jax.tree.leaves(grads), strict=True):
        norms[group] = norms.get(group, 0.0) + float(jnp.sum(grad**2))
    assert norms.pop("language") == 0
    assert {*norms} == {*ANCHORS["picture_features"].holds} and min(norms.values()) > 0


def test_an_anchored_step_lowers_both(made):
    _, graphdef, vanilla, moved, batch = made
    sgd, weight = optax.sgd(0.1), 3.0
    step = anchored_step(
        graphdef, sgd, cross_entropy, ANCHORS["picture_features"], weight, graphdef
    )

    def value(params):
        away = feature_distance((graphdef, params), (graphdef, vanilla), batch)
        return mean_loss(graphdef, params, [batch]) + weight * away

    wanted, grads = jax.value_and_grad(value)(moved)
    state = TrainState.create(jax.tree.map(jnp.copy, moved), sgd)
    state, loss = step(state, [batch], nnx.State({}), vanilla)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    for old, grad, new in zip(*map(jax.tree.leaves, (moved, grads, state.params)), strict=True):
        np.testing.assert_allclose(new, old - 0.1 * grad, rtol=1e-4, atol=1e-6)


def test_anchors_on_the_models_own_answers_compare_the_last_batch_alone():
    """KL of it, or its cross-entropy, in NumPy; the cross-entropy of the first batch is added."""
    graphdef, vanilla = nnx.split(filled(CONFIG))
    moved = jax.tree.map(lambda p: 1.1 * p, vanilla)
    batch = {"input_ids": IDS, "labels": LABELS, "answer_places": answer_places(LABELS)}
    own = {**batch, "input_ids": (IDS + 5) % 15}
    own[LOG_PROBS] = OF_TOKENS.ask(graphdef, vanilla, own)
    before, after = (
        log_softmax(np.asarray(nnx.merge(graphdef, p)(own["input_ids"]), np.float64), axis=-1)
        for p in (vanilla, moved)
    )
    rows, places = np.nonzero(LABELS[:, 1:] != -100)
    p, q = before[rows, places], after[rows, places]
    said = q[np.arange(len(rows)), LABELS[rows, places + 1]]
    sgd, weight = optax.sgd(0.1), 2.0
    for name, wanted in (
        ("own_words", (np.exp(p) * (p - q)).sum(-1).mean()),
        ("old_answers", -said.mean()),
    ):
        anchor = ANCHORS[name]
        got = anchor.distance((graphdef, moved), (graphdef, nnx.State({})), own)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        step = anchored_step(graphdef, sgd, cross_entropy, anchor, weight, graphdef)
        state = TrainState.create(jax.tree.map(jnp.copy, moved), sgd)
        _, loss = step(state, [batch, own], nnx.State({}), nnx.State({}))
        alone = mean_loss(graphdef, moved, [batch])
        np.testing.assert_allclose(loss, alone + weight * wanted, rtol=1e-5)
