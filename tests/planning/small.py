"""A LLaVA-1.5 with few and narrow layers."""

import dataclasses

from mmunlearner_jax.models.llava import LlavaConfig

SMALL = LlavaConfig.llava_1_5_7b()
SMALL = dataclasses.replace(
    SMALL,
    text=dataclasses.replace(
        SMALL.text,
        vocab_size=256,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=2,
    ),
    vision=dataclasses.replace(
        SMALL.vision,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
    ),
)
