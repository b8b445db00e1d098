"""Scores against NumPy, on the logits that the model itself gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax

from mmunlearner_jax.models.packing import answer_places
from mmunlearner_jax.unlearn import scoring
from tests.helpers.models import filled
from tests.helpers.tokens import CONFIG, IDS, LABELS


@pytest.fixture(scope="module")
def model():
    return filled(CONFIG)


@pytest.fixture(params=["at all tokens", "at answers"])
def places(request):
    """What a batch has besides its tokens and labels."""
    return {"answer_places": answer_places(LABELS)} if request.param == "at answers" else {}


def test_answer_nll_shifts_and_ignores(model, places):
    log_probs = log_softmax(np.asarray(model(IDS), np.float64), axis=-1)
    batch = {"input_ids": IDS, "labels": LABELS, **places}
    nll, count = scoring.answer_nll(*nnx.split(model), batch)
    expected = [
        -sum(log_probs[b, t - 1, y] for t, y in enumerate(row) if t and y != -100)
        for b, row in enumerate(LABELS)
    ]
    np.testing.assert_allclose(nll, expected, rtol=1e-4)
    assert count.tolist() == [2, 4, 0]


def test_exact_answers_are_what_greedy_decoding_would_give(model, places):
    said = np.asarray(jnp.argmax(model(IDS), axis=-1))
    labels = np.where(LABELS == -100, -100, np.roll(said, 1, axis=1))
    batch = {"input_ids": IDS, "labels": labels, **places}
    assert [int(n) for n in scoring.exact_answers(*nnx.split(model), batch)] == [2, 2]
    labels[1, 3] = (labels[1, 3] + 1) % 15
    assert [int(n) for n in scoring.exact_answers(*nnx.split(model), batch)] == [1, 2]


def test_probabilities_are_geometric_means_over_an_answers_tokens(model, places):
    nll, count = scoring.answer_nll(*nnx.split(model), {"input_ids": IDS, "labels": LABELS})
    wanted = np.exp(
        -np.asarray(nll[:2], np.float64) / count[:2]
    ).sum()  # the last row has no answer
    batch = {"input_ids": IDS, "labels": LABELS, **places}
    total, answers = scoring.answer_probabilities(*nnx.split(model), batch)
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    assert answers == 2


def test_means():
    nll, count = jnp.array([6.0, 4.0, 0.0]), jnp.array([2, 4, 0])
    assert scoring.token_mean(nll, count) == 10 / 6
    assert scoring.example_mean(nll, count).tolist() == [3.0, 1.0, 0.0]


def test_nothing_is_computed_at_other_tokens(model):
    """The head's product has as many rows as there are answer tokens."""
    graphdef, params = nnx.split(model)
    batch = {"input_ids": IDS, "labels": LABELS, "answer_places": answer_places(LABELS, 4)}
    text = str(jax.make_jaxpr(lambda p: scoring.answer_nll(graphdef, p, batch))(params))
    assert "f32[3,4,16]" in text and "f32[3,5,16]" not in text
