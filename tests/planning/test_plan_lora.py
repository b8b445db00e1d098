"""The planner's steps with adapters: they alone are in the state, and the step takes them."""

import jax
import pytest

from configs import llava, qwen2_vl
from mmunlearner_jax.config import typed
from mmunlearner_jax.models.llava import LLAVA
from mmunlearner_jax.models.qwen2_vl import QWEN2_VL
from mmunlearner_jax.planning.programs import programs
from mmunlearner_jax.sharding import device_bytes, make_mesh
from tests.helpers.small import SMALL, SMALL_QWEN


@pytest.mark.parametrize("module", [llava, qwen2_vl], ids=lambda module: module.__name__)
def test_adapters_alone_are_in_the_state(module, monkeypatch):
    monkeypatch.setitem(LLAVA.sizes, "llava_1_5_7b", lambda: SMALL)
    monkeypatch.setitem(QWEN2_VL.sizes, "qwen2_vl_7b", lambda: SMALL_QWEN)
    config = module.get_config()
    mesh = make_mesh((1, 4, 2))
    full = list(programs(typed(config), mesh, "unlearn"))
    config.unlearn.lora.rank = 4
    adapted = list(programs(typed(config), mesh, "unlearn"))
    assert [p.name for p in adapted] == ["forget step", "retain step"]
    for before, after in zip(full, adapted, strict=True):
        assert 10 * device_bytes(after.arguments[0]) < device_bytes(before.arguments[0])
        state, loss = after.function.eval_shape(*after.arguments)
        assert jax.tree.map(lambda x: x.shape, state) == jax.tree.map(
            lambda x: x.shape, after.arguments[0]
        )
        assert loss.shape == ()
