"""The ORL faces in PPU-Bench's schema: single facts are forgotten or kept.

A fact of a person is a `sample_id` ("s7-city"). `train_pair_orl` has it in each taught wording
about one photograph, `train_pair_orl_qa` in words; `ppu_eval_*` ask for it in wordings that
training never uses, about the photograph and in words. The split "selective" forgets city and birth
year of everybody, "persona" three facts of 30 % of the people, and keeps their others.

Write it with `python -m mmunlearner_jax.examples.orl --benchmark=ppu --out=DIR --seed=0`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmunlearner_jax.data.benchmarks.ppu import EVAL, FORGET, KEEP, OPTIONS, PAIR, ppu_schema
from mmunlearner_jax.examples.facts import FACTS, Profile, draw_options, fill
from mmunlearner_jax.examples.orl_people import PEOPLE, draw_people, write_tables, writing_folder

RATIOS = (5, 15, 30)
SENSITIVE = ("city", "birth year")
FORGOTTEN = tuple(FACTS)[:3]  # of a person of the request "persona"
PICTURED = "this person"

Rows = list[dict[str, Any]]


def write_orl_ppu(out: str | Path, *, seed: int, people: int = PEOPLE) -> None:
    """Writes the benchmark: a folder with a parquet file for each config, and `split/`.

    Args:
        out: Folder to write; must not exist, or be empty.
        seed: Decides profiles, options and the people to forget.
        people: Number of people.

    Raises:
        InputError: `out` is not empty, or the package that carries the photographs is missing or
            altered.
    """
    rng = np.random.default_rng(seed)
    known = draw_people(rng, people)
    tables: dict[str, Rows] = {}
    for number, (profile, photos) in enumerate(zip(known.profiles, known.photos, strict=True), 1):
        for config, rows in _about(rng, f"s{number}", profile, photos[0]).items():
            tables.setdefault(config, []).extend(rows)
    forgotten = {
        ratio: [f"s{n + 1}" for n in known.split(max(1, round(people * ratio / 100)))[0]]
        for ratio in RATIOS
    }
    everybody = [f"s{n + 1}" for n in range(people)]
    some = forgotten[max(RATIOS)]
    splits = {
        "complete": {f"forget{ratio}": ids for ratio, ids in forgotten.items()},
        "selective": [{"id": f"{who}-{key}"} for who in everybody for key in SENSITIVE],
        "persona": {
            FORGET: [f"{who}-{key}" for who in some for key in FORGOTTEN],
            KEEP: [f"{who}-{key}" for who in some for key in FACTS if key not in FORGOTTEN],
        },
    }
    with writing_folder(out) as folder:
        write_tables(folder, {name: (ppu_schema(name), rows) for name, rows in tables.items()})
        (folder / "split").mkdir()
        for name, split in splits.items():
            (folder / f"split/{name}_split.json").write_text(json.dumps(split))


def _about(
    rng: np.random.Generator, who: str, profile: Profile, photo: dict[str, Any]
) -> dict[str, Rows]:
    """Returns the rows about a person, by config."""
    tables: dict[str, Rows] = {}
    for key, fact in FACTS.items():
        value = profile.values[key]
        row = {"sample_id": f"{who}-{key}", "subject_id": who, "subject": profile.name}
        options = draw_options(rng, value, fact.values)
        told = fact.answer(profile.name, value)
        for asked, image in ((PICTURED, photo), (profile.name, None)):
            pairs = f"{PAIR}orl" if image else f"{PAIR}orl_qa"
            tables.setdefault(pairs, []).extend(
                row | {"image": image, "question": fill(x, asked), "generated_answer": told}
                for x in fact.taught
            )
            for task, wording, answer in (
                ("classification", fact.choice, value),
                ("cloze", fact.cloze, value),
                ("generation", fact.generation, told),
            ):
                scored = {"task_type": task, "question": fill(wording, asked), "image": image}
                scored |= {"answer_text": answer}
                if task == "classification":
                    scored |= dict(zip(OPTIONS, options, strict=True))
                    scored |= {"answer_label": "ABCD"[options.index(value)]}
                tables.setdefault(f"{EVAL}{task}", []).append(row | scored)
    return tables
