"""The flags as pictures: from the npm package svg-country-flags, or from a folder of one's own."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mmunlearner_jax.data.decode import opened
from mmunlearner_jax.errors import InputError, listed
from mmunlearner_jax.examples.flags.archives import FLAGS, install, read_members
from mmunlearner_jax.files import read_bytes

_FOLDER = "png250px"  # of the package; 250 pixels wide


def read_flags(folder: Path, codes: Sequence[str]) -> dict[str, Image.Image]:
    """Reads the flags of countries.

    Args:
        folder: Folder of the package's archive, or of pictures that are named by the code in small
            letters ("fr.png"). If the archive is there, the pictures are not looked at.
        codes: ISO 3166-1 alpha-2 codes, e.g. "FR".

    Returns:
        Pictures of mode RGBA in their own sizes, by code.

    Raises:
        InputError: The folder holds neither the archive nor pictures, a country has no flag, or a
            picture cannot be decoded.
    """
    names = {code: f"{code.lower()}.png" for code in codes}
    if (folder / FLAGS.file).exists():
        place = folder / FLAGS.file
        members = [f"{_FOLDER}/{name}" for name in names.values()]
        found = read_members(folder, FLAGS, members)
        encoded = {Path(name).name: content for name, content in found.items()}
        mend = "ask fewer countries (config.prepare.countries)"
    elif any(folder.glob("*.png")):
        place, mend = folder, "add a picture for each code"
        encoded = {
            name: read_bytes(folder / name, mend="store it again as PNG")
            for name in names.values()
            if (folder / name).exists()
        }
    else:
        raise InputError(
            f"{folder}: holds no flags; give a folder of XX.png, or fetch them: {install(folder)}"
        )
    if missing := [code for code, name in names.items() if name not in encoded]:
        files = listed(names[code] for code in missing)
        raise InputError(f"{place}: no flag of {listed(missing)} ({files}); {mend}")
    return {code: _flag(f"{place}: {name}", encoded[name]) for code, name in names.items()}


def _flag(place: str, encoded: bytes) -> Image.Image:
    try:
        return opened(encoded).convert("RGBA")
    except InputError as error:
        raise InputError(f"{place} {error}") from error
