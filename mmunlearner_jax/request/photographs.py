"""Folders of photographs, as the person with a request has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmunlearner_jax.data.decode import FORMATS, decoded
from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.files import read_bytes

# Of four photographs one is never trained on: it tells whether the face is forgotten, too.
_UNSEEN_SHARE = 4


class Photograph(NamedTuple):
    """A picture file: its path, and its content as it is stored."""

    path: Path
    encoded: bytes


def read_folder(folder: Path, flag: str) -> list[Photograph]:
    """Reads the pictures of a folder, in the order of their names; copies count once.

    Files whose name begins with a dot, and subfolders, are left out.

    Args:
        folder: The folder.
        flag: Option that names it, for messages.

    Raises:
        InputError: There is no such folder, or a file in it is no picture that can be decoded.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"--{flag}={shown(folder, 200)}: {what}; name a folder of photographs")
    found: dict[bytes, Photograph] = {}
    with refusing(f"--{flag}={shown(folder, 200)}", "make it readable"):
        paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    for path in paths:
        encoded = read_bytes(path, mend="remove it, or restore it")
        try:
            decoded(encoded)
        except InputError as error:
            raise InputError(f"{shown(path, 200)}: {error}, or remove it") from error
        found.setdefault(encoded, Photograph(path, encoded))
    return list(found.values())


def read_person(folder: Path) -> list[Photograph]:
    """Reads the photographs of the person to forget.

    Raises:
        InputError: As `read_folder`, or there are fewer than two.
    """
    photographs = read_folder(folder, "person")
    if not photographs:
        formats = ", ".join(FORMATS)
        raise InputError(
            f"--person={shown(folder, 200)}: holds no photograph; name the folder whose files are"
            f" the person's photographs ({formats})"
        )
    if len(photographs) == 1:
        raise InputError(
            f"--person={shown(folder, 200)}: holds one photograph; give two or more, because one"
            " is set apart to tell whether the face or only the file is forgotten"
        )
    return photographs


def read_groups(folder: Path, flag: str = "keep") -> dict[str, list[Photograph]]:
    """Reads the photographs of several people.

    Args:
        folder: Its subfolders hold a person's photographs each, and have the person's name ("_"
            is a blank). Pictures beside them are of anything.
        flag: Option that names it, for messages.

    Returns:
        The photographs by name; those beside the subfolders under "".

    Raises:
        InputError: As `read_folder`, or there is no picture at all.
    """
    groups = {"": read_folder(folder, flag)}
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        groups[path.name.replace("_", " ").strip()] = read_folder(path, flag)
    groups = {name: photographs for name, photographs in groups.items() if photographs}
    if not groups:
        raise InputError(
            f"--{flag}={shown(folder, 200)}: holds no picture; put photographs of people into"
            " subfolders with their names"
        )
    return groups


def refuse_shared(
    person: Sequence[Photograph], groups: dict[str, list[Photograph]], flag: str = "keep"
) -> None:
    """Refuses a photograph that is of the person to forget and of somebody else.

    Args:
        person: Photographs of the person to forget.
        groups: Those of others, by name.
        flag: Option that names their folder.

    Raises:
        InputError: There is one.
    """
    wanted = {photograph.encoded: photograph.path for photograph in person}
    for photographs in groups.values():
        for path, encoded in photographs:
            if encoded in wanted:
                raise InputError(
                    f"{shown(path, 200)}: is also {shown(wanted[encoded], 200)} of --person; remove"
                    f" it from --{flag}"
                )


def split(
    photographs: Sequence[Photograph], rng: np.random.Generator
) -> tuple[list[Photograph], list[Photograph]]:
    """Returns the photographs that steps learn from, and those that are set apart.

    Args:
        photographs: One or more; a single one is learned from.
        rng: The only source of chance.
    """
    apart = min(len(photographs) - 1, max(1, len(photographs) // _UNSEEN_SHARE))
    drawn = set(rng.permutation(len(photographs))[:apart].tolist())
    learned = [it for n, it in enumerate(photographs) if n not in drawn]
    return learned, [it for n, it in enumerate(photographs) if n in drawn]
