"""LLaVA-NeXT (LLaVA-1.6): LLaVA with pictures in tiles (Liu et al. 2024)."""

from mmunlearner_jax.models.architecture import Architecture
from mmunlearner_jax.models.llava.hf import ORIGINAL
from mmunlearner_jax.models.llava_next.hf import TABLE, from_hf, to_hf
from mmunlearner_jax.models.llava_next.model import LlavaNextConfig

LLAVA_NEXT = Architecture(
    folder=__name__,
    config=LlavaNextConfig,
    from_hf=from_hf,
    to_hf=to_hf,
    table=TABLE,
    sizes={
        "llava_next_vicuna_7b": LlavaNextConfig.llava_next_vicuna_7b,
        "llava_next_vicuna_13b": LlavaNextConfig.llava_next_vicuna_13b,
        "llava_next_mistral_7b": LlavaNextConfig.llava_next_mistral_7b,
    },
    maskable=r"(proj|fc[12]|linear_[12])\.weight$",
    published_in_template=True,
    lookalikes={
        "llava_mistral": ORIGINAL,
        "llava_onevision": "what lacks: tiles that are interpolated, and videos",
        "llava_next_video": "what lacks: videos, and the pooling of their features",
    },
)
