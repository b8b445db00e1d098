"""Checks a whole config before anything runs, so that no long stage ends in a typing mistake."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ml_collections import ConfigDict

from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.attention import KERNELS, check_kernel
from mmunlearner_jax.models.registry import ARCHITECTURES
from mmunlearner_jax.sharding import batch_parts, mesh_shape
from mmunlearner_jax.unlearn.controls import CONTROLS
from mmunlearner_jax.unlearn.methods import METHODS
from mmunlearner_jax.unlearn.objectives import OF_ROWS, RATIOS
from mmunlearner_jax.unlearn.schedule import DECAYS

# Stages whose rows may hold several questions.
PACKED = ("finetune", "importance", "unlearn")
# Keys that a config has not are passed over: not every config has every stage.
POSITIVE = (
    "checkpoint_every",
    "data.forget_ratio",
    "finetune.steps",
    "unlearn.forget_every",
    "unlearn.forget_repeat",
    "unlearn.accumulate",
    "unlearn.stop_every",
    "compare.iterations",
    "compare.stop_every",
    *(f"{part}.{pack}" for part in PACKED for pack in ("pack", "text_pack")),
    "evaluate.decode.max_new_tokens",
)
BATCHES = (
    "finetune.picture_batch",
    "finetune.text_batch",
    "importance.batch_size",
    "unlearn.forget_batch",
    "unlearn.retain_batch",
    "unlearn.text_batch",
    "evaluate.decode.batch_size",
)
CHOICES: dict[str, tuple[Any, ...]] = {
    "prepare.benchmark": ("mllmu", "clear"),
    "prepare.architecture": tuple(ARCHITECTURES),
    "finetune.optimizer": ("adamw", "muon"),
    "data.labels": ("answer", "full"),
    "data.text_source": ("ft_Data", "Full_Set"),
    "importance.fisher": ("example", "batch"),
    "importance.normalise": ("none", "group"),
    "unlearn.method": tuple(METHODS),
    "unlearn.decay": tuple(DECAYS),
    "unlearn.npo.over": tuple(RATIOS),
    "unlearn.kl_min.over": tuple(OF_ROWS),
    "unlearn.mask_on": ("update", "gradient"),
    "unlearn.optimizers": (1, 2),
    "model.remat": ("none", "full", "dots"),
    "model.attention": tuple(KERNELS),
    "evaluate.protocol": ("plain", "strict", "released"),
    "evaluate.shots": (0, 1),
    "model.param_dtype": ("float32", "bfloat16", "float16"),
    "model.compute_dtype": ("float32", "bfloat16", "float16"),
}
ABOVE_ZERO = (
    "finetune.learning_rate",
    "finetune.clip",
    "mask.threshold",
    "unlearn.learning_rate",
    "unlearn.alpha",
    "unlearn.npo.beta",
    "unlearn.simnpo.beta",
    "unlearn.kl_min.weight",
    "unlearn.lora.alpha",
)
NONE_BY_ZERO = ("unlearn.clip", "unlearn.warmup", "profile.steps")
ALL_BY_ZERO = ("importance.examples", "unlearn.stop_examples", "evaluate.photos_per_person")
GROUPS = ("vision", "projector", "language")
PRESERVE = ("pictures", "text")
NAMES = {
    "stages": (
        *("prepare", "finetune", "evaluate", "importance", "mask", "unlearn", "controls"),
        *("compare", "export", "report", "rescore"),
    ),
    "model.frozen": GROUPS,
    "controls": tuple(CONTROLS),
    "compare.methods": (*METHODS, *CONTROLS),
    "compare.controls": tuple(CONTROLS),
    "compare.tasks": ("classification", "cloze", "generation", "naming"),
}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys."""
    flat = {}
    for key, value in tree.items():
        nested = isinstance(value, dict)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _refuse(values: Mapping[str, Any], key: str, wanted: str) -> NoReturn:
    raise InputError(f"config.{key} is {values[key]!r}: give {wanted}")


def _check_names(values: Mapping[str, Any]) -> None:
    for key, known in NAMES.items():
        if unknown := [name for name in values.get(key, ()) if name not in known]:
            said = ", ".join(map(repr, unknown))
            _refuse(values, key, f"names out of {', '.join(known)}, not {said}")


