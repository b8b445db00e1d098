"""LLaVA-1.5's tensors.

Three spellings are in circulation: transformers 4 (the hub's files: `language_model.model.`,
`vision_tower.vision_model.`), the names of transformers 5 in memory (`model.language_model.`), and
what transformers 5 writes (those of 4, without `vision_model.`). All are read. Those of 4 are
written: old and new releases load them.
"""

import numpy as np

from mmunlearner_jax.weights.table import CONV, INV_FREQ, Buffer, Row, Table, decoder, dense, norm

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
    buffers=(  # that old releases wrote
        Buffer(r"\.position_ids$", lambda config: np.arange(config.vision.num_patches + 1)),
        INV_FREQ,
    ),
    groups=(
        ("vision_tower.", "vision"),
        ("multi_modal_projector.", "projector"),
        ("language_model.", "language"),
    ),
)
