"""Column types that the released parquet files of several benchmarks share."""

import pyarrow as pa

FILE = "train-00000-of-00001.parquet"  # name of a config's only file on the hub

TEXT = pa.string()
TEXTS = pa.list_(TEXT)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", TEXT)])
# A cell of this type in the place of `IMAGE` may hold a clip: encoded `frames`, and frames of a
# second, with null `bytes`.
CLIP = pa.struct([*IMAGE, ("frames", pa.list_(pa.binary())), ("fps", pa.float64())])
