"""Arrays by name in array_record files: written once, then in memory or read as they are asked."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mmunlearner_jax.artefacts import AGAIN
from mmunlearner_jax.errors import refusing
from mmunlearner_jax.processes import is_first, wait

IN_MEMORY = 4 * 2**30  # bytes

# One record a group, as it is: any of them is read by itself.
_WRITER, _READER = "group_size:1,uncompressed", "readahead_buffer_size:0,max_parallelism:0"


class Records:
    """Arrays of a folder; reading is safe from many threads.

    A file's last record says, as JSON, what arrays lie before it. Files are there as a whole or
    not at all. They carry hashes of their own, which are verified when they are read.

    Args:
        folder: of the files; it need not be there.
        in_memory: files are read whole as long as they have no more bytes than this together.

    Raises:
        InputError: a file is damaged; so does looking an array up.
    """

    def __init__(self, folder: Path, *, in_memory: int = IN_MEMORY):
        self._folder, self._room, self._files = folder, in_memory, 0
        self._held: dict[str, np.ndarray] = {}
        self._found: dict[str, tuple[Path, ArrayRecordReader, int, str, list[int]]] = {}
        for path in sorted(folder.glob("*.array_record")):
            self._open(path)

    def __contains__(self, name: str) -> bool:
        return name in self._held or name in self._found

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._held:
            return self._held[name]
        path, reader, place, dtype, shape = self._found[name]
        with refusing(path, AGAIN):
            return _array(reader.read([place])[0], dtype, shape)

    def write(self, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
        """Adds a file. All processes must call it with the same names; the first one writes."""
        path = self._folder / f"{self._files:05}.array_record"
        partial = path.with_suffix(".partial")
        if is_first():
            self._folder.mkdir(parents=True, exist_ok=True)
            writer = ArrayRecordWriter(str(partial), _WRITER)
            index = []
            try:
                for name, array in arrays:
                    writer.write(array.tobytes())
                    index.append((name, array.dtype.name, array.shape))
                writer.write(json.dumps(index).encode())
                writer.close()
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)
        else:
            for _ in arrays:  # what makes them may need all processes
                pass
        wait(str(path))
        self._open(path)

    def _open(self, path: Path) -> None:
        self._files += 1
        with refusing(path, AGAIN):
            reader = ArrayRecordReader(str(path), _READER)
            last = reader.num_records() - 1
            if last < 0:
                raise ValueError("it is cut off")
            index = json.loads(reader.read([last])[0])
            size = path.stat().st_size
            if size <= self._room:
                self._room -= size
                for record, (name, dtype, shape) in zip(reader.read_all(), index, strict=False):
                    self._held[name] = _array(record, dtype, shape)
            else:
                for place, (name, dtype, shape) in enumerate(index):
                    self._found[name] = path, reader, place, dtype, shape


def _array(record: bytes, dtype: str, shape: list[int]) -> np.ndarray:
    return np.frombuffer(record, np.dtype(dtype)).reshape(shape)
