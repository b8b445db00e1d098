"""Prints docs/reference/config.md, the reference of all options.

python -m mmunlearner_jax.config > docs/reference/config.md
"""

import dataclasses
import typing
from collections.abc import Iterator

from mmunlearner_jax.config.run import READS, SHARED, Config
from mmunlearner_jax.options import Extensible, Rule, Section, is_section

_HEAD = """# Options

Every option of a config, with its default. Set one in a config file (`configs/`), or on the
command line: `--config.unlearn.learning_rate=2e-5`, `--config.stages='("evaluate",)'`. An option
on the command line that no stage of the run reads is refused.

This page is printed by `python -m mmunlearner_jax.config`.
"""


def sections(kind: type[Section]) -> Iterator[type[Section]]:
    """Yields a section and all sections in it, in the order of their options."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        if is_section(hint):
            yield from sections(hint)
    if issubclass(kind, Extensible):
        yield from kind.plugged.values()


def table(kind: type[Section]) -> str:
    """Returns the heading of a section and the table of its own options."""
    hints = typing.get_type_hints(kind)
    readers = [stage for stage, read in READS.items() if kind.key.split(".")[0] in read]
    lines = [f"\n## `config.{kind.key}`\n" if kind.key else "\n## `config`\n"]
    lines.append((kind.__doc__ or "").splitlines()[0])
    if kind.key and kind.key.split(".")[0] not in SHARED and readers:
        lines.append(f"\nRead by the stages {', '.join(f'`{stage}`' for stage in readers)}.")
    lines += ["\n| option | type | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        hint, rule = hints[field.name], field.metadata["rule"]
        if is_section(hint) or (issubclass(kind, Extensible) and field.name == "own"):
            continue
        made = field.default is dataclasses.MISSING
        default = field.default_factory() if made else field.default  # pyright: ignore
        cells = (f"`{field.name}`", _type(hint), f"`{default!r}`", _meaning(rule))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _type(hint: typing.Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{choice!r}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"tuple of {_type(typing.get_args(hint)[0])}"
    return "mapping" if typing.get_origin(hint) else f"{hint.__name__}"


def _meaning(rule: Rule) -> str:
    unit = f" ({rule.unit})" if rule.unit else ""
    special = f" {rule.special[0].upper()}{rule.special[1:]}." if rule.special else ""
    choices = f" One of {', '.join(f'`{name}`' for name in rule.choices)}." if rule.choices else ""
    return f"{rule.meaning.removesuffix('.')}{unit}.{special}{choices}"


def page() -> str:
    """Returns the whole reference, as Markdown."""
    return _HEAD + "".join(map(table, sections(Config)))


if __name__ == "__main__":
    print(page(), end="")
