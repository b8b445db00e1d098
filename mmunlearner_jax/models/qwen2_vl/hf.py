"""Qwen2-VL's tensors.

Two spellings are in circulation: that of the hub's files (`model.layers.`, `visual.`), which every
release reads and most write, and the names in memory since transformers 4.52
(`model.language_model.`, `model.visual.`). Both are read; those of the hub are written.
"""

from mmunlearner_jax.models.qwen2_vl.vision import ROPE_THETA
from mmunlearner_jax.models.rope import frequencies
from mmunlearner_jax.weights.table import (
    CONV3D,
    INV_FREQ,
    Buffer,
    Row,
    Table,
    decoder,
    dense,
    norm,
)

_VISION_LAYER = "model.visual.blocks.{layer}"

TABLE = Table(
    rows=(
        Row("model.visual.patch_embed.proj.weight", "visual.patch_embedding.proj.kernel", CONV3D),
        *norm(f"{_VISION_LAYER}.norm1", "visual.layers.norm1"),
        *dense(f"{_VISION_LAYER}.attn.qkv", "visual.layers.qkv"),
        *dense(f"{_VISION_LAYER}.attn.proj", "visual.layers.proj"),
        *norm(f"{_VISION_LAYER}.norm2", "visual.layers.norm2"),
        *dense(f"{_VISION_LAYER}.mlp.fc1", "visual.layers.fc1"),
        *dense(f"{_VISION_LAYER}.mlp.fc2", "visual.layers.fc2"),
        *norm("model.visual.merger.ln_q", "merger.norm"),
        *dense("model.visual.merger.mlp.0", "merger.linear_1"),
        *dense("model.visual.merger.mlp.2", "merger.linear_2"),
        *decoder("model.language_model", "language_model"),
        *dense("lm_head", "language_model.lm_head"),
    ),
    read=(
        (r"^visual\.", "model.visual."),
        (r"^model\.(?!language_model\.|visual\.)", "model.language_model."),
    ),
    written=(
        ("model.visual.", "visual."),
        ("model.language_model.", "model."),
    ),
    buffers=(  # that old releases wrote
        INV_FREQ,
        Buffer(
            r"\.rotary_pos_emb\.inv_freq$",
            lambda config: frequencies(config.vision.head_size // 2, ROPE_THETA),
        ),
    ),
    groups=(
        ("visual.", "vision"),
        ("merger.", "projector"),
        ("language_model.", "language"),
    ),
)
