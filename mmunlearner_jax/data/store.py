"""Arrays by name in array_record files: written once, then held in memory or read on demand."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mmunlearner_jax.artefacts import AGAIN
from mmunlearner_jax.errors import refusing
from mmunlearner_jax.processes import is_first, wait

IN_MEMORY = 4 * 2**30  # bytes

# One uncompressed record in each group: a record can be read alone.
_WRITER, _READER = "group_size:1,uncompressed", "readahead_buffer_size:0,max_parallelism:0"


class Records:
    """Named arrays in the files of a folder; reading is thread-safe.

    The last record of a file lists the arrays before it, as JSON. A file appears only when it is
    complete. array_record stores checksums and verifies them on reading.

    Args:
        folder: Folder of the files; it need not exist.
        in_memory: Files are held in memory up to this total, in bytes; others are read on demand.

    Raises:
        InputError: A file is damaged. Looking an array up raises it, too.
    """

    def __init__(self, folder: Path, *, in_memory: int = IN_MEMORY):
        self._folder, self._room, self._files = folder, in_memory, 0
        self._held: dict[str, np.ndarray] = {}
        self._stored: dict[str, tuple[Path, ArrayRecordReader, int, str, list[int]]] = {}
        for path in sorted(folder.glob("*.array_record")):
            self._open(path)

    def __contains__(self, name: str) -> bool:
        return name in self._held or name in self._stored

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._held:
            return self._held[name]
        path, reader, place, dtype, shape = self._stored[name]
        with refusing(path, AGAIN):
            return _array(reader.read([place])[0], dtype, shape)

    def write(self, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
        """Adds a file of arrays. All processes must pass the same names; the first one writes."""
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
            for _ in arrays:  # computing them may need all processes
                pass
        wait(str(path))
        self._open(path)

    def _open(self, path: Path) -> None:
        self._files += 1
        with refusing(path, AGAIN):
            reader = ArrayRecordReader(str(path), _READER)
            last = reader.num_records() - 1
            if last < 0:
                raise ValueError("it is truncated")
            index = json.loads(reader.read([last])[0])
            size = path.stat().st_size
            if size <= self._room:
                self._room -= size
                for record, (name, dtype, shape) in zip(reader.read_all(), index, strict=False):
                    self._held[name] = _array(record, dtype, shape)
            else:
                for place, (name, dtype, shape) in enumerate(index):
                    self._stored[name] = path, reader, place, dtype, shape


def _array(record: bytes, dtype: str, shape: list[int]) -> np.ndarray:
    return np.frombuffer(record, np.dtype(dtype)).reshape(shape)
