"""Configs of the models with few and narrow layers."""

import dataclasses

from mmunlearner_jax.models.llava.model import LlavaConfig
from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig

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

_QWEN = dict(
    vocab_size=256,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
)

SMALL_QWEN = Qwen2VLConfig.qwen2_vl_7b()
SMALL_QWEN = dataclasses.replace(
    SMALL_QWEN,
    text=dataclasses.replace(SMALL_QWEN.text, **_QWEN),
    vision=dataclasses.replace(
        SMALL_QWEN.vision, depth=3, embed_dim=128, hidden_size=256, num_heads=2, patch_size=4
    ),
)

SMALL_WINDOWED = Qwen2_5VLConfig.qwen2_5_vl_7b()
SMALL_WINDOWED = dataclasses.replace(
    SMALL_WINDOWED,
    text=dataclasses.replace(SMALL_WINDOWED.text, **_QWEN),
    vision=dataclasses.replace(
        SMALL_WINDOWED.vision,
        depth=3,
        hidden_size=128,
        out_hidden_size=256,
        intermediate_size=256,
        num_heads=2,
        patch_size=4,
        window_size=16,
        fullatt_block_indexes=(1,),
    ),
)
