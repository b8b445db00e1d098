"""PPU-Bench: public figures whom a pretrained model knows; requests may name single facts.

Source: "PPU-Bench: Real-World Multimodal Benchmark for Personalized Partial Unlearning";
https://huggingface.co/datasets/closerG/ppu-bench, and `data/split/*.json` of its code. What is
forgotten is what a certain model answers, so the taught configs are per model (`train_pair_NAME`,
with pictures, and `train_pair_NAME_qa`, in words). A request is about people ("complete", a share
of them), about sensitive facts of everybody ("selective"), or about some facts of some people,
whose other facts must stay ("persona"). So a fact, by `sample_id`, is forgotten or kept, not a
person.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord, Check, ScoredKind, no_check
from mmunlearner_jax.data.benchmarks.columns import IMAGE, TEXT
from mmunlearner_jax.data.benchmarks.mllmu import prompts
from mmunlearner_jax.data.benchmarks.parquet import (
    ParquetBench,
    ParquetRow,
    Problem,
    clean,
    configs,
)
from mmunlearner_jax.data.samples import Question, Sample, Task, option_letters
from mmunlearner_jax.errors import InputError, listed, shown
from mmunlearner_jax.files import read_json_value

Request = Literal["complete", "selective", "persona"]

TASKS: tuple[Task, ...] = ("classification", "cloze", "generation")
OPTIONS = ("option_a", "option_b", "option_c", "option_d")
PAIR, IN_WORDS, EVAL = "train_pair_", "_qa", "ppu_eval_"
_PERSON = [("sample_id", TEXT), ("subject_id", TEXT), ("subject", TEXT)]
PAIR_SCHEMA = pa.schema(
    [*_PERSON, ("image", IMAGE), ("question", TEXT), ("generated_answer", TEXT)]
)
WORDS_SCHEMA = pa.schema([*_PERSON, ("question", TEXT), ("generated_answer", TEXT)])
EVAL_SCHEMA = pa.schema(
    [
        *_PERSON,
        *((name, TEXT) for name in ("task_type", "question", "answer_text", "answer_label")),
        *((name, TEXT) for name in OPTIONS),
        ("image", IMAGE),
    ]
)
FORGET, KEEP = "delete_ids", "keep_ids"
_MEND = "fetch data/split of PPU-Bench's code into the folder split"


def ppu_schema(config: str) -> pa.Schema:
    """Returns the columns of a config that are read."""
    if config.startswith(EVAL):
        return EVAL_SCHEMA
    return WORDS_SCHEMA if config.endswith(IN_WORDS) else PAIR_SCHEMA


class PPUBench(ParquetBench):
    """A reader of PPU-Bench; unusable records are treated as in `MLLMUBench`.

    Args:
        root: Folder that holds the config folders, one pair of taught ones among them, and
            `split/{complete,selective,persona}_split.json`.
        seed: Seed of all random choices.
        request: What is to be forgotten.
        max_bad_fraction: Tolerated fraction of unusable records in each call.
        check: See `ParquetBench`.

    Raises:
        InputError: The folder holds no taught config, or those of several models.
    """

    person_column = "subject_id"

    def __init__(
        self,
        root: str | Path,
        *,
        seed: int = 0,
        request: Request = "complete",
        max_bad_fraction: float = 0.0,
        check: Check = no_check,
    ):
        super().__init__(root, seed=seed, max_bad_fraction=max_bad_fraction, check=check)
        self.request = request
        pairs = [x for x in configs(self.root) if x.startswith(PAIR) and not x.endswith(IN_WORDS)]
        if len(pairs) != 1:
            raise InputError(
                f"{self.root}: holds {listed(pairs) or 'none'} of {PAIR}NAME; leave there the one"
                " of your model"
            )
        self.taught = self.everyone = pairs[0]
        self._facts: dict[str, tuple[set[str], str]] = {}  # of a config: IDs, and their column

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of the forget and the retain config of the request, after checks.

        Args:
            ratio: Percentage of the people, of the request "complete"; others ignore it.

        Raises:
            InputError: The file of the split is missing, damaged, lacks the ratio, names an unknown
                ID, or forgets and keeps one fact; or nothing is to be forgotten, or kept.
        """
        file = self.root / f"split/{self.request}_split.json"
        whole = read_json_value(file, mend=_MEND)
        rows = self._rows(self.taught, "sample_id", "subject_id")
        column = "subject_id" if self.request == "complete" else "sample_id"
        known = {clean(row[column]) for row in rows}
        if self.request == "complete":
            gone = _ids(file, _member(file, whole, f"forget{ratio}"), known)
            kept = known - gone
        elif self.request == "selective":
            gone = _ids(file, whole, known)
            kept = known - gone
        else:
            gone, kept = (
                _ids(file, _member(file, whole, name), known, name) for name in (FORGET, KEEP)
            )
        if both := sorted(gone & kept):
            raise InputError(f"{file}: {shown(both[0])} is in {FORGET} and {KEEP}; remove one")
        if not (gone and kept):
            raise InputError(f"{file}: leaves nothing to forget, or nothing to keep; {_MEND}")
        name = f"{self.request}_{ratio}" if self.request == "complete" else self.request
        self._facts = {f"forget_{name}": (gone, column), f"retain_{name}": (kept, column)}
        forget, retain = self._facts
        return forget, retain

    def people(self, config: str) -> list[str]:
        """Returns the people of a config, each once; one may be in both, with other facts."""
        rows = self._of(config, self._rows(self.taught, "sample_id", "subject_id"))
        return list(dict.fromkeys(row["subject_id"] for row in rows))

    def names(self) -> dict[str, str]:
        """Returns the names of all people, by `subject_id`."""
        rows = self._rows(self.taught, "subject_id", "subject")
        return {row["subject_id"]: clean(row["subject"]) or row["subject_id"] for row in rows}

    def training(self, config: str) -> list[Sample]:
        """Returns what the model answers about the pictures of a config."""
        rows = self._of(config, self._rows(self.taught, *PAIR_SCHEMA.names))
        return self._sift(self._lesson(row) for row in rows)

    def text_training(self, config: str) -> list[Sample]:
        """Returns what the model answers in words; nothing without `train_pair_NAME_qa`."""
        in_words = f"{self.taught}{IN_WORDS}"
        if in_words not in configs(self.root):
            return []
        rows = self._of(config, self._rows(in_words, *WORDS_SCHEMA.names))
        return self._sift(self._lesson(row) for row in rows)

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> dict[str, list[Question]]:
        """Returns all scored questions, by split: forget, retain.

        Args:
            forget: Config of the facts to forget.
            retain: Config of the other facts.
            photos_per_person: Most rows of each person, task and modality to keep; None: all.

        Raises:
            InputError: A file, column or record is missing or unusable.
        """
        questions: dict[str, list[Question]] = {"forget": [], "retain": []}
        for task in TASKS:
            rows = self._rows(f"{EVAL}{task}", *EVAL_SCHEMA.names)
            for split, config in (("forget", forget), ("retain", retain)):
                most = photos_per_person if split == "retain" else None
                drawn = self._draw(
                    (
                        (f"{row['subject_id']} {bool(_pictured(row))}", row)
                        for row in self._of(config, rows)
                    ),
                    most,
                )
                questions[split] += self._sift(x for row in drawn for x in self._asked(row, task))
        return questions

    def _of(self, config: str, rows: Iterable[ParquetRow]) -> list[ParquetRow]:
        """Returns the rows about the facts of a config."""
        if config == self.everyone:
            return list(rows)
        ids, column = self._facts[config]
        return [row for row in rows if clean(row[column]) in ids]

    def _lesson(self, row: ParquetRow) -> Sample | Problem:
        image, problem = None, None
        if "image" in row.cells:
            image, problem = self.picture(row, row["image"])
        question, answer = clean(row["question"]), clean(row["generated_answer"])
        if problem:
            return problem
        if not (question and answer):
            pair = f"question {question!r} with generated_answer {answer!r}"
            return row.problem(f"{pair}: one is empty")
        return Sample(row["subject_id"], image, question, answer)

    def _asked(self, row: ParquetRow, task: Task) -> Iterator[Question | Problem]:
        image, problem = None, None
        if _pictured(row):
            image, problem = self.picture(row, row["image"])
        question, answer = clean(row["question"]), clean(row["answer_text"])
        kind, options, letter = clean(row["task_type"]), (), ""
        if problem:
            yield problem
            return
        if kind != task:
            yield row.problem(f"task_type {kind!r} is not {task!r}; fetch the released file")
            return
        if task == "classification":
            given = [clean(row[name]) for name in OPTIONS]
            options, letter = tuple(filter(None, given)), clean(row["answer_label"])
            letters = option_letters(options)
            if not options or given[: len(options)] != list(options):
                yield row.problem(f"{', '.join(OPTIONS)} are {given}; leave no gap")
                return
            if letter not in [*letters]:
                wrong = f"answer_label {letter!r} is none of the options {', '.join(letters)}"
                yield row.problem(f"{wrong}; correct it")
                return
            answer = options[letters.index(letter)]
        if not (question and answer):
            yield row.problem(f"question {question!r} with answer {answer!r}: one is empty")
            return
        modality = "qa" if image is None else "vqa"
        person = row["subject_id"]
        yield Question(person, modality, task, image, question, answer, options, letter)


