"""Nothing is compiled again after the first step."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.models.clip import ClipConfig
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava import Llava, LlavaConfig
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.steps import TrainState, descent_step

CONFIG = LlavaConfig(
    vision=ClipConfig(8, 8, 1, 2, image_size=4, patch_size=2),
    text=LlamaConfig(16, 8, 8, 1, 2),
    image_token_id=15,
)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_one_program_each(sizes):
    graphdef, params = nnx.split(Llava(CONFIG, rngs=nnx.Rngs(0)))
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
    params = jax.device_put(params, param_shardings(params, mesh))
    ids = np.ones((4, 6), np.int32)
    batch = put_batch({"input_ids": ids, "attention_mask": ids, "labels": ids}, mesh)
    add, sums = accumulator(graphdef), FisherSums.zeros(params)
    adam = optax.adam(1e-3)
    step, state = descent_step(graphdef, adam), TrainState.create(params, adam)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    counts = []
    for _ in range(3):
        sums = add(sums, state.params, batch)
        state, loss = step(state, [batch])
        loss.block_until_ready()
        counts.append(len(compiled))
    assert counts[0] >= 2  # the listener listens
    assert counts == [counts[0]] * 3
