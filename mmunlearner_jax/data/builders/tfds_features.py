"""Rows of parquet files as features of tfds, restored exactly on reading, without TensorFlow."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds

NULLS = "nulls"


class RowFeatures(tfds.features.FeaturesDict):
    """A row as pyarrow returns it: text, bytes, dicts and lists, each of which may be null.

    tfds supports nulls in scalars only, and not within lists. So a null is stored as an empty
    value, and its place ("caption", "images/0/path") in an additional feature, `nulls`. This class
    removes that feature on reading; readers without this class see it.
    """

    @classmethod
    def of(cls, schema: pa.Schema) -> "RowFeatures":
        """Returns the features of a file's columns: text, bytes, structs and lists of them."""
        places = tfds.features.Sequence(tfds.features.Text(), doc="Places of what is null.")
        return cls({column.name: _feature(column.type) for column in schema} | {NULLS: places})

    def encode_example(self, example_dict: dict[str, Any]) -> dict[str, Any]:
        """Returns a row as tfds stores it, without the columns that the features lack."""
        nulls: list[str] = []
        stored = {
            name: _filled(feature, example_dict.get(name), name, nulls)
            for name, feature in self.items()
            if name != NULLS
        }
        return super().encode_example(stored | {NULLS: nulls})

    def decode_example_np(
        self, serialized_example: dict[str, Any], *, decoders: Any = None
    ) -> dict[str, Any]:
        """Returns the row that was stored."""
        stored = super().decode_example_np(serialized_example, decoders=decoders)
        nulls = {place.decode() for place in stored[NULLS]}
        return {
            name: _restored(feature, stored[name], name, nulls)
            for name, feature in self.items()
            if name != NULLS
        }


def _feature(kind: pa.DataType) -> Any:
    if isinstance(kind, pa.StructType):
        return tfds.features.FeaturesDict({field.name: _feature(field.type) for field in kind})
    if isinstance(kind, pa.ListType):
        return tfds.features.Sequence(_feature(kind.value_type))
    if pa.types.is_binary(kind):
        # Not Image, which decodes on reading: a picture keeps its encoding.
        return tfds.features.Tensor(shape=(), dtype=np.object_)
    return tfds.features.Text()


def _filled(feature: Any, value: Any, place: str, nulls: list[str]) -> Any:
    """Returns a value with empty values for its nulls, and adds their places to `nulls`."""
    if value is None:
        nulls.append(place)
    if isinstance(feature, tfds.features.FeaturesDict):
        return {
            name: _filled(member, (value or {}).get(name), f"{place}/{name}", nulls)
            for name, member in feature.items()
        }
    if isinstance(feature, tfds.features.Sequence):
        return [
            _filled(feature.feature, item, f"{place}/{index}", nulls)
            for index, item in enumerate(value or [])
        ]
    return b"" if value is None else value


def _restored(feature: Any, value: Any, place: str, nulls: Collection[str]) -> Any:
    """Reverts `_filled`; tfds has turned lists of structs into structs of lists."""
    if place in nulls:
        return None
    if isinstance(feature, tfds.features.FeaturesDict):
        return {
            name: _restored(member, value[name], f"{place}/{name}", nulls)
            for name, member in feature.items()
        }
    if isinstance(feature, tfds.features.Sequence):
        return [
            _restored(feature.feature, _item(value, index), f"{place}/{index}", nulls)
            for index in range(_length(value))
        ]
    return value.decode() if isinstance(feature, tfds.features.Text) else value


def _item(value: Any, index: int) -> Any:
    if isinstance(value, dict):
        return {name: _item(member, index) for name, member in value.items()}
    return value[index]


def _length(value: Any) -> int:
    return _length(next(iter(value.values()))) if isinstance(value, dict) else len(value)
