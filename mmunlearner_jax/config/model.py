"""Section `config.model`: which checkpoint, and how it is computed."""

import dataclasses
from typing import ClassVar, Literal

from mmunlearner_jax.models.attention import KERNELS
from mmunlearner_jax.models.groups import GROUPS
from mmunlearner_jax.options import Section, option

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The checkpoint, its precision, and what no step moves."""

    key: ClassVar[str] = "model"

    checkpoint: str = option(
        "",
        "Folder or Hugging Face name of the vanilla checkpoint, which knows the people to forget.",
        special='"": the one that the stage `finetune` writes',
    )
    size: str = option(
        "",
        "Published size that `python -m mmunlearner_jax.plan` compiles.",
        special='"": that of the checkpoint',
    )
    param_dtype: Dtype = option("float32", "Dtype of the parameters and of their updates (D-09).")
    compute_dtype: Dtype = option("bfloat16", "Dtype of activations and products.")
    remat: Literal["none", "full", "dots"] = option(
        "full", "What the backward pass recomputes: nothing, all, or all but matrix products."
    )
    frozen: tuple[str, ...] = option((), "Module groups that no step moves.", choices=GROUPS)
    attention: str = option(
        "xla",
        "Kernel of the decoder's attention over whole sequences: `blocks` leaves out products with"
        " later tokens, `splash` needs a TPU, `cudnn` a GPU.",
        choices=tuple(KERNELS),
    )
    min_pixels: int = option(
        0,
        "Smallest size of a picture or of a clip's frame, where the model takes any size.",
        unit="pixels",
        least=0,
        special="0: the checkpoint's",
    )
    max_pixels: int = option(
        0,
        "Largest size of a picture or of a clip's frame, where the model takes any size.",
        unit="pixels",
        least=0,
        special="0: the checkpoint's",
    )
    patch_budgets: tuple[int, ...] = option(
        (),
        "Patches that a row of pictures may have, where the model takes pictures of any size; a"
        " step is compiled once for each number.",
        unit="patches",
        least=1,
        special="(): any power of two of tokens",
    )
    clip_fps: float = option(
        0.0,
        "Frames that are sampled of a second of a clip, where the model takes clips.",
        unit="frames per second",
        least=0,
        special="0: the checkpoint's, or 2",
    )
    clip_frames: int = option(
        0,
        "Most frames that are sampled of a clip, where the model takes clips.",
        unit="frames",
        least=0,
        special="0: the checkpoint's, or 768",
    )

    def __post_init__(self):
        super().__post_init__()
        if {*self.frozen} == {*GROUPS}:
            self.refuse("frozen", "fewer groups: nothing would move")
