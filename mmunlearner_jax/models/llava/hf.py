"""LLaVA-1.5 in transformers' terms: `config.json` and the names of tensors.

Checkpoints spell the names in three ways, and all three are read: as transformers 4 writes them
(the hub's files: `language_model.model.`, `vision_tower.vision_model.`), as transformers 5 holds
them in memory (`model.language_model.`), and as transformers 5 writes them (like 4, but without
`vision_model.`). The names of transformers 4 are written, because old and new releases load them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models import fields
from mmunlearner_jax.models.llava import dinov2, siglip, vision
from mmunlearner_jax.models.llava.decoders import DECODERS
from mmunlearner_jax.models.llava.model import VISION_7B, LlavaConfig, LlavaFamilyConfig
from mmunlearner_jax.models.llava.towers import CONFIGS
from mmunlearner_jax.weights.table import INV_FREQ, Buffer, Table, decoder, dense

Family = TypeVar("Family", bound=LlavaFamilyConfig)

ORIGINAL = "this is LLaVA's original layout; use the converted checkpoint of llava-hf"

# Our names of fields, and those of transformers.
_FIELDS = {
    "image_token_id": "image_token_index",
    "feature_layer": "vision_feature_layer",
    "feature_select": "vision_feature_select_strategy",
    "projector_act": "projector_hidden_act",
    "projector_bias": "multimodal_projector_bias",
}

TABLE = Table(
    rows=(
        *vision.ROWS,
        *siglip.ROWS,
        *dinov2.ROWS,
        *dense("model.multi_modal_projector.linear_1", "multi_modal_projector.linear_1"),
        *dense("model.multi_modal_projector.linear_2", "multi_modal_projector.linear_2"),
        *decoder("model.language_model", "language_model"),
        *dense("lm_head", "language_model.lm_head"),
    ),
    read=(
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^language_model\.model\.", "model.language_model."),
        *dinov2.READ,
        (r"^(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
        (r"^multi_modal_projector\.", "model.multi_modal_projector."),
    ),
    written=(
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.language_model\.", "language_model.model."),
        *dinov2.WRITTEN,
        (r"^model\.vision_tower\.", "vision_tower.vision_model."),
        (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
    ),
    buffers=(  # old releases wrote these
        Buffer(r"\.position_ids$", lambda config: np.arange(config.vision.num_positions)),
        INV_FREQ,
    ),
    groups=(
        ("vision_tower.", "vision"),
        ("multi_modal_projector.", "projector"),
        ("language_model.", "language"),
    ),
)


def read(kind: type[Family], hf: Mapping[str, Any], **others: Any) -> Family:
    """Reads the contents of a `config.json` into a config class; see `Architecture.read_config`.

    Args:
        kind: The config class.
        hf: Contents of the `config.json`.
        **others: Fields of the config class that are its own.
    """
    if "mm_vision_tower" in hf and "text_config" not in hf:  # the fields of `llava_llama`
        raise InputError(
            f"model_type={hf.get('model_type')!r} with mm_vision_tower is not supported"
            f" ({ORIGINAL})"
        )
    text = fields.section(hf, "text_config") or {}
    part = fields.section(hf, "vision_config")
    if part is None:  # as transformers does
        part = VISION_7B
    fields.require(text, *DECODERS, part="text_config.")
    decoder_config = DECODERS[text.get("model_type", "llama")]
    text = {field: value for field, value in text.items() if field not in decoder_config.absent}
    fields.require(part, *CONFIGS, part="vision_config.")
    vision_config = CONFIGS[part.get("model_type", "clip_vision_model")]
    names = _FIELDS | {f: f for f in ("image_token_id",) if f in hf}  # it wins over the index
    return kind(
        vision=vision_config(**fields.read(vision_config, part, "vision_config.")),
        text=decoder_config(**fields.text_fields(decoder_config, hf, text, "text_config.")),
        **fields.read(kind, hf, names=names),
        **others,
    )


from_hf = functools.partial(read, LlavaConfig)


def to_hf(config: LlavaFamilyConfig) -> dict[str, Any]:
    """Returns the contents of a `config.json` that transformers 4 and 5 read."""
    text = dataclasses.asdict(config.text)
    text |= {"num_key_value_heads": config.text.kv_heads, "head_dim": config.text.head_size}
    text = {field: value for field, value in text.items() if field not in config.text.absent}
    theta = text["rope_theta"]  # transformers 4 reads it here, 5 in rope_parameters
    return {
        "architectures": [config.architecture],
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
            "model_type": config.vision.model_type,
            **dataclasses.asdict(config.vision),
        },
    }
