"""The two semantics of the method: what the paper says, and what the published code does."""

from typing import Any

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
    "unlearn.text_batch": 0,  # retain steps learn pictures alone
    "unlearn.kl_min.over": "example",  # divergences are summed over positions (D-10)
    "unlearn.npo.over": "batch",  # one ratio of a batch's mean token (D-11)
    "unlearn.npo.beta": 0.4,
}


def with_semantics(config: ConfigDict, semantics: str) -> ConfigDict:
    """Leaves a config as it is (`paper`), or sets the published code's choices (`released`).

    Statistics stay float32 in both.

    Raises:
        InputError: Another word.
    """
    if semantics not in ("paper", "released"):
        raise InputError(f"--config=FILE:{semantics}: write FILE, FILE:paper or FILE:released")
    if semantics == "released":
        config.update_from_flattened_dict(RELEASED)
        for part in ("finetune", "importance", "unlearn"):
            # Rows cannot share the prompts that are supervised, too.
            config[part].pack = config[part].text_pack = 1
    return config


def read_arguments(text: str, **values: Any) -> dict[str, Any]:
    """Reads what stands behind the colon of `--config=FILE:ratio=10,semantics=released`.

    Args:
        text: Names and values; "" for none.
        **values: Of all names there are, the default, or a tuple of all values there are, of which
            the first is the default; a value gets the type of its default.

    Raises:
        InputError: An unknown name, or a value that is none, or one that there is not.
    """
    choices = {key: value for key, value in values.items() if isinstance(value, tuple)}
    defaults = values | {key: there[0] for key, there in choices.items()}
    known = ", ".join(f"{key}={default}" for key, default in defaults.items())
    found = dict(defaults)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in defaults:
            raise InputError(f"--config=FILE:{text}: {name!r} is none of {known}")
        try:
            found[name] = type(defaults[name])(value)
        except ValueError:
            kind = type(defaults[name]).__name__
            raise InputError(f"--config=FILE:{text}: {name} is of type {kind}: {known}") from None
        if name in choices and found[name] not in choices[name]:
            there = ", ".join(map(str, sorted(choices[name])))
            raise InputError(
                f"--config=FILE:{text}: there is no {name}={found[name]}: give one of {there}"
            )
    return found
