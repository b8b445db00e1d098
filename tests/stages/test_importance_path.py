"""Importances along an ascent path, with weights of examples, and masks that are drawn."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax import preemption
from mmunlearner_jax.config import typed
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.sharding import put_batch
from mmunlearner_jax.stages import importance, mask
from mmunlearner_jax.stages.importance import load_sums
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.steps import mean_loss
from mmunlearner_jax.weights.io import leaf_labels
from tests.helpers import tiny
from tests.helpers.models import filled
from tests.helpers.questions import assert_close
from tests.helpers.tokens import CONFIG, IDS, LABELS

PATH = dict(points=2, every=2, learning_rate=1e-2, moves=("vision", "projector"))


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    made = tiny.session(tmp_path_factory.mktemp("run"))
    config = tiny.config()
    config.importance.batch_size = 3
    config.importance.path.update(PATH)
    config.checkpoint_every = 1
    made.config = typed(config)
    return made


@pytest.fixture(scope="module")
def measured(at, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("measured"), []

    def counted(*args, sizes, **options):
        made.append(sizes)
        return accumulator(*args, sizes=sizes, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "accumulator", counted)
        importance.measure(at, folder)
    sums = {name: load_sums(folder, name, at.moving) for name in ("forget", "pictures", "text")}
    return sums | {"folder": folder, "made": made}


def test_sets_of_equal_sizes_share_a_program(measured):
    assert measured["made"] == [None]  # three sets in rows of one question


def test_a_preserve_set_that_no_group_uses_is_not_measured(at):
    assert [*importance.sets(at)] == ["forget", "pictures", "text"]
    words_aside = at.with_values({"importance.preserve.language": ("pictures",)})
    assert [*importance.sets(words_aside)] == ["forget", "pictures"]


def test_sums_are_of_all_points_of_the_path_which_is_rewound(at, measured):
    def steps(samples, **options):
        made = at.batches(list(samples), batch_size=3, pack=1, **options)
        return (put_batch(batch, at.mesh) for batch in made)

    def climbed(moving, batch):
        return -mean_loss(at.graphdef, nnx.merge_state(moving, held), [batch])

    before = jax.tree.map(np.asarray, at.params)
    held, moving = nnx.split_state(at.params, lambda path, _: path[0] == "language_model", ...)
    adam, gradient = (
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
        jax.jit(jax.grad(climbed)),
    )
    state, sums = adam.init(moving), FisherSums.zeros(at.params)
    add = accumulator(at.graphdef)
    for number, batch in zip(range(1, 5), steps(tiny.FORGET, stream=5), strict=False):
        updates, state = adam.update(gradient(moving, batch), state, moving)
        moving = optax.apply_updates(moving, updates)
        if number % 2 == 0:
            here = nnx.merge_state(moving, held)
            for seen in steps(tiny.FORGET, shuffle=False, repeat=False):
                sums = add(sums, here, seen)
    assert measured["forget"].count == sums.count == 2 * len(tiny.FORGET)
    # Adam divides by |g|, and where that is all but 0 rounding decides about a whole step.
    assert_close(measured["forget"].squares, sums.squares, tolerance=1e-3)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, at.params), before)


def test_stopped_between_two_points_it_gives_the_same_bits(at, measured, tmp_path, monkeypatch):
    steps = itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "due", lambda: next(steps) == 1)
        with pytest.raises(preemption.Preempted):
            importance.measure(at, tmp_path)
    importance.measure(at, tmp_path)
    for name in ("forget", "pictures", "text"):
        whole, again = measured[name], load_sums(tmp_path, name, at.moving)
        jax.tree.map(np.testing.assert_array_equal, again.squares, whole.squares)
        assert again.count == whole.count


def test_weights_make_sure_answers_count_as_much():
    """Against the gradients of single examples."""
    graphdef, params = nnx.split(filled(CONFIG))

    @functools.partial(jax.jit, static_argnums=1)
    @jax.value_and_grad
    def gradient(params, row):
        batch = {"input_ids": IDS[row : row + 1], "labels": LABELS[row : row + 1]}
        return mean_loss(graphdef, params, [batch])

    wanted = jax.tree.map(lambda p: np.zeros(p.shape), params)
    for row in (0, 1):  # the third has no answer
        nll, grads = gradient(params, row)
        weight = 1 / (1e-3 + 1 - np.exp(-np.float64(nll)))
        wanted = jax.tree.map(lambda s, g, w=weight: s + (w * np.float64(g)) ** 2, wanted, grads)
    add = accumulator(graphdef, weights="doubt")
    sums = add(FisherSums.zeros(params), params, {"input_ids": IDS, "labels": LABELS})
    assert sums.count == 2
    most = max(x.max() for x in jax.tree.leaves(wanted))
    for got, squares in zip(*map(jax.tree.leaves, (sums.squares, wanted)), strict=True):
        np.testing.assert_allclose(got / most, squares / most, rtol=1e-4, atol=1e-7)


def test_a_mask_that_is_drawn_has_its_density_in_every_matrix(at):
    config = tiny.config()
    config.mask.update(dict(by="random", density=0.25))
    session = tiny.varied(at)
    session.config = typed(config)
    drawn = mask.make_mask(session)
    names = leaf_labels(session.model)[0]
    fractions = {
        name: float(jnp.mean(leaf))
        for name, leaf in zip(*map(jax.tree.leaves, (names, drawn)), strict=True)
    }
    covered = [x for name, x in fractions.items() if x]
    assert 5 < len(covered) < len(fractions)
    np.testing.assert_allclose(covered, 0.25, atol=0.02)
    jax.tree.map(np.testing.assert_array_equal, mask.make_mask(session), drawn)


def test_what_is_kept_is_pooled_by_group(at, measured, tmp_path):
    """The importances that preconditioned ascent divides by."""
    session = tiny.varied(at, measured["folder"])
    session.config = at.config
    kept = nnx.to_pure_dict(mask.preserved(session))
    pictures, text = measured["pictures"], measured["text"]
    alone = nnx.to_pure_dict(pictures.mean())
    count = pictures.count + text.count
    pooled = jax.tree.map(lambda x, y: (x + y) / count, pictures.squares, text.squares)
    both = nnx.to_pure_dict(pooled)
    for part, wanted in (("vision_tower", alone), ("language_model", both)):
        for got, squares in zip(*map(jax.tree.leaves, (kept[part], wanted[part])), strict=True):
            np.testing.assert_allclose(got, squares, rtol=1e-5, atol=1e-12)
    with pytest.raises(InputError, match="importance/.* is missing"):
        mask.preserved(tiny.varied(at, tmp_path / "none"))


def test_weights_need_single_examples():
    config = tiny.config()
    config.importance.update(dict(weights="doubt", fisher="batch"))
    with pytest.raises(InputError, match="importance.weights .*'none' with config.importance.fis"):
        typed(config)
