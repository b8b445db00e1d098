"""FIUBench: invented faces with invented private facts, which a first stage teaches.

Source: Ma et al., "Benchmarking Vision Language Model Unlearning via Fictitious Facial Identity
Dataset", arXiv 2411.03554; https://huggingface.co/datasets/gray311/FIUBench. `full.json` (JSON, or
JSON lines) has a record for each face, `split.json` the IDs to forget. There are no questions in
words. A person's ID is `unique_id`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord, Check, ScoredKind, no_check
from mmunlearner_jax.data.benchmarks.parquet import ParquetRow, Problem, clean, sift
from mmunlearner_jax.data.picture_files import PictureFiles
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import InputError, listed, shown
from mmunlearner_jax.files import read_bytes, read_json, read_json_value, read_lines

FACES, SPLITS = "full.json", "split.json"
MOST = 400  # records; the published code leaves out those behind them
RATIOS = (1, 5, 10)
_MEND = "fetch the released file again"
_FIELDS = ("unique_id", "image_path", "qa_list")
# Fields of a question: a text, or a text or a list of them.
_ONE, _SOME = ("question", "answer"), ("paraphrased_question", "perturbed_answer", "keywords")


class FIUBench:
    """A reader of FIUBench.

    Unusable questions are treated as in `ParquetBench`.

    Args:
        root: Folder that holds `full.json` and `split.json`, and the pictures at any depth.
        seed: Seed of all random choices; there are none.
        max_bad_fraction: Tolerated fraction of unusable questions in each call.
        check: See `ParquetBench`.

    Raises:
        InputError: A file is missing or unreadable.
    """

    record: BenchmarkRecord
    taught = everyone = "full"

    def __init__(
        self,
        root: str | Path,
        *,
        seed: int = 0,
        max_bad_fraction: float = 0.0,
        check: Check = no_check,
    ):
        self.root, self.seed, self.check = Path(root), seed, check
        self.max_bad_fraction = max_bad_fraction
        # `check` is set later: once a model is known.
        self._pictures = PictureFiles(self.root, lambda size: self.check(size))
        self._faces = {row["unique_id"]: row for row in _faces(self.root / FACES)}
        self._splits = _splits(self.root / SPLITS, self._faces)

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of the forget and the retain config of a ratio: 1, 5 or 10.

        The retained people are those of no forget split, as published.

        Raises:
            InputError: The benchmark has no such ratio, or nobody is retained.
        """
        forget = f"forget{ratio}"
        if forget not in self._splits:
            raise InputError(
                f"{self.root / SPLITS}: has no {forget}; set config.data.forget_ratio to one of"
                f" {listed(x.removeprefix('forget') for x in self._splits)}"
            )
        if not self.people("retain"):
            raise InputError(f"{self.root / SPLITS}: nobody is in no split; leave some people out")
        return forget, "retain"

    def people(self, config: str) -> list[str]:
        """Returns the IDs of the people of "full", "forgetN" or "retain"."""
        if config == self.everyone:
            return list(self._faces)
        if config in self._splits:
            return self._splits[config]
        forgotten = {person for people in self._splits.values() for person in people}
        return [person for person in self._faces if person not in forgotten]

    def names(self) -> dict[str, str]:
        """Returns the IDs of all people, who have no other names."""
        return {person: person for person in self._faces}

    def training(self, config: str) -> list[Sample]:
        """Returns the questions of a config's faces, with their answers.

        Raises:
            InputError: A picture or a question is missing or unusable.
        """
        made = self._sift(record for row in self._rows(config) for record in self._asked(row))
        return [Sample(q.person, q.image, q.question, q.answer) for q in made]

    def text_training(self, config: str) -> list[Sample]:
        """Returns no sample: nothing is taught in words."""
        return []

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> dict[str, list[Question]]:
        """Returns all scored questions, by split: forget, paraphrased, retain.

        `paraphrased` has the questions about the people to forget in other words.

        Args:
            forget: Config of the people to forget.
            retain: Config of the other people.
            photos_per_person: Is ignored, as there is one picture of each.

        Raises:
            InputError: A picture or a question is missing or unusable.
        """
        return {
            "forget": self._sift(x for row in self._rows(forget) for x in self._asked(row)),
            "paraphrased": self._sift(
                x for row in self._rows(forget) for x in self._asked(row, paraphrased=True)
            ),
            "retain": self._sift(x for row in self._rows(retain) for x in self._asked(row)),
        }

    def _rows(self, config: str) -> list[ParquetRow]:
        return [self._faces[person] for person in self.people(config)]

    def _sift(self, records: Iterable[Question | Problem]) -> list[Question]:
        return sift(records, self.max_bad_fraction)

    def _asked(self, row: ParquetRow, *, paraphrased: bool = False) -> Iterator[Question | Problem]:
        """Yields the questions about a face, or the same in other words."""
        image = self._pictures.read(row, row["image_path"], "image_path")
        if isinstance(image, Problem):
            yield image
            return
        for number, qa in enumerate(row["qa_list"]):
            place = f"qa_list[{number}]"
            values = _values(qa)
            if isinstance(values, str):
                yield row.problem(f"{place}: {values}; {_MEND}")
                continue
            others, wrong, keywords = values
            asked = others if paraphrased else (clean(qa["question"]),)
            for question in asked:
                yield Question(
                    row["unique_id"],
                    "vqa",
                    "generation",
                    image,
                    question,
                    clean(qa["answer"]),
                    paraphrase="" if paraphrased else _texts(qa, "paraphrased_answer")[0],
                    perturbed=() if paraphrased else wrong,
                    # An answer is right or wrong only where there is one thing to say.
                    accepted=keywords if len(keywords) == 1 else (),
                    keywords=keywords,
                )