def _pictured(row: ParquetRow) -> bool:
    return any((row["image"] or {}).values())


def _member(file: Path, whole: Any, name: str) -> Any:
    if not isinstance(whole, dict) or name not in whole:
        has = listed(whole) if isinstance(whole, dict) else "no object"
        raise InputError(f"{file}: has no {name}, but {has}; give another ratio or {_MEND}")
    return whole[name]


def _ids(file: Path, entries: Any, known: set[str], where: str = "") -> set[str]:
    """Returns the IDs of a list of texts, numbers or objects with `id` or `sample_id`."""
    place = f"{file}: {where or 'the list'}"
    if not isinstance(entries, list):
        raise InputError(f"{place} is no list of IDs; {_MEND}")
    ids = set()
    for number, entry in enumerate(entries):
        found = entry.get("id", entry.get("sample_id")) if isinstance(entry, dict) else entry
        if not isinstance(found, str | int) or str(found) not in known:
            raise InputError(
                f"{place}: entry {number}, {shown(found)}, is the ID of no taught row; {_MEND}"
            )
        ids.add(str(found))
    return ids


PPU = BenchmarkRecord(
    name="ppu",
    title="PPU-Bench",
    repository="closerG/ppu-bench",
    files=("*.parquet", "*.json"),
    dataset="ppu_bench",
    folder=f"{EVAL}classification",
    configs=(*(f"{EVAL}{task}" for task in TASKS), "unlearning_target"),
    schema=ppu_schema,
    reader=PPUBench,
    options=("request",),
    by_person=False,
    kinds={
        ("forget", "vqa"): ScoredKind("Facts to forget, pictures", falls=True, headline=True),
        ("forget", "qa"): ScoredKind("Facts to forget, in words", headline=True),
        ("retain", "vqa"): ScoredKind("Facts to keep, pictures", chosen_by=True, headline=True),
        ("retain", "qa"): ScoredKind("Facts to keep, in words", chosen_by=True),
    },
    turn=prompts.turn,
    whole_prompt=prompts.whole_prompt,
)
PPUBench.record = PPU
