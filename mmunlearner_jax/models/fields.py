"""Reads an untrusted `config.json` into the config dataclasses of the models.

The annotation of a field gives the type that JSON must hold, and the range of a number. The upper
bounds lie far above all real models. Within them, the model's tree is built in milliseconds.
"""

import dataclasses
import reprlib
import sys
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from mmunlearner_jax.errors import InputError

Count = Annotated[int, range(1, 2**10 + 1)]  # number of layers, heads, channels; edge of a patch
Width = Annotated[int, range(1, 2**20 + 1)]  # number of features, of tokens; edge of a picture
Length = Annotated[int, range(1, 2**31)]  # number of tokens of a text
Token = Annotated[int, range(-1, 2**31)]  # token id; -1: there is none

_DESCRIPTIONS = {
    bool: "true or false",
    float: "a positive number",
    int: "a whole number",
    str: "a string",
    NoneType: "null",
}


def read(
    config: type,
    values: Mapping[str, Any],
    part: str = "",
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Reads the values for which a config dataclass has a field; lists become tuples.

    Args:
        config: The dataclass. Its fields are annotated with JSON's types: `float` stands for any
            positive number, `tuple` for a list.
        values: A part of a `config.json`.
        part: Prefix of the fields' names in an error, e.g. `text_config.`.
        names: Names of fields in `values`, by the field of `config`; None: all fields of `config`,
            under the same names.

    Raises:
        InputError: A value has a wrong type or range.
    """
    hints = get_type_hints(config, include_extras=True)
    names = names or {field.name: field.name for field in dataclasses.fields(config)}
    matches = {ours: values[theirs] for ours, theirs in names.items() if theirs in values}
    for ours, value in matches.items():
        if not _fits(value, hints[ours]):
            raise InputError(
                f"{part}{names[ours]}={brief(value)} must be {_described(hints[ours])}"
            )
    return {ours: _frozen(value) for ours, value in matches.items()}


def section(values: Mapping[str, Any], field: str, part: str = "") -> dict[str, Any] | None:
    """Returns a copy of an object in a `config.json`; None where it is missing or null.

    Raises:
        InputError: The value is not an object.
    """
    value = values.get(field)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InputError(f"{part}{field}={brief(value)} must be an object")
    return dict(value)


def require(values: Mapping[str, Any], *known: str, part: str = "") -> None:
    """Refuses a part of a `config.json` that describes another model.

    Args:
        values: Contents of the part. Without a `model_type` they are accepted.
        *known: The supported values of `model_type`.
        part: Prefix of the fields' names in an error, e.g. `text_config.`.

    Raises:
        InputError: The `model_type` is not supported.
    """
    kind = values.get("model_type", known[0])
    if kind not in known:
        raise InputError(
            f"{part}model_type={brief(kind)} is not supported; it must be"
            f" {' or '.join(map(repr, known))}"
        )


def text_fields(
    config: type,
    hf: Mapping[str, Any],
    text: Mapping[str, Any],
    part: str,
    *kinds: str,
) -> dict[str, Any]:
    """Reads the fields of the decoder, as transformers 4 or 5 writes them.

    Args:
        config: The decoder's config class.
        hf: Contents of a whole `config.json`.
        text: The part of it that describes the decoder.
        part: Prefix of the fields' names in an error, e.g. `text_config.`.
        *kinds: Supported variants of rotary positions besides `default`.

    Raises:
        InputError: A value has a wrong type or range, or the variant of rotary positions is not
            supported.
    """
    rope, scaled = (
        section(text, field, part) or {} for field in ("rope_parameters", "rope_scaling")
    )
    rope = scaled or rope  # as in transformers
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", *kinds):
        raise InputError(f"{part}rope_type={brief(kind)} is not supported; only 'default' is")
    rope = {field: rope[field] for field in ("rope_theta", "mrope_section") if field in rope}
    values = read(config, {**text, **rope}, part)
    # The flag counts in either place: old files hold it in the text part only.
    tied = {"tie_word_embeddings": "tie_word_embeddings"}
    return values | {k: v for k, v in read(config, hf, names=tied).items() if v}


def brief(value: Any) -> str:
    """Returns an untrusted value as short text for an error message."""
    return reprlib.repr(value)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, args[0]) and value in args[1]
    if origin in (Union, UnionType):
        return any(_fits(value, kind) for kind in args)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, args[0]) for item in value)
    if hint is float:
        return type(value) in (int, float) and 0 < value <= sys.float_info.max
    return type(value) is hint  # not isinstance: True would count as an int


def _described(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{_described(args[0])} from {args[1].start:,} to {args[1].stop - 1:,}"
    if origin in (Union, UnionType):
        return " or ".join(map(_described, args))
    if origin is tuple:
        return f"a list, each item {_described(args[0])}"
    return _DESCRIPTIONS[hint]
