"""The benchmarks as TensorFlow Datasets, in array_record files, without TensorFlow.

    builder = Clear(config="full+tofu", root="FOLDER_OF_CLEAR", data_dir="DIR")
    builder.download_and_prepare()
    rows = builder.as_data_source("train")  # len(rows), rows[7]["caption"]: as in the parquet file

`python -m mmunlearner_jax.data.builders` writes all configs of a folder. Written configs are read
without `root`, also by `tfds.builder_from_directory`. Rows are `tfds_features.RowFeatures`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import importlib_resources  # noqa: F401  # tfds imports it late and does not declare it
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from tqdm import tqdm

from mmunlearner_jax.data.benchmarks import BENCHMARKS, owning, titles
from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord
from mmunlearner_jax.data.benchmarks.parquet import ParquetRow, Problem, configs, read_rows, shards
from mmunlearner_jax.data.builders.tfds_features import RowFeatures
from mmunlearner_jax.errors import InputError

# tfds holds the rows of a shard in memory until the shard is written.
ROWS_PER_SHARD = 256


# Not GeneratorBasedBuilder, which needs TensorFlow to sort the rows of a split above 1000 MiB.
class ParquetBuilder(tfds.core.ShardBasedBuilder):
    """Writes a folder of released parquet files as array_record files with the same row order.

    The only split is `train`. Columns and struct members outside the schemas are left out; members
    that a file lacks are null.

    Args:
        root: Folder that holds the config folders; only `download_and_prepare` needs it.
        config: Name of a config, released or of another forget ratio ("forget_25").
        data_dir: Folder of the array_record files.

    Raises:
        InputError: In `download_and_prepare`: a file or a column is missing or unreadable, or the
            config has no row.
    """

    VERSION = tfds.core.Version("1.0.0")
    record: BenchmarkRecord

    def __init__(
        self, *, root: str | Path | None = None, file_format: str = "array_record", **options: Any
    ):
        super().__init__(file_format=file_format, **options)
        self._root = root

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> tfds.core.BuilderConfig:
        """Returns a config of any name; the folder decides which names exist."""
        return super().get_builder_config(name, version) or tfds.core.BuilderConfig(name=name)

    def _info(self) -> tfds.core.DatasetInfo:
        homepage = f"https://huggingface.co/datasets/{self.record.repository}"
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{homepage}, its columns as released.",
            features=RowFeatures.of(self.record.schema(self.builder_config.name)),
            homepage=homepage,
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        config = self.builder_config.name
        if self._root is None:
            raise InputError(f"{self.name}: no root; give the folder that holds {config}/*.parquet")
        folder = Path(self._root) / config
        rows = read_rows(folder, self.record.schema(config), whole=False)
        first = next(rows, None)  # checks the columns of all files
        if first is None:
            raise InputError(f"{folder}: holds no row; give it at least one")
        count = sum(pq.read_metadata(file).num_rows for file in shards(folder))
        tracked = tqdm(
            chain([first], rows), f"{self.name}/{config}", count, unit="row", disable=None
        )
        cells = enumerate(map(_cells, tracked))
        # All shards share one iterator: each takes the rows after those of the shard before.
        shard_count = math.ceil(count / ROWS_PER_SHARD)
        return {"train": [partial(islice, cells, ROWS_PER_SHARD)] * shard_count}


def _cells(row: ParquetRow | Problem) -> dict[str, Any]:
    if isinstance(row, Problem):
        raise InputError(row)
    for column, cell in row.cells.items():
        cells = cell if isinstance(cell, list) else [cell]
        if any(isinstance(x, dict) and x.get("frames") for x in cells):
            raise InputError(row.problem(f"{column} is a clip; builders take pictures only"))
    return row.cells


def _builder(record: BenchmarkRecord) -> type[ParquetBuilder]:
    """Returns the builder class of a benchmark; tfds needs a class for each."""
    name = "".join(part.capitalize() for part in record.dataset.split("_"))
    released = [tfds.core.BuilderConfig(name=config) for config in record.configs]
    members = {"__doc__": f"{record.title}.", "record": record, "BUILDER_CONFIGS": released}
    return type(name, (ParquetBuilder,), members)


BUILDERS = {record.name: _builder(record) for record in BENCHMARKS.values()}
MllmuBench, Clear = BUILDERS["mllmu"], BUILDERS["clear"]


def builders(root: Path, data_dir: str | Path) -> list[ParquetBuilder]:
    """Returns a builder for each config of a folder; the configs' names decide the benchmark.

    Args:
        root: Folder that holds the config folders.
        data_dir: Folder of the array_record files.

    Raises:
        InputError: `root` is no folder, or holds configs of no benchmark or of several.
    """
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; give the one that holds the config folders")
    names = configs(root)
    whole = [BUILDERS[record.name] for record in owning(root)]
    kinds = whole or [kind for kind in BUILDERS.values() if kind.builder_configs.keys() & names]
    if len(kinds) != 1:
        holds = " and of ".join(kind.record.title for kind in kinds) or f"none of {titles()}"
        raise InputError(
            f"{root}: holds configs of {holds} (CONFIG/*.parquet); give the folder of one"
        )
    return [kinds[0](root=root, config=config, data_dir=data_dir) for config in names]
