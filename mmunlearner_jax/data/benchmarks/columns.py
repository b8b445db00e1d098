"""Column types that the released parquet files of several benchmarks share."""

import pyarrow as pa

FILE = "train-00000-of-00001.parquet"  # a config's only file, as the hub names it

TEXT = pa.string()
TEXTS = pa.list_(TEXT)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", TEXT)])
