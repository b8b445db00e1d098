"""The mask: the ratio's edge cases, joined preserve sets, cover, controls, densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.sharding import make_mesh
from mmunlearner_jax.unlearn import bits
from mmunlearner_jax.unlearn import mask as masks
from mmunlearner_jax.unlearn.control_masks import random_mask

NAMES = {"v": "vision.layers.{layer}.fc1.weight", "l": "language.norm.weight"}
GROUPS = {"v": "vision", "l": "language"}


def tree(v, l):  # noqa: E741
    return {"v": jnp.asarray(v, jnp.float32), "l": jnp.asarray(l, jnp.float32)}


def test_ratio_edges():
    #         both 0  f only  p only  equal  more  less
    forget = [0.0, 1e-20, 0.0, 2e-9, 3e-9, 1e-9]
    preserve = [0.0, 0.0, 1e-20, 2e-9, 2e-9, 2e-9]
    got = masks.saliency_mask(jnp.array(forget), jnp.array(preserve))
    assert got.tolist() == [False, True, False, True, True, False]
    assert got.dtype == bool


def test_published_eps_chooses_dead_weights():
    got = masks.saliency_mask(jnp.zeros(2), jnp.array([0.0, 1e-3]), eps=1e-15)
    assert got.tolist() == [True, False]


def test_against_numpy_in_float64():
    rng = np.random.default_rng(0)
    f, p = np.exp(rng.normal(size=(2, 10_000)) * 5).astype(np.float32)
    for threshold in (0.5, 1.0, 3.0):
        got = np.asarray(masks.saliency_mask(jnp.asarray(f), jnp.asarray(p), threshold=threshold))
        ratio = f.astype(np.float64) / p
        clear = np.abs(ratio / threshold - 1) > 1e-6
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(got[clear], (ratio >= threshold)[clear])


def test_half_precision_is_compared_in_float32():
    f = jnp.array([1.0], jnp.bfloat16)
    p = jnp.array([1.001], jnp.float32)
    assert not masks.saliency_mask(f, p)[0]


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_threshold_must_be_positive(threshold):
    with pytest.raises(ValueError, match="threshold"):
        masks.saliency_mask(jnp.ones(1), jnp.ones(1), threshold=threshold)


@pytest.mark.parametrize("other", [{"v": jnp.ones(2)}, {"w": jnp.ones(3)}])
def test_importances_of_different_models(other):
    with pytest.raises(
        ValueError, match="differ in structure or shapes: give importances of one model"
    ):
        masks.saliency_mask({"v": jnp.ones(3)}, other)


SETS = {
    "pictures": (tree([[1.0, 3.0]], [2.0, 2.0]), 4),
    "text": (tree([[5.0, 5.0]], [0.0, 6.0]), 12),
}
USE = {"vision": ("pictures",), "language": ("pictures", "text")}


def test_preserve_sets_are_pooled_as_one_loader_would():
    got = masks.preserve_importance(SETS, USE, GROUPS)
    np.testing.assert_allclose(got["v"], [[1.0, 3.0]])
    np.testing.assert_allclose(got["l"], (4 * np.array([2, 2]) + 12 * np.array([0, 6])) / 16)


def test_relative_importances_have_unit_mass_and_are_averaged():
    everywhere = jax.tree.map(lambda _: True, GROUPS)
    scaled = {
        name: (masks.unit_mass(x, GROUPS, masks.masses(x, GROUPS, everywhere, {})), 1.0)
        for name, (x, _) in SETS.items()
    }
    got = masks.preserve_importance(scaled, USE, GROUPS)
    np.testing.assert_allclose(got["v"], [[0.25, 0.75]])
    np.testing.assert_allclose(got["l"], (np.array([0.5, 0.5]) + np.array([0, 1])) / 2)


def test_only_covered_parameters_count_in_the_unit_mass():
    importance, groups = {"a": jnp.array([1.0, 3.0]), "b": jnp.array([4.0])}, {"a": "v", "b": "v"}
    mass = masks.masses(importance, groups, {"a": True, "b": False}, {})
    scaled = masks.unit_mass(importance, groups, mass)
    np.testing.assert_allclose(scaled["a"], [0.25, 0.75])
    np.testing.assert_allclose(scaled["b"], [1.0])
    mass = masks.masses(importance, groups, {"a": False, "b": False}, {})
    alone = masks.unit_mass(importance, groups, mass)
    np.testing.assert_allclose(alone["a"], importance["a"])


@pytest.mark.parametrize("use", [{"vision": ("faces",)}, {"vision": ()}])
def test_unknown_or_no_preserve_set(use):
    with pytest.raises(InputError, match="config.importance.preserve"):
        masks.preserve_importance(SETS, use, GROUPS)


@pytest.mark.parametrize("axis", [bits.FILES, bits.DEVICES])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
def test_a_mask_is_packed_and_unpacked(sizes, axis):
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
    rng = np.random.default_rng(0)
    specs = {(3, 4, 6): (None, "fsdp", "tensor"), (24, 8): ("tensor", "fsdp"), (16,): ("fsdp",)}
    specs[136, 8] = specs[24, 8]  # 17 bytes
    mask = {
        str(shape): jax.device_put(rng.random(shape) < 0.5, NamedSharding(mesh, PartitionSpec(*s)))
        for shape, s in specs.items()
    }
    packed = bits.pack(mask, axis)
    shapes = bits.packed_shapes(mask, axis)
    for got, wanted in zip(*map(jax.tree.leaves, (packed, shapes)), strict=True):
        assert (got.shape, got.dtype) == (wanted.shape, jnp.uint8)
        assert got.sharding.is_equivalent_to(wanted.sharding, got.ndim)
    back = jax.jit(lambda packed, mask: bits.unpack(packed, mask, axis))(packed, mask)
    jax.tree.map(np.testing.assert_array_equal, back, mask)
    assert bits.unpack(mask, mask, axis)["(16,)"] is mask["(16,)"]
    assert sum(x.nbytes for x in packed.values()) < sum(x.nbytes for x in mask.values()) / 4


def test_cover_denies_by_default_and_can_reproduce_the_published_leak():
    mask = jax.tree.map(lambda x: x > 1.5, tree([[1.0, 2.0]], [1.0, 1.0]))
    denied = masks.cover(mask, NAMES, r"fc\d", uncovered=False)
    assert denied["v"].tolist() == [[False, True]] and not denied["l"].any()
    assert masks.cover(mask, NAMES, r"fc\d", uncovered=True)["l"].all()


def test_a_mask_that_covers_nothing_is_an_error():
    mask = jax.tree.map(lambda x: x > 9, tree([[1.0, 2.0]], [1.0, 1.0]))
    with pytest.raises(InputError, match="covers no weight"):
        masks.cover(mask, NAMES, r"fc\d", uncovered=False)


def test_random_mask_has_the_same_density_elsewhere():
    mask = {"v": jnp.arange(1000).reshape(10, 100) < 300}
    got = random_mask(mask, seed=0)
    assert int(got["v"].sum()) == 300
    assert not np.array_equal(got["v"], mask["v"])


def test_density_per_module_and_block():
    mask = {"v": jnp.array([[[1, 1]], [[0, 1]]], bool), "l": jnp.zeros(4, bool)}
    got = masks.density(mask, NAMES, GROUPS)
    assert got["density"] == 3 / 8
    assert got["by_module"] == {"vision": 0.75, "language": 0.0}
    assert got["by_block"] == {
        "vision.layers.0.fc1.weight": 1.0,
        "vision.layers.1.fc1.weight": 0.5,
        "language.norm.weight": 0.0,
    }
