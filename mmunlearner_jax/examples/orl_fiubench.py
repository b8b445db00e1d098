"""The ORL faces in FIUBench's schema: the same people and profiles, one photograph of each.

`full.json` has one record a line, `split.json` the IDs of 1, 5 and 10 % of the people, `images/`
the photographs. Each of the six facts and the name is asked once, with two other wordings, the
answer in other words, three wrong answers, and the fact as the keyword.

Write it with `python -m mmunlearner_jax.examples.orl --benchmark=fiubench --out=DIR --seed=0`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmunlearner_jax.data.benchmarks.fiubench import FACES, RATIOS, SPLITS
from mmunlearner_jax.examples.facts import FACTS, Profile, draw_options, fill, name_fact
from mmunlearner_jax.examples.orl_people import PEOPLE, draw_people, writing_folder

PICTURED = "this person"


def write_orl_fiubench(out: str | Path, *, seed: int, people: int = PEOPLE) -> None:
    """Writes the benchmark; a seed gives the same people as `write_orl_benchmark`.

    Args:
        out: Folder to write; must not exist, or be empty.
        seed: Decides profiles, wrong answers and the people to forget.
        people: Number of people.

    Raises:
        InputError: `out` is not empty, or the package that carries the photographs is missing or
            altered.
    """
    rng = np.random.default_rng(seed)
    known = draw_people(rng, people)
    names = tuple(profile.name for profile in known.profiles)
    with writing_folder(out) as folder:
        (folder / "images").mkdir()
        lines = []
        for number, (profile, photos) in enumerate(
            zip(known.profiles, known.photos, strict=True), start=1
        ):
            (folder / "images" / photos[0]["path"]).write_bytes(photos[0]["bytes"])
            record = {"unique_id": f"s{number}", "image_path": f"images/{photos[0]['path']}"}
            lines.append(json.dumps(record | {"qa_list": _asked(rng, profile, names)}) + "\n")
        (folder / FACES).write_text("".join(lines))
        splits = {
            f"forget{ratio}": [
                f"s{number + 1}" for number in known.split(max(1, round(people * ratio / 100)))[0]
            ]
            for ratio in RATIOS
        }
        (folder / SPLITS).write_text(json.dumps(splits))


def _asked(
    rng: np.random.Generator, profile: Profile, names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Returns the questions about a person, as elements of `qa_list`."""
    facts = {**FACTS, "name": name_fact(names)}
    values = {**profile.values, "name": profile.name}
    questions = []
    for key, fact in facts.items():
        value = values[key]
        wrong = [option for option in draw_options(rng, value, fact.values) if option != value]
        asked, *others = (fill(wording, PICTURED) for wording in fact.taught[:3])
        questions.append(
            {
                "question": asked,
                "answer": fact.answer(profile.name, value),
                "paraphrased_question": others,
                "paraphrased_answer": f"{profile.name}: {value}.",
                "perturbed_answer": [fact.answer(profile.name, other) for other in wrong],
                "keywords": [value],
            }
        )
    return questions
