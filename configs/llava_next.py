"""LLaVA-NeXT-7B forgets people: configs/llava.py for the successor of LLaVA-1.5.

    python -m mmunlearner_jax.main --config=configs/llava_next.py --workdir=runs/llava_next \
        --config.model.checkpoint=PATH_OR_HF_NAME --config.data.benchmark=PATH_TO_PARQUET

All values that are not set here are those of configs/llava.py. A picture has up to 2,928 tokens:
the sizes of its tiles come from `image_grid_pinpoints` of the checkpoint. A checkpoint with a
Mistral decoder needs no other value; the planner takes its sizes by
`--config.model.size=llava_next_mistral_7b`. No step has been run at this size.
"""

from ml_collections import ConfigDict

from configs import llava


def get_config(semantics: str = "paper") -> ConfigDict:
    """Returns the default; `--config=configs/llava_next.py:released`: the published choices."""
    return adapted(llava.get_config(semantics))


def adapted(config: ConfigDict) -> ConfigDict:
    """Changes a config of LLaVA into one of LLaVA-NeXT, and returns it."""
    config.model.size = "llava_next_vicuna_7b"
    config.model.remat = "full"  # rows are too long to keep products
    return config
