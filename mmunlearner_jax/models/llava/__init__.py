"""LLaVA-1.5: CLIP, a two-layer projector and a Llama decoder (Liu et al. 2023)."""

from mmunlearner_jax.models.architecture import Architecture
from mmunlearner_jax.models.llava.hf import ORIGINAL, TABLE, from_hf, to_hf
from mmunlearner_jax.models.llava.model import LlavaConfig

LLAVA = Architecture(
    folder=__name__,
    config=LlavaConfig,
    from_hf=from_hf,
    to_hf=to_hf,
    table=TABLE,
    sizes={
        "llava_1_5_7b": LlavaConfig.llava_1_5_7b,
        "llava_1_5_13b": LlavaConfig.llava_1_5_13b,
    },
    maskable=r"(proj|fc[12]|linear_[12])\.weight$",
    published_in_template=False,
    lookalikes={
        "llava_llama": ORIGINAL,
        **dict.fromkeys(
            ("internvl", "internvl_chat"),
            "what lacks: the tower InternViT, and a projector that joins neighbouring patches",
        ),
    },
)
