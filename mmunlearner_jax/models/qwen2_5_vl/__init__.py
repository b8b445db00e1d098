"""Qwen2.5-VL: Qwen2-VL with windows in the vision tower (Bai et al. 2025)."""

from mmunlearner_jax.models.architecture import Architecture
from mmunlearner_jax.models.qwen2_5_vl.hf import from_hf
from mmunlearner_jax.models.qwen2_5_vl.model import Qwen2_5VLConfig
from mmunlearner_jax.models.qwen2_vl.hf import TABLE, to_hf

QWEN2_5_VL = Architecture(
    folder=__name__,
    config=Qwen2_5VLConfig,
    from_hf=from_hf,
    to_hf=to_hf,
    table=TABLE,
    sizes={
        "qwen2_5_vl_3b": Qwen2_5VLConfig.qwen2_5_vl_3b,
        "qwen2_5_vl_7b": Qwen2_5VLConfig.qwen2_5_vl_7b,
    },
    maskable=r"(proj|qkv|mlp\.[02])\.weight$",
    published_in_template=True,
    lookalikes=dict.fromkeys(
        ("qwen3_vl", "qwen3_vl_moe"),
        "what lacks: vision features of several layers in the decoder, norms of queries and keys,"
        " learned positions that are interpolated",
    ),
)
