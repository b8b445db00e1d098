"""UMU-Bench: every fact is asked about a picture and in words, and counts if both are right.

Source: "UMU-Bench: Closing the Modality Gap in Multimodal Unlearning Evaluation", NeurIPS 2025;
https://huggingface.co/datasets/linbojunzi/UMU-bench, with MLLMU-Bench's people. A config is a
folder of parquet files. Its columns of questions hold Python literals; the key of the questions
about pictures is misspelt in the released files ("muitimodal").
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord, ScoredKind
from mmunlearner_jax.data.benchmarks.columns import IMAGE, TEXT
from mmunlearner_jax.data.benchmarks.mllmu import prompts
from mmunlearner_jax.data.benchmarks.parquet import ParquetBench, ParquetRow, Problem, clean
from mmunlearner_jax.data.literals import literal
from mmunlearner_jax.data.samples import Modality, Question, Sample, Task, option_letters

IN_WORDS, PICTURED = "unimodal", ("muitimodal", "multimodal")  # as released, and as meant
TASKS: dict[str, Task] = {
    "Classify": "classification",
    "Cloze": "cloze",
    "Generation": "generation",
}
SCHEMA = pa.schema(
    [
        ("ID", TEXT),
        ("image", IMAGE),
        *((name, TEXT) for name in ("Biography", "MM_QA", "UM_QA", *TASKS)),
    ]
)
_FORM = "{'unimodal': {KEY: {'question': ..., 'answer': ...}}, 'muitimodal': ...}"


class UMUBench(ParquetBench):
    """A reader of UMU-Bench; unusable records are treated as in `MLLMUBench`."""

    taught = everyone = "Full_Set"
    person_column = "ID"

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of the forget and the retain config of a ratio, after checks.

        Args:
            ratio: Percentage of the people to forget: 5, 10 or 15 as released.

        Raises:
            InputError: The benchmark has no such ratio, one of the configs is empty, a person is in
                both, or a person is never taught.
        """
        forget, retain = f"forget_{ratio}", f"retain_{100 - ratio}"
        self._check_apart(forget, retain)
        return forget, retain

    def names(self) -> dict[str, str]:
        """Returns the people's IDs; `Biography` is free text, which names them somewhere."""
        return {person: person for person in self.people(self.everyone)}

    def training(self, config: str) -> list[Sample]:
        """Returns what is taught about the pictures of a config (`MM_QA`)."""
        rows = self._rows(config, "ID", "image", "MM_QA")
        return self._sift(record for row in rows for record in self._lessons(row, "MM_QA"))

    def text_training(self, config: str) -> list[Sample]:
        """Returns what is taught in words about the people of a config (`UM_QA`)."""
        rows = self._rows(config, "ID", "UM_QA")
        samples = self._sift(record for row in rows for record in self._lessons(row, "UM_QA"))
        return list(dict.fromkeys(samples))  # a person with several pictures repeats them

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> dict[str, list[Question]]:
        """Returns all scored questions, by split: forget, retain, realworld (real people).

        Args:
            forget: Config of the people to forget.
            retain: Config of the other people.
            photos_per_person: Most rows of each of the other people; None: all.

        Raises:
            InputError: A file, column or record is missing or unusable.
        """
        return {
            "forget": self._questions(forget, None),
            "retain": self._questions(retain, photos_per_person),
            "realworld": self._questions("Real_Person_Set", photos_per_person),
        }

    def _lessons(self, row: ParquetRow, column: str) -> Iterator[Sample | Problem]:
        image, problem = None, None
        if column == "MM_QA":
            image, problem = self.picture(row, row["image"])
        whole = literal(row[column])
        asked = whole.get("question") if isinstance(whole, dict) else None
        told = whole.get("answer") if isinstance(whole, dict) else None
        if problem:
            yield problem
        elif not (isinstance(asked, dict) and isinstance(told, dict) and asked):
            form = "{'question': {KEY: ...}, 'answer': {KEY: ...}}"
            yield row.problem(f"ID {row['ID']}: {column} is no Python literal of the form {form}")
        else:
            for key, question in asked.items():
                pair = clean(question), clean(told.get(key))
                if all(pair):
                    yield Sample(row["ID"], image, *pair)
                else:
                    yield row.problem(
                        f"ID {row['ID']}: {column}: {key!r} has question {pair[0]!r} with answer"
                        f" {pair[1]!r}: one is empty"
                    )

    def _questions(self, config: str, photos: int | None) -> list[Question]:
        rows = self._rows(config, "ID", "image", *TASKS)
        drawn = self._draw(((row["ID"], row) for row in rows), photos)
        return self._sift(record for row in drawn for record in self._asked(row))

    def _asked(self, row: ParquetRow) -> Iterator[Question | Problem]:
        """Yields the questions of a row: of each fact about the picture, then in words."""
        image, problem = self.picture(row, row["image"])
        if problem:
            yield problem
            return
        for column, task in TASKS.items():
            place = f"ID {row['ID']}: {column}"
            whole = literal(row[column])
            parts = whole if isinstance(whole, dict) else {}
            words = parts.get(IN_WORDS)
            pictured = next((parts[name] for name in PICTURED if name in parts), None)
            if not (isinstance(words, dict) and isinstance(pictured, dict) and words):
                yield row.problem(f"{place} is no Python literal of the form {_FORM}")
            elif odd := sorted({*map(str, words)} ^ {*map(str, pictured)}):
                yield row.problem(f"{place}: {odd[0]!r} is asked in one modality alone")
            else:
                for key in words:
                    group = f"{place.removeprefix('ID ')}: {key}"
                    ways: tuple[tuple[Modality, bytes | None, Any], ...] = (
                        ("vqa", image, pictured[key]),
                        ("qa", None, words[key]),
                    )
                    for modality, seen, item in ways:
                        yield _question(row, place, task, modality, seen, item, group)


