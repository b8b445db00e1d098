"""Sections of a config: frozen dataclasses whose fields carry a meaning and check themselves."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, NoReturn, Self, get_args, get_origin

from mmunlearner_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an option means, and which values it takes.

    Attributes:
        meaning: One line for the reference.
        unit: What a number counts, e.g. "steps".
        choices: Names it takes, besides those of a `Literal` annotation; a tuple takes several.
        least: Smallest number.
        above: Number that it must exceed.
        below: Number that it must stay under.
        special: What one value stands for, e.g. "0: all".
    """

    meaning: str
    unit: str = ""
    choices: Collection[str] = ()
    least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    special: str = ""


def option(default: Any, meaning: str, **rule: Any) -> Any:
    """Declares a field of a section.

    Args:
        default: Its default value, or a function that makes it (a `Section` class, say).
        meaning: One line for the reference.
        **rule: Other attributes of `Rule`.
    """
    metadata = {"rule": Rule(meaning, **rule)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a config; a subclass is a frozen dataclass of options.

    Attributes:
        key: Dotted key of the section below `config`, "" for the whole config.
    """

    key: ClassVar[str] = ""

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if wanted := _wanted(hints[field.name], field.metadata["rule"], value):
                self.refuse(field.name, wanted)

    def refuse(self, name: str, wanted: str) -> NoReturn:
        """Raises the error that a value of this section ends with.

        Args:
            name: The option.
            wanted: What to give instead, behind "give".

        Raises:
            InputError: Always.
        """
        raise InputError(f"config.{self.full(name)} is {getattr(self, name)!r}: give {wanted}")

    @classmethod
    def full(cls, name: str) -> str:
        """Returns the dotted key of an option, without `config`."""
        return f"{cls.key}.{name}" if cls.key else name

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Reads the section from a nested mapping; options that are missing have their defaults.

        Args:
            values: By option; lists stand for tuples, whole numbers for floats.

        Raises:
            InputError: An unknown option, or a value that its option does not take.
        """
        hints = typing.get_type_hints(cls)
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(
                    f"config.{cls.full(name)}: no such option. {suggestion(name, known)}"
                )
        return cls(**{name: _converted(hints[name], value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Returns the options by name, sections as dicts."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: v.to_dict() if isinstance(v, Section) else v for k, v in values.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extensible(Section):
    """A section beside whose options stand sections of plug-ins, e.g. of methods.

    Attributes:
        plugged: Classes of these sections, by name.
        own: The sections, by name; written `config.KEY.NAME.OPTION`.
    """

    plugged: ClassVar[Mapping[str, type[Section]]] = {}

    own: Mapping[str, Section] = option(dict, "Options of plug-ins, by name.")

    def __post_init__(self):
        super().__post_init__()
        defaults = {name: kind() for name, kind in self.plugged.items()}
        object.__setattr__(self, "own", defaults | dict(self.own))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """See `Section.of`."""
        own = {name: kind.of(values.get(name, {})) for name, kind in cls.plugged.items()}
        rest = {name: value for name, value in values.items() if name not in cls.plugged}
        return super().of({**rest, "own": own})

    def to_dict(self) -> dict[str, Any]:
        """See `Section.to_dict`."""
        values = super().to_dict()
        own = values.pop("own")
        return {**values, **{name: section.to_dict() for name, section in own.items()}}


def suggestion(name: str, known: Collection[str]) -> str:
    """Returns a sentence that names the nearest of some names, or all of them."""
    near = difflib.get_close_matches(str(name), known, 1)
    return f'Did you mean "{near[0]}"?' if near else f"Give one of {', '.join(known)}."


def is_section(hint: Any) -> bool:
    """Whether an annotation is a section of its own."""
    return isinstance(hint, type) and issubclass(hint, Section)


def _converted(hint: Any, value: Any) -> Any:
    if is_section(hint) and isinstance(value, Mapping):
        return hint.of(value)
    if hint is float and type(value) is int:
        return float(value)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_converted(get_args(hint)[0], item) for item in value)
    if get_origin(hint) in (dict, Mapping) and isinstance(value, Mapping):
        return dict(value)
    return value


def _wanted(hint: Any, rule: Rule, value: Any) -> str:
    """Returns what to give in place of a value; "" where it will do."""
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return "a tuple"
        inner = get_args(hint)[0]
        unknown = [item for item in value if rule.choices and item not in rule.choices]
        if unknown:
            wrong = ", ".join(map(repr, unknown))
            names = ", ".join(rule.choices)
            return f"names out of {names}, not {wrong}. {suggestion(unknown[0], rule.choices)}"
        plain = dataclasses.replace(rule, choices=())
        return next(filter(None, (_wanted(inner, plain, item) for item in value)), "")
    choices = get_args(hint) if get_origin(hint) is Literal else tuple(rule.choices)
    if choices:
        if value in choices:
            return ""
        near = difflib.get_close_matches(str(value), [str(c) for c in choices], 1)
        return " or ".join(map(repr, choices)) + (f'. Did you mean "{near[0]}"?' if near else "")
    kind = get_origin(hint) or hint
    if not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool)):
        return f"{_NAMES.get(kind, kind.__name__)}"
    return _range(rule, value) if kind in (int, float) else ""


_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "a string"}


def _range(rule: Rule, value: float) -> str:
    special = f" ({rule.special.partition(': ')[2]})" if rule.special.startswith("0: ") else ""
    if not math.isfinite(value):
        return "a finite number" if rule.above == -math.inf else f"a number above {rule.above:g}"
    if value <= rule.above:
        below = f" and below {rule.below:g}" if rule.below < math.inf else ""
        return f"a number above {rule.above:g}{below}"
    if value < rule.least:
        return f"{rule.least:g}{special} or more"
    if value >= rule.below:
        return f"less than {rule.below:g}"
    return ""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested mappings as one, with dotted keys."""
    flat = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
