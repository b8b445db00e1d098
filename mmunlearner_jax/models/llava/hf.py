"""LLaVA-1.5 in transformers' terms: `config.json` and the names of tensors.

Checkpoints spell the names in three ways, and all three are read: as transformers 4 writes them
(the hub's files: `language_model.model.`, `vision_tower.vision_model.`), as transformers 5 holds
them in memory (`model.language_model.`), and as transformers 5 writes them (like 4, but without
`vision_model.`). The names of transformers 4 are written, because old and new releases load them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import fields
from mmunlearner_jax.models.llava.decoders import DECODERS
from mmunlearner_jax.models.llava.model import VISION_7B, LlavaConfig
from mmunlearner_jax.models.llava.vision import ClipConfig
from mmunlearner_jax.weights.table import CONV, INV_FREQ, Buffer, Row, Table, decoder, dense, norm

ORIGINAL = "this is LLaVA's original layout; use the converted checkpoint of llava-hf"

# Our names of fields, and those of transformers.
_FIELDS = {
    "image_token_id": "image_token_index",
    "feature_layer": "vision_feature_layer",
    "feature_select": "vision_feature_select_strategy",
    "projector_act": "projector_hidden_act",
    "projector_bias": "multimodal_projector_bias",
}

_VISION = "model.vision_tower"
_VISION_LAYER = f"{_VISION}.encoder.layers.{{layer}}"

TABLE = Table(
    rows=(
        Row(f"{_VISION}.embeddings.class_embedding", "vision_tower.embeddings.class_embedding"),
        Row(
            f"{_VISION}.embeddings.patch_embedding.weight",
            "vision_tower.embeddings.patch_embedding.kernel",
            CONV,
        ),
        Row(
            f"{_VISION}.embeddings.position_embedding.weight",
            "vision_tower.embeddings.position_embedding",
        ),
        *norm(f"{_VISION}.pre_layrnorm", "vision_tower.embeddings.pre_norm"),
        *norm(f"{_VISION_LAYER}.layer_norm1", "vision_tower.layers.layer_norm1"),
        *dense(f"{_VISION_LAYER}.self_attn.q_proj", "vision_tower.layers.q_proj"),
        *dense(f"{_VISION_LAYER}.self_attn.k_proj", "vision_tower.layers.k_proj"),
        *dense(f"{_VISION_LAYER}.self_attn.v_proj", "vision_tower.layers.v_proj"),
        *dense(f"{_VISION_LAYER}.self_attn.out_proj", "vision_tower.layers.out_proj"),
        *norm(f"{_VISION_LAYER}.layer_norm2", "vision_tower.layers.layer_norm2"),
        *dense(f"{_VISION_LAYER}.mlp.fc1", "vision_tower.layers.fc1"),
        *dense(f"{_VISION_LAYER}.mlp.fc2", "vision_tower.layers.fc2"),
        *norm(f"{_VISION}.post_layernorm", "vision_tower.post_norm"),
        *dense("model.multi_modal_projector.linear_1", "multi_modal_projector.linear_1"),
        *dense("model.multi_modal_projector.linear_2", "multi_modal_projector.linear_2"),
        *decoder("model.language_model", "language_model"),
        *dense("lm_head", "language_model.lm_head"),
    ),
    read=(
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^language_model\.model\.", "model.language_model."),
        (r"^(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
        (r"^multi_modal_projector\.", "model.multi_modal_projector."),
    ),
    written=(
        ("lm_head.", "language_model.lm_head."),
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ),
    buffers=(  # old releases wrote these
        Buffer(r"\.position_ids$", lambda config: np.arange(config.vision.num_patches + 1)),
        INV_FREQ,
    ),
    groups=(
        ("vision_tower.", "vision"),
        ("multi_modal_projector.", "projector"),
        ("language_model.", "language"),
    ),
)


def from_hf(hf: Mapping[str, Any]) -> LlavaConfig:
    """Reads the contents of a `config.json`; see `Architecture.read_config`."""
    if "mm_vision_tower" in hf and "text_config" not in hf:  # the fields of `llava_llama`
        kind = hf.get("model_type")
        raise InputError(f"model_type={kind!r} with mm_vision_tower is not supported ({ORIGINAL})")
    text = fields.section(hf, "text_config") or {}
    vision = fields.section(hf, "vision_config")
    if vision is None:  # as transformers does
        vision = VISION_7B
    fields.require(text, *DECODERS, part="text_config.")
    decoder_config = DECODERS[text.get("model_type", "llama")]
    text = {field: value for field, value in text.items() if field not in decoder_config.absent}
    fields.require(vision, "clip_vision_model", part="vision_config.")
    names = _FIELDS | {f: f for f in ("image_token_id",) if f in hf}  # it wins over the index
    return LlavaConfig(
        vision=ClipConfig(**fields.read(ClipConfig, vision, "vision_config.")),
        text=decoder_config(**fields.text_fields(decoder_config, hf, text, "text_config.")),
        **fields.read(LlavaConfig, hf, names=names),
    )


def to_hf(config: LlavaConfig) -> dict[str, Any]:
    """Returns the contents of a `config.json` that transformers 4 and 5 read."""
    text = dataclasses.asdict(config.text)
    text |= {"num_key_value_heads": config.text.kv_heads, "head_dim": config.text.head_size}
    text = {field: value for field, value in text.items() if field not in config.text.absent}
    theta = text["rope_theta"]  # transformers 4 reads it here, 5 in rope_parameters
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": config.model_type,
        **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()},
        "image_token_id": config.image_token_id,  # overwrites that of the old file, if any
        "image_seq_length": config.tokens_per_image,
        "tie_word_embeddings": config.text.tie_word_embeddings,
        "text_config": {
            "model_type": config.text.model_type,
            **text,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **dataclasses.asdict(config.vision),
        },
    }
