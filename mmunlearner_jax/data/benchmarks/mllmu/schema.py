"""Columns of MLLMU-Bench's released parquet files, as its dataset card describes them.

https://huggingface.co/datasets/MLLMMU/MLLMU-Bench
"""

import pyarrow as pa

from mmunlearner_jax.data.benchmarks.columns import IMAGE, TEXT, TEXTS

LETTERS = "ABCD"
# Not in the released files: a member of an open question that lists its right words.
ACCEPTED = "Accepted_Answers"

_CHOICES = pa.list_(
    pa.struct(
        [
            ("Question", TEXT),
            ("Options", pa.struct([(letter, TEXT) for letter in LETTERS])),
            ("Correct_Answer", TEXT),
        ]
    )
)
_OPEN = pa.list_(pa.struct([("Question", TEXT), ("Ground_Truth", TEXT), ("Type", TEXT)]))
_PERSON = [
    ("ID", TEXT),
    ("Directory", TEXT),
    ("biography", TEXT),
    ("question", TEXT),
    ("answer", TEXT),
    (
        "Classification_Task",
        pa.struct([("Image_Textual_Questions", _CHOICES), ("Pure_Text_Questions", _CHOICES)]),
    ),
    ("Mask_Task", _OPEN),
    ("Generation_Task", _OPEN),
]

PERSON_SCHEMA = pa.schema([("image", IMAGE), *_PERSON])
TEST_SCHEMA = pa.schema([("images", pa.list_(IMAGE)), *_PERSON])
TRAINING_SCHEMA = pa.schema([("image", IMAGE), ("ID", TEXT), ("metadata", TEXT)])

MLLMU_CONFIGS = (
    *("Full_Set", "forget_5", "forget_10", "forget_15", "retain_95", "retain_90", "retain_85"),
    *("Retain_Set", "Test_Set", "ft_Data"),
)


def mllmu_schema(config: str) -> pa.Schema:
    """Returns the columns of a config of MLLMU-Bench, of any forget ratio."""
    return {"Test_Set": TEST_SCHEMA, "ft_Data": TRAINING_SCHEMA}.get(config, PERSON_SCHEMA)


def with_accepted(schema: pa.Schema) -> pa.Schema:
    """Returns a schema whose open questions, if it has any, also have `ACCEPTED`."""
    open_questions = pa.list_(pa.struct([*_OPEN.value_type, (ACCEPTED, TEXTS)]))
    return pa.schema(
        [field.with_type(open_questions) if field.type == _OPEN else field for field in schema]
    )
