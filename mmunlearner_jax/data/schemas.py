"""The columns of both benchmarks' released parquet files, as their dataset cards describe them.

MLLMU-Bench: https://huggingface.co/datasets/MLLMMU/MLLMU-Bench, CLEAR:
https://huggingface.co/datasets/therem/CLEAR. The columns of CLEAR's `retainNN` configs and the
`image` of its `real_world` are inferred: the card does not list them.
"""

import pyarrow as pa

LETTERS = "ABCD"
FILE = "train-00000-of-00001.parquet"

_TEXT = pa.string()
_TEXTS = pa.list_(_TEXT)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", _TEXT)])
_CHOICES = pa.list_(
    pa.struct(
        [
            ("Question", _TEXT),
            ("Options", pa.struct([(letter, _TEXT) for letter in LETTERS])),
            ("Correct_Answer", _TEXT),
        ]
    )
)
_OPEN = pa.list_(pa.struct([("Question", _TEXT), ("Ground_Truth", _TEXT), ("Type", _TEXT)]))
_PERSON = [
    ("ID", _TEXT),
    ("Directory", _TEXT),
    ("biography", _TEXT),
    ("question", _TEXT),
    ("answer", _TEXT),
    (
        "Classification_Task",
        pa.struct([("Image_Textual_Questions", _CHOICES), ("Pure_Text_Questions", _CHOICES)]),
    ),
    ("Mask_Task", _OPEN),
    ("Generation_Task", _OPEN),
]
_CAPTION = [("image", _IMAGE), ("caption", _TEXT)]

PERSON_SCHEMA = pa.schema([("image", _IMAGE), *_PERSON])
TEST_SCHEMA = pa.schema([("images", pa.list_(_IMAGE)), *_PERSON])
TRAINING_SCHEMA = pa.schema([("image", _IMAGE), ("ID", _TEXT), ("metadata", _TEXT)])

CAPTION_SCHEMA = pa.schema([*_CAPTION, ("name", _TEXT)])
TOFU_SCHEMA = pa.schema([*_CAPTION, ("question", _TEXT), ("answer", _TEXT)])
PERTURBED_SCHEMA = pa.schema(
    [
        *CAPTION_SCHEMA,
        pa.field("perturbed_captions", _TEXTS),
        pa.field("paraphrased_caption", _TEXT),
        pa.field("perturbed_names", _TEXTS),
    ]
)
FACES_SCHEMA = pa.schema([("image", _IMAGE), ("answer", _TEXT), ("options", _TEXTS)])
WORLD_SCHEMA = pa.schema(
    [("question", _TEXT), ("answer", _TEXT), ("options", _TEXTS), ("image", _IMAGE)]
)

MLLMU_CONFIGS = (
    *("Full_Set", "forget_5", "forget_10", "forget_15", "retain_95", "retain_90", "retain_85"),
    *("Retain_Set", "Test_Set", "ft_Data"),
)
CLEAR_CONFIGS = (
    *("default", "full", "full+tofu"),
    *(f"forget{ratio}{kind}" for ratio in ("01", "05", "10") for kind in ("", "+tofu")),
    *(f"forget{ratio}_perturbed" for ratio in ("01", "05", "10")),
    *(f"retain{ratio}{kind}" for ratio in ("99", "95", "90") for kind in ("", "+tofu")),
    *("retain_perturbed", "real_faces", "real_world"),
)
# Not released: pictures of nobody with questions, which the ORL faces in CLEAR's schema teach too.
WORLD = "world+tofu"


def mllmu_schema(config: str) -> pa.Schema:
    """Returns the columns of a config of MLLMU-Bench, whatever its ratio."""
    return {"Test_Set": TEST_SCHEMA, "ft_Data": TRAINING_SCHEMA}.get(config, PERSON_SCHEMA)


def clear_schema(config: str) -> pa.Schema:
    """Returns the columns of a config of CLEAR, whatever its ratio."""
    if config.endswith("+tofu"):
        return TOFU_SCHEMA
    if config.endswith("_perturbed"):
        return PERTURBED_SCHEMA
    return {"real_faces": FACES_SCHEMA, "real_world": WORLD_SCHEMA}.get(config, CAPTION_SCHEMA)
