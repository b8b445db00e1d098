"""Reads a stranger's `config.json` into the config dataclasses of the models.

The annotation of a field says what JSON may say there: its type, and the range of a number. No real
model comes near the upper bounds; below them, the model's tree is made in milliseconds.
"""

import dataclasses
import reprlib
import sys
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from mmunlearner_jax.errors import InputError

Count = Annotated[int, range(1, 2**10 + 1)]  # of layers, heads, channels, pixels of a patch
Width = Annotated[int, range(1, 2**20 + 1)]  # of features, a vocabulary, a picture
Length = Annotated[int, range(1, 2**31)]  # of a text
Token = Annotated[int, range(-1, 2**31)]  # -1: there is none

_SAID = {
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
    """The values that a config dataclass has a field for; lists become hashable.

    Args:
        config: the dataclass, its fields annotated with JSON's types: `float` is any positive
            number, a `tuple` a list.
        values: a part of a `config.json`.
        part: what stands before its fields' names in the error, as `text_config.`.
        names: the field of `values` by that of `config`; None: all of `config`, named the same.

    Raises:
        InputError: a value is not what its field may hold.
    """
    hints = get_type_hints(config, include_extras=True)
    names = names or {field.name: field.name for field in dataclasses.fields(config)}
    found = {ours: values[theirs] for ours, theirs in names.items() if theirs in values}
    for ours, value in found.items():
        if not _fits(value, hints[ours]):
            raise InputError(f"{part}{names[ours]}={brief(value)} must be {_said(hints[ours])}")
    return {ours: tuple(v) if isinstance(v, list) else v for ours, v in found.items()}


def section(values: Mapping[str, Any], field: str, part: str = "") -> dict[str, Any] | None:
    """A copy of an object in a `config.json`; None where it is missing or null.

    Raises:
        InputError: it is no object.
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
        values: its contents; where they do not say which model it is, it is taken for a known one.
        *known: the types supported.
        part: what stands before its fields' names in the error, as `text_config.`.

    Raises:
        InputError: naming the field.
    """
    found = values.get("model_type", known[0])
    if found not in known:
        raise InputError(
            f"{part}model_type={brief(found)} is not supported; it must be {known[0]!r}"
        )


def text_fields(
    config: type,
    hf: Mapping[str, Any],
    text: Mapping[str, Any],
    part: str,
    *kinds: str,
) -> dict[str, Any]:
    """The fields of the decoder, as transformers 4 and 5 write them.

    Args:
        config: the decoder's config.
        hf: a whole `config.json`.
        text: the part of it that describes the decoder.
        part: what stands before its fields' names in an error.
        *kinds: the variants of rotary positions known besides `default`.

    Raises:
        InputError: a field holds what it cannot, or positions are of another variant, a scaled one.
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
    # Either place ties the head: old files say it in the text part only.
    tied = {"tie_word_embeddings": "tie_word_embeddings"}
    return values | {k: v for k, v in read(config, hf, names=tied).items() if v}


def brief(value: Any) -> str:
    """A foreign value for an error: the first of many items, the outermost of nested ones."""
    return reprlib.repr(value)


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
    return type(value) is hint  # true is no number


def _said(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{_said(args[0])} from {args[1].start:,} to {args[1].stop - 1:,}"
    if origin in (Union, UnionType):
        return " or ".join(map(_said, args))
    if origin is tuple:
        return f"a list, each item {_said(args[0])}"
    return _SAID[hint]
