"""Nothing is compiled again after the first step, or the first of each budget of patches."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import Llava, LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.models.qwen2_vl.inputs import AnySize
from mmunlearner_jax.models.qwen2_vl.model import Qwen2Config, Qwen2VLConfig
from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor
from mmunlearner_jax.models.qwen2_vl.vision import Qwen2VisionConfig
from mmunlearner_jax.sharding import make_mesh, param_shardings, put_batch
from mmunlearner_jax.unlearn.importance import FisherSums, accumulator
from mmunlearner_jax.unlearn.steps import TrainState, retain_step
from tests.helpers.photographs import photo

CONFIG = LlavaConfig(
    vision=ClipConfig(8, 8, 1, 2, image_size=4, patch_size=2),
    text=LlamaConfig(16, 8, 8, 1, 2),
    image_token_id=15,
)


@pytest.fixture
def compiled():
    """Grows by an entry with every program that is compiled."""
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: events.append(event) if "backend_compile" in event else None
    )
    return events


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_one_program_each(sizes, compiled):
    graphdef, params = nnx.split(Llava(CONFIG, rngs=nnx.Rngs(0)))
    mesh = make_mesh(sizes, jax.devices()[: int(np.prod(sizes))])
    params = jax.device_put(params, param_shardings(params, mesh))
    ids = np.ones((4, 6), np.int32)
    batch = put_batch({"input_ids": ids, "attention_mask": ids, "labels": ids}, mesh)
    add, sums = accumulator(graphdef), FisherSums.zeros(params)
    adam = optax.adam(1e-3)
    step, state = retain_step(graphdef, adam), TrainState.create(params, adam)
    counts = []
    for _ in range(3):
        sums = add(sums, state.params, batch)
        state, loss = step(state, [batch])
        loss.block_until_ready()
        counts.append(len(compiled))
    assert counts[0] >= 2  # the listener listens
    assert counts == [counts[0]] * 3


def test_one_program_for_every_budget_of_patches(compiled):
    photos = [photo(*size) for size in ((92, 112), (64, 64), (64, 92), (112, 92), (70, 60))]
    samples = [Sample("s", photos[n % 5], "Who?", "Kim Birch.") for n in range(20)]
    processor = build_chatml_processor(samples, max_pixels=84 * 112)
    encoder = Encoder(processor, AnySize(processor.image_processor, (16, 24, 48)))
    tokens = processor.tokenizer.get_vocab()
    config = Qwen2VLConfig(
        vision=Qwen2VisionConfig(depth=1, embed_dim=16, hidden_size=16, num_heads=2, mlp_ratio=1),
        text=Qwen2Config(len(tokens), 16, 8, 1, 2, 1, mrope_section=(2, 1, 1)),
        image_token_id=processor.image_token_id,
        video_token_id=tokens["<|video_pad|>"],
    )
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    graphdef, params = nnx.split(config.make(mesh=mesh, rngs=nnx.Rngs(0)))
    params = jax.device_put(params, param_shardings(params, mesh))
    add, sums = accumulator(graphdef), FisherSums.zeros(params)
    adam = optax.adam(1e-3)
    step, state = retain_step(graphdef, adam), TrainState.create(params, adam)
    # Shuffled anew in every pass: the pictures of a batch are others each time.
    batches = iter(Batches(samples, encoder, batch_size=2, seed=0))
    counts, lengths = [], []
    for _ in range(60):
        batch = next(batches)
        sums = add(sums, state.params, put_batch(batch, mesh))
        state, loss = step(state, [put_batch(batch, mesh)])
        loss.block_until_ready()
        lengths.append(batch["pixel_values"].shape[1])
        counts.append(len(compiled))
    assert set(lengths) == {16, 24, 48}
    warm = max(lengths.index(length) for length in set(lengths))
    assert warm < 30 and counts[warm:] == [counts[warm]] * (60 - warm)
    assert len(set(counts)) == 3  # once for each