def _question(
    row: ParquetRow,
    place: str,
    task: Task,
    modality: Modality,
    image: bytes | None,
    item: Any,
    group: str,
) -> Question | Problem:
    item = item if isinstance(item, dict) else {}
    question, answer = clean(item.get("question")), clean(item.get("answer"))
    if not (question and answer):
        return row.problem(f"{place}: question {question!r} with answer {answer!r}: one is empty")
    options, letter = (), ""
    if task == "classification":
        given = item.get("options")
        texts = {k: clean(v) for k, v in given.items()} if isinstance(given, dict) else {}
        options, letter = tuple(texts[key] for key in sorted(texts)), answer.partition(".")[0]
        if "".join(sorted(texts)) != option_letters(options) or not all(options) or not options:
            return row.problem(
                f"{place}: question {question!r}: options {texts} must be A, B, ... without a gap,"
                " none empty"
            )
        if letter not in texts:
            wrong = f"{place}: question {question!r}: answer {answer!r}"
            return row.problem(f"{wrong} must begin with an option's letter, {', '.join(texts)}")
        answer = texts[letter]
    elif task == "cloze":
        answer = answer.partition(".")[0]  # as in the published code
    return Question(
        row["ID"], modality, task, image, question, answer, options, letter, group=group
    )


UMU = BenchmarkRecord(
    name="umu",
    title="UMU-Bench",
    repository="linbojunzi/UMU-bench",
    dataset="umu_bench",
    folder="Real_Person_Set",
    configs=(
        *("Full_Set", "Real_Person_Set"),
        *(f"forget_{ratio}" for ratio in (5, 10, 15)),
        *(f"retain_{100 - ratio}" for ratio in (5, 10, 15)),
    ),
    schema=lambda config: SCHEMA,
    reader=UMUBench,
    kinds={
        ("forget", "vqa"): ScoredKind("Forgotten people, pictures", falls=True, headline=True),
        ("forget", "qa"): ScoredKind("Forgotten people, in words", falls=True, headline=True),
        ("retain", "vqa"): ScoredKind("Other people, pictures", chosen_by=True, headline=True),
        ("retain", "qa"): ScoredKind("Other people, in words", chosen_by=True),
        ("realworld", "vqa"): ScoredKind("Real people, pictures", chosen_by=True),
        ("realworld", "qa"): ScoredKind("Real people, in words", chosen_by=True),
    },
    turn=prompts.turn,
    whole_prompt=prompts.whole_prompt,
)
UMUBench.record = UMU
