"""Who sees whom in a packed row, where its tokens stand, and where its answers are."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmunlearner_jax.models.packing import IGNORE, answer_places, ranks, targets, visible

# A prefix of 2 and segments of 2, 1 and 3 tokens, then padding.
SEGMENTS = jnp.array([[0, 0, 1, 1, 2, 3, 3, 3, 0, 0]])
VALID = jnp.array([[1] * 8 + [0] * 2], bool)


def test_a_token_sees_the_prefix_and_what_is_before_it_in_its_segment():
    seen = np.asarray(visible(VALID, SEGMENTS))[0]
    for t in range(8):
        own = [s for s in range(t + 1) if SEGMENTS[0, s] in (0, SEGMENTS[0, t])]
        assert np.flatnonzero(seen[t]).tolist() == own


@pytest.mark.parametrize("window", [1, 2, 3, 4, 8])
def test_a_window_ends_in_the_prefix(window):
    """It counts the prefix and the token's own segment, and no other segment."""
    seen = np.asarray(visible(VALID, SEGMENTS, window))[0]
    for t in range(8):
        own = [s for s in range(t + 1) if SEGMENTS[0, s] in (0, SEGMENTS[0, t])]
        assert np.flatnonzero(seen[t]).tolist() == own[-window:]


@pytest.mark.parametrize("padded", [0, 3])
def test_without_segments_it_sees_all_before_it(padded):
    valid = np.arange(6)[None] >= padded
    seen = np.asarray(visible(jnp.asarray(valid), None))[0]
    np.testing.assert_array_equal(seen, np.tril(np.ones((6, 6), bool)) & valid)
    near = np.asarray(visible(jnp.asarray(valid), None, 2))[0]
    np.testing.assert_array_equal(near, seen & np.triu(np.ones((6, 6), bool), -1))


def test_every_segment_is_counted_from_0():
    assert ranks(VALID, SEGMENTS)[0, :8].tolist() == [0, 1, 0, 1, 0, 0, 1, 2]
    text = jnp.array([[1, 1, 1, 2, 2, 3]])
    assert ranks(jnp.ones_like(text, bool), text)[0].tolist() == [0, 1, 2, 0, 1, 0]


def test_answers_are_predicted_one_token_before():
    labels = np.array([[7, IGNORE, 4, 5, IGNORE, 6], [IGNORE] * 6])
    places = answer_places(labels)
    assert places.tolist() == [[1, 2, 4, 5], [5] * 4]  # a power of two; 5 predicts nothing
    assert targets(jnp.asarray(labels), jnp.asarray(places)).tolist() == [
        [4, 5, 6, IGNORE],
        [IGNORE] * 4,
    ]
    assert answer_places(labels, 3).shape == (2, 3)
    assert targets(jnp.asarray(labels), None)[0].tolist() == [IGNORE, 4, 5, IGNORE, 6, IGNORE]
