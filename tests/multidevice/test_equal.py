"""Eight devices give what one gives: importance, mask, weights after twenty steps, decoding."""

import jax
import pytest

from mmunlearner_jax.sharding import make_mesh, param_shardings
from tests.helpers.meshes import assert_close, initial, work

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8)]


@pytest.fixture(scope="module")
def one_device():
    return work((1, 1, 1))


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_any_mesh_gives_the_result_of_one_device(one_device, sizes):
    assert_close(work(sizes), one_device)


def test_parameters_are_really_split():
    mesh = make_mesh((2, 2, 2))
    kernel = jax.device_put(initial(), param_shardings(initial(), mesh))["language_model"][
        "layers"
    ]["q_proj"]["kernel"].get_value()
    assert {s.data.shape for s in kernel.addressable_shards} == {(2, 8, 8)}
