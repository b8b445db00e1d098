"""Pictures that a file of records names, found in its folder or in one within."""

from pathlib import Path

from mmunlearner_jax.data.benchmarks.base import Check
from mmunlearner_jax.data.benchmarks.parquet import ParquetRow, Problem, refused
from mmunlearner_jax.data.decode import MAX_BYTES
from mmunlearner_jax.errors import shown
from mmunlearner_jax.files import read_bytes

_MEND = "put the pictures there, or in a folder within"


class PictureFiles:
    """The picture files of a folder, by name; releases move them to other folders.

    Args:
        folder: Folder of all pictures.
        check: `Pictures.check` of the model; a picture that it refuses is a problem.
    """

    def __init__(self, folder: Path, check: Check):
        self._folder, self._check = folder, check
        self._files = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}
        self._read: dict[str, bytes] = {}

    def read(self, row: ParquetRow, name: str, column: str) -> bytes | Problem:
        """Returns an encoded picture, or the problem that there is none, or an unusable one.

        Args:
            row: The row that names it.
            name: Its file name; folders before it do not count.
            column: Column of the name, for the problem.
        """
        name = Path(name).name
        if name not in self._files:
            what = f"{column} {shown(name)} is no file of {self._folder}"
            return row.problem(f"{what}; {_MEND}")
        if name not in self._read:  # rows about one picture share its bytes
            image = read_bytes(self._files[name], mend=_MEND, most=MAX_BYTES)
            if problem := refused(row, image, self._check, column):
                return problem
            self._read[name] = image
        return self._read[name]
