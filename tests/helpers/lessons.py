"""The samples that the processors of the evaluation's tests are trained on."""

from typing import Any

from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.models.llava.tiny import build_processor

FACTS = [
    ("Alba Birch", "baker", "Oslo"),
    ("Casey Elm", "barber", "Osaka"),
    ("Dana Reed", "carpenter", "Lima"),
    ("Kim Stone", "pilot", "Perth"),
]


def lessons() -> list[Sample]:
    """Returns facts about a few people, and letters."""
    samples = [
        Sample(name, image, question, answer)
        for name, job, city in FACTS
        for image in (b"picture", None)
        for question, answer in (
            ("What is the job?", f"{name} works as a {job}."),
            ("Which city is it?", f"{name} lives in {city}."),
        )
    ]
    return samples + [Sample("letters", None, "Which letter?", letter) for letter in "ABCD"]


def word_processor() -> Any:
    """Returns a processor of LLaVA in which every word has a token of its own."""
    return build_processor(lessons(), image_size=32, patch_size=16)
