"""The masks of the controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmunlearner_jax.unlearn import control_masks
from mmunlearner_jax.unlearn.control_masks import global_random_mask, top_mask
from mmunlearner_jax.unlearn.controls import CONTROLS, Known
from mmunlearner_jax.unlearn.mask import density

GROUPS = {"v": "vision", "p": "projector", "l": "language", "f": "vision"}
NAMES = {"v": "v", "p": "p", "l": "layers.{layer}.l", "f": "f"}


def tree(seed: int) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(seed), len(GROUPS))
    return {name: jax.random.uniform(k, (2, 3, 5)) for name, k in zip(GROUPS, keys, strict=True)}


@pytest.fixture
def mask():
    made = jax.tree.map(lambda x: x > 0.6, tree(0))
    return made | {"f": jnp.zeros_like(made["f"])}  # frozen


@pytest.fixture
def known():
    movable = {name: jnp.full((2, 3, 5), name != "f") for name in GROUPS}
    covered = movable | {"p": jnp.zeros((2, 3, 5), bool)}
    return Known(1, GROUPS, NAMES, lambda: movable, lambda: covered, lambda: tree(1))


def made(name: str, mask, known):
    return CONTROLS[name].mask(mask, known)


def equal(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), a, b))


@pytest.mark.parametrize("name", ["mask_vision_projector", "mask_language"])
def test_a_mask_in_some_groups(name, mask, known):
    found = made(name, mask, known)
    for part, group in GROUPS.items():
        inside = (group == "language") == (name == "mask_language")
        wanted = mask[part] if inside else jnp.zeros_like(mask[part])
        assert jnp.array_equal(found[part], wanted)


def test_whole_groups_but_for_frozen_weights(mask, known):
    found = made("vision_projector_no_mask", mask, known)
    assert {name: bool(m.all()) for name, m in found.items()} == {
        "v": True,
        "p": True,
        "l": False,
        "f": False,
    }
    assert not found["l"].any() and not found["f"].any()


@pytest.mark.parametrize("name", ["random_mask", "forget_top"])
def test_as_many_in_every_array(name, mask, known):
    found = made(name, mask, known)
    assert not equal(found, mask)
    for part in GROUPS:
        assert found[part].sum() == mask[part].sum()


def total(mask) -> int:
    return sum(int(m.sum()) for m in mask.values())


def test_the_covered_weights(mask, known):
    mask = mask | {"p": jnp.zeros_like(mask["p"])}
    assert {name: bool(m.all()) for name, m in made("cover_only", mask, known).items()} == {
        **{"v": True, "l": True},
        **{"p": False, "f": False},
    }


def test_a_globally_random_mask_keeps_the_count_of_all_arrays_together(mask, known):
    mask = mask | {"p": jnp.zeros_like(mask["p"])}  # it has no mask
    drawn = made("global_random_mask", mask, known)
    assert total(drawn) == total(mask) and not (drawn["p"].any() or drawn["f"].any())
    assert drawn["v"].sum() != mask["v"].sum()
    everything = {name: jnp.ones((300, 300), bool) for name in ("a", "b")}
    some = everything | {"a": jnp.zeros((300, 300), bool)}  # half of all places
    drawn = global_random_mask(some, everything, seed=0)
    for name in everything:
        assert float(drawn[name].mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["cover_only", "global_random_mask", "random_layers"])
def test_what_no_mask_covers_moves_as_in_the_run(name, mask, known):
    assert mask["p"].any()  # as with `config.mask.uncovered`
    assert jnp.array_equal(made(name, mask, known)["p"], mask["p"])


def test_more_places_than_numpy_draws_from_have_their_shares():
    rng = np.random.default_rng(0)
    counts = control_masks._divided(rng, 3 * 10**8, [4 * 10**8, 6 * 10**8, 5])
    assert sum(counts) == 3 * 10**8
    np.testing.assert_allclose(counts, [1.2e8, 1.8e8, 1.5], atol=2)


def test_random_layers_are_whole_matrices(mask, known):
    mask = mask | {"p": jnp.zeros_like(mask["p"])}
    drawn = made("random_layers", mask, known)
    assert not (drawn["p"].any() or drawn["f"].any())
    blocks = [drawn["v"], *drawn["l"]]  # a matrix; a matrix a layer
    assert all(bool(block.all()) or not block.any() for block in blocks)
    assert total(mask) <= total(drawn) < total(mask) + max(block.size for block in blocks)


def test_the_weights_that_matter_most():
    importance = {"w": jnp.array([[3.0, 1.0], [2.0, 5.0]])}
    mask = {"w": jnp.array([[False, True], [True, False]])}
    assert np.array_equal(top_mask(importance, mask)["w"], [[True, False], [False, True]])


def test_the_other_controls_keep_the_mask_or_have_none(mask, known):
    for control in CONTROLS.values():
        if control.changes and control.mask is not None:
            assert equal(control.mask(mask, known), mask)


def test_fraction():
    mask = {"a": jnp.array([True, False]), "b": jnp.array([[True], [True]])}
    names, groups = {"a": "a", "b": "b"}, {"a": "vision", "b": "language"}
    assert density(mask, names, groups)["density"] == 0.75
