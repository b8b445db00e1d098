"""Programs that are compiled before they are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmunlearner_jax import compilations
from mmunlearner_jax.precompile import compiling


def test_a_call_finds_its_program():
    double = jax.jit(lambda tree: jax.tree.map(lambda a: 2 * a, tree))
    x, longer = jax.device_put((np.arange(3.0), np.ones(4)), jax.devices()[0])
    so_far = compilations.count()
    with compiling() as compile_program:
        compile_program(double, {"x": x})
        compile_program(double, {"x": longer[1:]})  # the same program
        compile_program(double, {"x": longer})
    before = so_far()["programs"]
    results = double({"x": x}), double({"x": longer})
    assert so_far()["programs"] == before
    assert [result["x"].tolist() for result in results] == [[0, 2, 4], [2, 2, 2, 2]]


def test_what_does_not_compile_is_an_error():
    with pytest.raises(TypeError, match="incompatible shapes"), compiling() as compile_program:
        compile_program(jax.jit(jnp.add), jnp.ones(2), jnp.ones(3))