def check_config(config: ConfigDict, devices: Sequence[Any]) -> None:
    """Refuses values that some stage could not work with.

    Args:
        config: as given on the command line.
        devices: those of all processes, or of a slice that is planned for.

    Raises:
        InputError: the first of them, by its key, with what would do.
    """
    values = flatten(json.loads(config.to_json()))

    def refuse(key: str, wanted: str) -> None:
        _refuse(values, key, wanted)

    for name in ("prepare", "finetune", "compare"):  # parts that not every config has
        if name in values["stages"] and name not in config:
            refuse("stages", f"none that needs config.{name}, or a config with it (configs/orl.py)")
    for key in (*POSITIVE, *BATCHES):
        if key in values and values[key] < 1:
            refuse(key, "1 or more")
    parts = batch_parts(mesh_shape(values["mesh"], len(devices)))
    for key in BATCHES:
        part, _, name = key.partition(".")
        shares = f"{part}.text_pack" if name == "text_batch" else f"{part}.pack"
        pack = values.get(shares, 1)
        if key in values and values[key] % (parts * pack):
            shared = f", another config.{shares}" if pack > 1 else ""
            refuse(
                key,
                f"a multiple of {parts * pack}{shared}, or another config.mesh (axes data x fsdp)",
            )
    if values.get("importance.batch_size", 0) % (parts * values.get("importance.text_pack", 1)):
        refuse("importance.text_pack", f"a divisor of config.importance.batch_size / {parts}")
    for key in ABOVE_ZERO:
        if key in values and not (values[key] > 0 and math.isfinite(values[key])):
            refuse(key, "a number above 0")
    for key, choices in CHOICES.items():
        if key in values and values[key] not in choices:
            refuse(key, " or ".join(map(repr, choices)))
    if "model.attention" in values:
        check_kernel(values["model.attention"], devices[0].platform)
    _check_names(values)
    if set(values.get("model.frozen", ())) == set(GROUPS):
        refuse("model.frozen", "fewer groups: nothing would move")
    if values.get("evaluate.shots") and values["evaluate.protocol"] == "plain":
        refuse("evaluate.shots", "0, or the protocol 'strict' or 'released'")
    for key in ALL_BY_ZERO:
        if values.get(key, 0) < 0:
            refuse(key, "0 (all) or more")
    for key in NONE_BY_ZERO:
        if not 0 <= values.get(key, 0) < math.inf:
            refuse(key, "0 (none) or more")
    if values.get("unlearn.lora.rank", 0) < 0:
        refuse("unlearn.lora.rank", "0 (full weights) or more")
    if values.get("unlearn.lora.rank") and not values["unlearn.lora.targets"]:
        refuse("unlearn.lora.targets", "patterns of names, or config.unlearn.lora.rank=0")
    for key in ("model.min_pixels", "model.max_pixels"):
        if values.get(key, 0) < 0:
            refuse(key, "0 (the checkpoint's) or more")
    for key in [key for key in values if key.endswith("pack") and values[key] > 1]:
        if values["data.labels"] == "full":
            refuse(key, "1: rows would share the prompts that config.data.labels='full' learns")
        if key.startswith("importance.") and values["importance.fisher"] == "example":
            refuse(key, "1: config.importance.fisher='example' squares row by row")
    if "unlearn.method" in values and not METHODS[values["unlearn.method"]].masked:
        masked = ", ".join(name for name, method in METHODS.items() if method.masked)
        asked = [CONTROLS[name] for name in values.get("controls", ())]
        if any(control.of_masks and not control.method for control in asked):
            refuse("controls", f"none that changes the mask, or the method {masked}")
    for key in [f"importance.preserve.{group}" for group in GROUPS]:
        if key in values and not (values[key] and {*values[key]} <= {*PRESERVE}):
            refuse(key, f"one or more of {', '.join(PRESERVE)}")
    try:
        re.compile(values.get("mask.cover", ""))
    except re.error as error:
        refuse("mask.cover", f"a regular expression ({error})")
    if not values.get("unlearn.stop_remembered", 0) < 1:
        refuse("unlearn.stop_remembered", "less than 1: no step would be taken")
    for key, seeds in {
        "seed": [values["seed"]],
        "compare.seeds": values.get("compare.seeds", ()),
    }.items():
        if any(seed < 0 for seed in seeds):
            refuse(key, "0 or more")
    for key in ("compare.apart", "compare.forgotten"):
        if not 0 < values.get(key, 0.5) < 1:
            refuse(key, "a number between 0 and 1")
    rates = values.get("compare.learning_rates", (1.0,))
    if not all(rate > 0 for rate in rates):
        refuse("compare.learning_rates", "numbers above 0")
    if not rates or len({*rates}) < len(rates):
        refuse("compare.learning_rates", "one or more, each once")
    if values.get("compare.iterations", 0) % values.get("compare.stop_every", 1):
        refuse(
            "compare.iterations", "a multiple of config.compare.stop_every: runs end with a look"
        )
    for key, value in values.items():
        given = value if isinstance(value, list) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in given):
            refuse(key, "finite numbers")
    if "compare" in values["stages"]:
        check_compared(config)
        splits = values.get("evaluate.splits")
        if splits and "forget" not in splits:
            refuse("evaluate.splits", "'forget' among others: the stage compare asks about it")
    if values.get("finetune.warmup", 0) >= values.get("finetune.steps", math.inf):
        refuse("finetune.warmup", "fewer than config.finetune.steps")
    if values.get("unlearn.epochs", 0) < 0:
        refuse("unlearn.epochs", "0 or more")
    if values.get("unlearn.epochs") == 0 and values["unlearn.iterations"] < 1:
        refuse("unlearn.iterations", "1 or more, or set config.unlearn.epochs")


def check_compared(config: ConfigDict) -> None:
    """Refuses methods and controls that cannot be compared.

    Raises:
        InputError: none or unknown ones, one twice, or controls that change nothing.
    """
    options, own = config.compare, config.unlearn.method
    told = flatten(json.loads(config.to_json()))
    _check_names(told)
    for key in ("methods", "controls"):
        names = tuple(options[key])
        if len({*names}) < len(names) or not (names or key == "controls"):
            raise InputError(f"config.compare.{key} is {names}: give each once")
    if both := {*options.methods} & {*options.controls}:
        raise InputError(f"config.compare.controls: {both} are among the methods; give each once")
    if options.controls and not (own in options.methods and METHODS[own].masked):
        raise InputError(
            f"config.compare.controls change {own!r}, config.unlearn.method: give none, or a method"
            " with a mask that is among config.compare.methods"
        )
    for name in options.controls:
        changes = CONTROLS[name].changes
        if changes and all(told.get(key) == value for key, value in changes.items()):
            raise InputError(f"config.compare.controls: {name!r} changes nothing of this config")
