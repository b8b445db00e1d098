"""MLLMU-Bench and CLEAR as TensorFlow Datasets, in array_record files, without TensorFlow.

    builder = Clear(config="full+tofu", root="FOLDER_OF_CLEAR", data_dir="DIR")
    builder.download_and_prepare()
    rows = builder.as_data_source("train")  # len(rows), rows[7]["caption"]: as in the parquet file

`python -m mmunlearner_jax.data.builders` writes all configs of a folder. Once written, `root` is
not needed, and `tfds.builder_from_directory` reads them too. A row is `tfds_features.RowFeatures`.
"""

import abc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import importlib_resources  # noqa: F401  # tfds needs it, does not declare it, asks late
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from tqdm import tqdm

from mmunlearner_jax.data.builders.tfds_features import RowFeatures
from mmunlearner_jax.data.parquet import ParquetRow, Problem, configs, read_rows, shards
from mmunlearner_jax.data.schemas import CLEAR_CONFIGS, MLLMU_CONFIGS, clear_schema, mllmu_schema
from mmunlearner_jax.errors import InputError

# tfds holds a shard's rows until it is written.
ROWS_PER_SHARD = 256


# Not GeneratorBasedBuilder: beyond 1000 MiB a split, that one needs TensorFlow to sort the rows.
class ParquetBuilder(tfds.core.ShardBasedBuilder):
    """Reads a folder of released parquet files, writes array_record files in the same order.

    The only split is `train`. Columns and members that the schemas do not have are left out,
    members that a file lacks are null.

    Args:
        root: Folder that holds the config folders; only `download_and_prepare` needs it.
        config: Name of a config, whether released or of another ratio ("forget_25").
        data_dir: Folder to write to, or to read what is written.

    Raises:
        InputError: By `download_and_prepare`: a file or a column is missing or unreadable, or there
            is no row.
    """

    VERSION = tfds.core.Version("1.0.0")
    homepage: str

    def __init__(
        self, *, root: str | Path | None = None, file_format: str = "array_record", **options: Any
    ):
        super().__init__(file_format=file_format, **options)
        self._root = root

    @staticmethod
    @abc.abstractmethod
    def schema(config: str) -> pa.Schema:
        """Returns the columns of a config."""

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> tfds.core.BuilderConfig:
        """Returns the config of any name: which names there are shows in the folder."""
        return super().get_builder_config(name, version) or tfds.core.BuilderConfig(name=name)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.homepage}, its columns as released.",
            features=RowFeatures.of(self.schema(self.builder_config.name)),
            homepage=self.homepage,
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        config = self.builder_config.name
        if self._root is None:
            raise InputError(f"{self.name}: no root; give the folder that holds {config}/*.parquet")
        folder = Path(self._root) / config
        rows = read_rows(folder, self.schema(config), whole=False)
        first = next(rows, None)  # by now all files' columns have been looked at
        if first is None:
            raise InputError(f"{folder}: holds no row; give it at least one")
        count = sum(pq.read_metadata(file).num_rows for file in shards(folder))
        told = tqdm(chain([first], rows), f"{self.name}/{config}", count, unit="row")
        cells = enumerate(map(_cells, told))
        # One iterator for all: a shard goes on where the one before it ended.
        written = math.ceil(count / ROWS_PER_SHARD)
        return {"train": [partial(islice, cells, ROWS_PER_SHARD)] * written}


def _cells(row: ParquetRow | Problem) -> dict[str, Any]:
    if isinstance(row, Problem):
        raise InputError(row)
    return row.cells


class MllmuBench(ParquetBuilder):
    """MLLMU-Bench, or what follows its schema, like the ORL benchmark."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in MLLMU_CONFIGS]
    schema = staticmethod(mllmu_schema)
    homepage = "https://huggingface.co/datasets/MLLMMU/MLLMU-Bench"


class Clear(ParquetBuilder):
    """CLEAR."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in CLEAR_CONFIGS]
    schema = staticmethod(clear_schema)
    homepage = "https://huggingface.co/datasets/therem/CLEAR"


def builders(root: Path, data_dir: str | Path) -> list[ParquetBuilder]:
    """Returns a builder of each config of a folder, of MLLMU-Bench or CLEAR by their names.

    Args:
        root: Holds the config folders.
        data_dir: Folder to write to.

    Raises:
        InputError: It is no folder, or holds configs of neither benchmark, or of both.
    """
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; name the one that holds the config folders")
    found = configs(root)
    kinds = [kind for kind in (MllmuBench, Clear) if kind.builder_configs.keys() & found]
    if len(kinds) != 1:
        raise InputError(
            f"{root}: holds {'both' if kinds else 'neither'} configs of MLLMU-Bench "
            f"{'and' if kinds else 'nor'} of CLEAR (CONFIG/*.parquet); name the folder of one"
        )
    return [kinds[0](root=root, config=config, data_dir=data_dir) for config in found]
