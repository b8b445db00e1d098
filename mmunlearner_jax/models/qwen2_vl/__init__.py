"""Qwen2-VL: pictures of any size and a Qwen2 decoder (Wang et al. 2024)."""

from mmunlearner_jax.models.architecture import Architecture
from mmunlearner_jax.models.qwen2_vl.hf import TABLE, from_hf, to_hf
from mmunlearner_jax.models.qwen2_vl.model import Qwen2VLConfig

QWEN2_VL = Architecture(
    folder=__name__,
    config=Qwen2VLConfig,
    from_hf=from_hf,
    to_hf=to_hf,
    table=TABLE,
    sizes={
        "qwen2_vl_2b": Qwen2VLConfig.qwen2_vl_2b,
        "qwen2_vl_7b": Qwen2VLConfig.qwen2_vl_7b,
        "qwen2_vl_72b": Qwen2VLConfig.qwen2_vl_72b,
    },
    maskable=r"(proj|qkv|fc[12]|mlp\.[02])\.weight$",
    published_in_template=True,
)
