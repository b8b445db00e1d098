"""The two semantics of the method: the paper's, and that of the published code."""

from typing import Any

from ml_collections import ConfigDict

from mmunlearner_jax.errors import InputError

# Options in which the published code differs from the default, `paper`; D-numbers are those of
# docs/defects.md.
RELEASED = {
    "data.labels": "full",  # prompt tokens are supervised as well (D-08)
    "data.supervise_end": False,
    "importance.fisher": "batch",  # squares of batch gradients (D-06)
    "importance.batch_size": 4,
    "importance.normalise": "none",
    "mask.eps": 1e-15,  # weights that matter for neither set are chosen (D-05)
    "mask.cover": r"proj|fc|linear|mlp|qkv",
    "mask.uncovered": True,  # ascent moves all weights without a mask (D-02)
    "unlearn.mask_on": "gradient",  # momentum moves protected weights (D-03)
    "unlearn.optimizers": 1,
    "unlearn.text_batch": 0,  # retain steps learn only samples with pictures
    "unlearn.kl_min.over": "example",  # divergences are summed over positions (D-10)
    "unlearn.npo.over": "batch",  # one ratio of a batch's mean token (D-11)
    "unlearn.npo.beta": 0.4,
}


def with_semantics(config: ConfigDict, semantics: str) -> ConfigDict:
    """Returns the config as it is (`paper`) or with the published code's options (`released`).

    Statistics stay float32 in both.

    Args:
        config: The config, which is changed in place.
        semantics: `paper` or `released`.

    Raises:
        InputError: `semantics` is another word.
    """
    if semantics not in ("paper", "released"):
        raise InputError(f"--config=FILE:{semantics}: write FILE, FILE:paper or FILE:released")
    if semantics == "released":
        config.update_from_flattened_dict(RELEASED)
        for part in ("finetune", "importance", "unlearn"):
            # Where prompts are supervised, examples cannot share one in a packed row.
            config[part].pack = config[part].text_pack = 1
    return config


def read_arguments(text: str, **values: Any) -> dict[str, Any]:
    """Reads the text behind the colon of `--config=FILE:ratio=10,semantics=released`.

    Args:
        text: Names and values; "" for none.
        **values: For each name its default, or a tuple of its allowed values with the default
            first. A value gets the type of the default.

    Raises:
        InputError: A name is unknown, or a value has the wrong type or is not allowed.
    """
    choices = {key: value for key, value in values.items() if isinstance(value, tuple)}
    defaults = values | {key: allowed[0] for key, allowed in choices.items()}
    known = ", ".join(f"{key}={default}" for key, default in defaults.items())
    arguments = dict(defaults)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in defaults:
            raise InputError(f"--config=FILE:{text}: {name!r} is none of {known}")
        try:
            arguments[name] = type(defaults[name])(value)
        except ValueError:
            kind = type(defaults[name]).__name__
            raise InputError(f"--config=FILE:{text}: {name} is of type {kind}: {known}") from None
        if name in choices and arguments[name] not in choices[name]:
            allowed = ", ".join(map(str, sorted(choices[name])))
            raise InputError(
                f"--config=FILE:{text}: there is no {name}={arguments[name]}: give one of {allowed}"
            )
    return arguments
