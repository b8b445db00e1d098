"""The two semantics of the method: what the paper says, and what the published code does."""

from ml_collections import ConfigDict

from mmunlearner_jax.errors import InputError

# Where the published code differs from `paper`, the default; numbers are those of docs/method.md.
RELEASED = {
    "data.labels": "full",  # prompt tokens are supervised, too (D-08)
    "data.supervise_end": False,
    "importance.fisher": "batch",  # squares of batch gradients (D-06)
    "importance.batch_size": 4,
    "importance.normalise": "none",
    "mask.eps": 1e-15,  # weights that matter for neither set are chosen (D-05)
    "mask.cover": r"proj|fc|linear|mlp|qkv",
    "mask.uncovered": True,  # ascent moves everything that has no mask (D-02)
    "unlearn.mask_on": "gradient",  # momentum moves protected weights (D-03)
    "unlearn.optimizers": 1,
}


def with_semantics(config: ConfigDict, semantics: str) -> ConfigDict:
    """Leaves a config as it is (`paper`), or sets the published code's choices (`released`).

    Statistics stay float32 in both.

    Raises:
        InputError: another word.
    """
    if semantics not in ("paper", "released"):
        raise InputError(f"--config=FILE:{semantics}: write FILE, FILE:paper or FILE:released")
    if semantics == "released":
        config.update_from_flattened_dict(RELEASED)
    return config
