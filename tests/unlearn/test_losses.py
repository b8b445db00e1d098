"""Losses against NumPy."""

import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from mmunlearner_jax.unlearn import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 5, 7)).astype(np.float32)
LABELS = np.array([[-100, -100, 4, 2, -100], [1, 0, 3, 5, 6], [-100] * 5])


def test_answer_nll_shifts_and_ignores():
    nll, count = losses.answer_nll(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    log_probs = log_softmax(LOGITS.astype(np.float64), axis=-1)
    expected = [
        -sum(log_probs[b, t - 1, y] for t, y in enumerate(row) if t and y != -100)
        for b, row in enumerate(LABELS)
    ]
    np.testing.assert_allclose(nll, expected, rtol=1e-5)
    assert count.tolist() == [2, 4, 0]


def test_means():
    nll, count = jnp.array([6.0, 4.0, 0.0]), jnp.array([2, 4, 0])
    assert losses.token_mean(nll, count) == 10 / 6
    assert losses.example_mean(nll, count).tolist() == [3.0, 1.0, 0.0]


def test_exact_answers_are_what_greedy_decoding_would_give():
    right = np.zeros((3, 5, 7), np.float32)
    for b, row in enumerate(LABELS):
        for t, y in enumerate(row):
            if t and y != -100:
                right[b, t - 1, y] = 9
    assert losses.exact_answers(jnp.asarray(right), jnp.asarray(LABELS)).tolist() == [1, 1, 0]
    right[1, 2] = 0
    assert losses.exact_answers(jnp.asarray(right), jnp.asarray(LABELS)).tolist() == [1, 0, 0]
