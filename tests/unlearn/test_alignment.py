"""The alignment loss against loops in NumPy, and which weights it moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmunlearner_jax.models.packing import IGNORE
from mmunlearner_jax.models.vision_language import abstract_model
from mmunlearner_jax.unlearn.alignment import (
    alignment_loss,
    contrast_loss,
    distinct,
    pool,
    regression,
)
from tests.helpers.meshes import CONFIG, IMAGE, initial, tiny_batch

RNG = np.random.default_rng(0)
B, T, D = 3, 9, 4
SEEN = np.zeros((B, T), bool)
SEEN[:, 1:6] = True
CAPTION = np.zeros((B, T), bool)
CAPTION[0, 6:8] = CAPTION[1, 6:9] = CAPTION[2, 7:8] = True


def arrays():
    return (RNG.normal(size=(B, T, D)).astype(np.float32) for _ in range(2))


def test_image_tokens_take_the_captions_tokens_in_turn():
    features, words = arrays()
    errors = squares = 0.0
    for b in range(B):
        targets = words[b, CAPTION[b]]
        for rank, feature in enumerate(features[b, SEEN[b]]):
            target = targets[rank % len(targets)]
            errors += np.sum((feature - target) ** 2)
            squares += np.sum(target**2)
    np.testing.assert_allclose(
        regression(features, words, SEEN, CAPTION), errors / squares, rtol=1e-5
    )


def test_a_picture_is_to_find_all_examples_of_its_caption():
    pictures, captions = (RNG.normal(size=(4, D)) for _ in range(2))
    captions[2] = captions[0]  # two renderings of one flag
    same = np.array([[np.array_equal(a, b) for b in captions] for a in captions])
    centre = captions.mean(0)
    nats = []
    for one, other in ((pictures, captions), (captions, pictures)):
        for i in range(4):
            u = one[i] - centre
            cosines = [
                u @ v / np.linalg.norm(u) / np.linalg.norm(v) for v in (x - centre for x in other)
            ]
            scores = 20.0 * np.array(cosines)
            log_softmax = scores - np.log(np.sum(np.exp(scores)))
            nats.append(-np.mean(log_softmax[same[i]]))
    np.testing.assert_allclose(
        contrast_loss(jnp.asarray(pictures), jnp.asarray(captions), jnp.asarray(same), 20.0),
        np.mean(nats),
        rtol=1e-4,
    )


def test_pooling_is_a_mean_over_chosen_tokens():
    (features, _) = arrays()
    wanted = [features[b, CAPTION[b]].mean(0) for b in range(B)]
    np.testing.assert_allclose(pool(features, CAPTION), wanted, rtol=1e-5)


def test_words_that_most_captions_have_are_left_out():
    texts = ["", "this is france", "this is south africa", "is this", "this africa is"]
    words = {word: number for number, word in enumerate(sorted(set(" ".join(texts).split())), 1)}
    tokens = [[words[word] for word in text.split()] for text in texts[1:]]
    ids, answer = np.zeros((4, 6), int), np.zeros((4, 6), bool)
    for row, of_text in enumerate(tokens):
        ids[row, : len(of_text)], answer[row, : len(of_text)] = of_text, True
    ids[:, 5] = words["france"]  # in the question, where it does not count
    kept = np.asarray(distinct(ids, answer, len(words) + 1))
    # The third has no other words, so it stays whole.
    left = [[ids[b, t] for t in np.flatnonzero(kept[b])] for b in range(4)]
    assert left == [
        [words[x] for x in text.split()] for text in ("france", "south africa", "is this", "africa")
    ]


@pytest.fixture(scope="module")
def gradients():
    graphdef, _ = abstract_model(CONFIG, None)
    batch = {k: jnp.asarray(v) for k, v in tiny_batch().items()}
    batch["labels"] = batch["labels"].at[:4, 9:].set(batch["input_ids"][:4, 9:])

    def value(params):
        return alignment_loss(graphdef, params, batch, contrast=1.0, temperature=20.0)

    assert IGNORE == -100 and (batch["input_ids"] == IMAGE).any()
    return jax.jit(jax.grad(value))(initial())


def test_vision_and_projector_learn_and_no_layer_of_the_decoder(gradients):
    def largest(tree):
        return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))

    assert largest(gradients["multi_modal_projector"]) > 1e-4
    assert largest(gradients["vision_tower"]["layers"]) > 1e-6
    assert largest(gradients["language_model"]["layers"]) == 0
