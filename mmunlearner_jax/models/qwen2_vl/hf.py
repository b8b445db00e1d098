"""Qwen2-VL in transformers' terms: `config.json` and the names of tensors.

Checkpoints spell the names in two ways, and both are read: as in the hub's files (`model.layers.`,
`visual.`), which every release reads and most releases write, and as transformers holds them in
memory since 4.52 (`model.language_model.`, `model.visual.`). The names of the hub are written.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import fields
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig, QwenVLConfig
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

_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")

_LAYER = "model.visual.blocks.{layer}"

TABLE = Table(
    rows=(
        Row("model.visual.patch_embed.proj.weight", "visual.patch_embedding.proj.kernel", CONV3D),
        *norm(f"{_LAYER}.norm1", "visual.layers.norm1"),
        *dense(f"{_LAYER}.attn.qkv", "visual.layers.qkv"),
        *dense(f"{_LAYER}.attn.proj", "visual.layers.proj"),
        *norm(f"{_LAYER}.norm2", "visual.layers.norm2"),
        # Either two layers, or in Qwen2.5-VL three.
        *(
            row
            for name in ("fc1", "fc2", "gate_proj", "up_proj", "down_proj")
            for row in dense(f"{_LAYER}.mlp.{name}", f"visual.layers.{name}")
        ),
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
    buffers=(  # old releases wrote these
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


def read(kind: type[QwenVLConfig], hf: Mapping[str, Any]) -> QwenVLConfig:
    """Reads the contents of a `config.json` into a config class; see `Architecture.read_config`."""
    vision_kind, text_kind = kind.parts
    text, part = fields.section(hf, "text_config"), "text_config."
    if text is None:  # old files hold these fields at the top level
        text, part = dict(hf), ""
    vision = fields.section(hf, "vision_config") or {}
    whole = kind.model_type
    fields.require(text, text_kind.model_type, whole, part=part)
    fields.require(vision, f"{whole}_vision", whole, part="vision_config.")
    if sliding := text.get("use_sliding_window"):
        raise InputError(
            f"{part}use_sliding_window={fields.brief(sliding)} is not supported; only false is"
        )
    rope = fields.section(vision, "rope_parameters", "vision_config.") or {}
    if rope.get("rope_theta", ROPE_THETA) != ROPE_THETA:
        raise InputError(
            f"vision_config.rope_parameters={fields.brief(rope)} is not supported; rope_theta"
            f" must be {ROPE_THETA}"
        )
    text = {field: value for field, value in text.items() if field not in text_kind.absent}
    return kind(
        vision=vision_kind(**fields.read(vision_kind, vision, "vision_config.")),
        text=text_kind(**fields.text_fields(text_kind, hf, text, part, "mrope")),
        **fields.read(kind, hf, names={field: field for field in _TOKENS}),
    )


from_hf = functools.partial(read, Qwen2VLConfig)


def to_hf(config: QwenVLConfig) -> dict[str, Any]:
    """Returns the contents of a `config.json`, with the text's fields at the top as of old."""
    text = dataclasses.asdict(config.text)
    for field in (*config.text.absent, "mrope_section"):
        del text[field]
    return {
        **text,
        "architectures": [config.architecture],
        "model_type": config.model_type,
        **{field: getattr(config, field) for field in _TOKENS},
        "num_key_value_heads": config.text.kv_heads,
        "rope_scaling": {"type": "mrope", "mrope_section": config.text.mrope_section},
        "use_sliding_window": False,
        "vision_config": {"model_type": config.model_type, **dataclasses.asdict(config.vision)},
    }