def _faces(file: Path) -> Iterator[ParquetRow]:
    """Yields the first records of `full.json`, which is one list or has a record in each line."""
    is_list = read_bytes(file, mend=_MEND).lstrip().startswith(b"[")
    records = read_json_value(file, mend=_MEND) if is_list else read_lines(file, mend=_MEND)
    seen: set[str] = set()
    for number, record in enumerate(records[:MOST]):
        place = f"{file}: row {number}"
        has = record if isinstance(record, dict) else {}
        if missing := [name for name in _FIELDS if has.get(name) in (None, "", [])]:
            raise InputError(f"{place}: {', '.join(missing)} is missing or empty; {_MEND}")
        person, questions = str(has["unique_id"]), has["qa_list"]
        if person in seen:
            raise InputError(f"{place}: unique_id {shown(person)} is there twice; {_MEND}")
        if not isinstance(questions, list) or not all(isinstance(qa, dict) for qa in questions):
            raise InputError(f"{place}: qa_list is no list of objects; {_MEND}")
        seen.add(person)
        cells = {**has, "unique_id": person, "image_path": str(has["image_path"])}
        yield ParquetRow(place, cells)


def _splits(file: Path, faces: dict[str, ParquetRow]) -> dict[str, list[str]]:
    """Returns the IDs of each forget split, in the order of `full.json`, after checks."""
    whole = read_json(file, mend=_MEND)
    splits = {}
    for ratio in RATIOS:
        name, ids = f"forget{ratio}", whole.get(f"forget{ratio}")
        if ids is None:
            continue
        if not isinstance(ids, list) or not ids:
            raise InputError(f"{file}: {name} is no list of IDs; {_MEND}")
        wanted = {str(person) for person in ids}
        if unknown := sorted(wanted - faces.keys()):
            raise InputError(
                f"{file}: {name}: unique_id {shown(unknown[0])} is not among the first {MOST}"
                f" records of {FACES}; {_MEND}"
            )
        splits[name] = [person for person in faces if person in wanted]
    return splits


def _texts(qa: dict[str, Any], field: str) -> tuple[str, ...]:
    """Returns a field that is a text, a list of texts, or missing; ("",) if it is empty."""
    value = qa.get(field)
    given = value if isinstance(value, list) else [value]
    return tuple(map(clean, given)) or ("",)


def _values(qa: dict[str, Any]) -> tuple[tuple[str, ...], ...] | str:
    """Returns the fields that may be lists, or what is wrong with a question."""
    if empty := [field for field in _ONE if not clean(qa.get(field))]:
        return f"{empty[0]} is empty"
    values = tuple(_texts(qa, field) for field in _SOME)
    for field, texts in zip(_SOME, values, strict=True):
        if not all(texts):
            return f"{field} is empty, or holds an empty text"
    return values


def turn(question: Question) -> str:
    """Returns the user's turn: the question alone, as in the published code."""
    return question.question


FIU = BenchmarkRecord(
    name="fiubench",
    title="FIUBench",
    repository="gray311/FIUBench",
    files=("*.json", "*.jpg", "*.jpeg", "*.png"),
    dataset="fiubench",
    folder=FACES,
    configs=(),
    schema=lambda config: pa.schema([]),
    reader=FIUBench,
    kinds={
        ("forget", "vqa"): ScoredKind("Forgotten people", falls=True, headline=True),
        ("paraphrased", "vqa"): ScoredKind("Forgotten people, in other words", falls=True),
        ("retain", "vqa"): ScoredKind("Other people", chosen_by=True, headline=True),
    },
    turn=turn,
)
FIUBench.record = FIU
