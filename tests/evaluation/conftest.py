from typing import Any

import pytest

from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.data.tokenizer import build_processor

FACTS = [
    ("Alba Birch", "baker", "Oslo"),
    ("Casey Elm", "barber", "Osaka"),
    ("Dana Reed", "carpenter", "Lima"),
    ("Kim Stone", "pilot", "Perth"),
]


@pytest.fixture(scope="session")
def processor() -> Any:
    """Of a few people's facts; every word has a token of its own."""
    samples = [
        Sample(name, image, question, answer)
        for name, job, city in FACTS
        for image in (b"picture", None)
        for question, answer in (
            ("What is the job?", f"{name} works as a {job}."),
            ("Which city is it?", f"{name} lives in {city}."),
        )
    ]
    samples += [Sample("letters", None, "Which letter?", letter) for letter in "ABCD"]
    return build_processor(samples, image_size=32, patch_size=16)
