from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from mmunlearner_jax.models.llama import LlamaConfig
from mmunlearner_jax.models.llava.model import Llava, LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from tests.helpers.models import filled

IMAGE = 29


@pytest.fixture
def make_model() -> Callable[..., Llava]:
    """Builds a tiny model whose every parameter matters.

    Keywords are fields of its config; `tied` ties its head; `mesh` splits its examples.
    """

    def make(*, tied: bool = False, mesh: Mesh | None = None, **fields) -> Llava:
        config = LlavaConfig(
            vision=ClipConfig(
                hidden_size=8,
                intermediate_size=12,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=4,
                patch_size=2,
            ),
            text=LlamaConfig(
                vocab_size=30,
                hidden_size=8,
                intermediate_size=12,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                tie_word_embeddings=tied,
            ),
            image_token_id=IMAGE,
            **fields,
        )
        return filled(config, mesh)

    return make


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """Two pictures, one, none, none; padded left, not at all, right, not at all."""
    picture = [IMAGE] * 4
    rows = [
        [0, 0, 3, *picture, 5, *picture, 7],
        [4, 8, 15, *picture, 16, 23, 2, 6, 7, 1],
        [1, 2, 3, 5, 8, 13, 21, 9, 0, 0, 0, 0, 0],
        [5, 4, 3, 2, 1, 6, 7, 8, 9, 10, 11, 12, 13],
    ]
    ids = np.array(rows)
    mask = np.ones_like(ids)
    mask[0, :2], mask[2, 8:] = 0, 0
    pixels = np.random.default_rng(0).normal(size=(4, 2, 3, 4, 4)).astype(np.float32)
    pixels[1, 1:], pixels[2:] = 0, 0
    return dict(input_ids=ids, attention_mask=mask, pixel_values=pixels)


@pytest.fixture
def compilations():
    """A list that grows with every compilation."""
    seen = []

    def listen(event, duration_secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    # Its own alone: the package listens, too.
    jax.monitoring.unregister_event_duration_listener(listen)
