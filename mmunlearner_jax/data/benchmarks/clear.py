"""Reader of any directory in CLEAR's parquet schema: the released files or the ORL faces.

CLEAR (https://huggingface.co/datasets/therem/CLEAR) gives faces to TOFU's invented authors. A
config ("forget05") holds captioned photographs. The config with "+tofu" added to this name holds
the same photographs without names, and TOFU's questions in words. A row with a picture is a
caption, a row without one is a question (D-25: CLEAR's picture loop takes rows without a picture).
"""

from collections.abc import Iterator
from string import ascii_uppercase

import pyarrow as pa

from mmunlearner_jax.data.benchmarks.base import BenchmarkRecord, ScoredKind, listed
from mmunlearner_jax.data.benchmarks.columns import IMAGE, TEXT, TEXTS
from mmunlearner_jax.data.benchmarks.parquet import ParquetBench, ParquetRow, Problem, clean
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import InputError

_CAPTION = [("image", IMAGE), ("caption", TEXT)]


CAPTION_SCHEMA = pa.schema([*_CAPTION, ("name", TEXT)])
TOFU_SCHEMA = pa.schema([*_CAPTION, ("question", TEXT), ("answer", TEXT)])
PERTURBED_SCHEMA = pa.schema(
    [
        *CAPTION_SCHEMA,
        pa.field("perturbed_captions", TEXTS),
        pa.field("paraphrased_caption", TEXT),
        pa.field("perturbed_names", TEXTS),
    ]
)
FACES_SCHEMA = pa.schema([("image", IMAGE), ("answer", TEXT), ("options", TEXTS)])
WORLD_SCHEMA = pa.schema(
    [("question", TEXT), ("answer", TEXT), ("options", TEXTS), ("image", IMAGE)]
)

CLEAR_CONFIGS = (
    *("default", "full", "full+tofu"),
    *(f"forget{ratio}{kind}" for ratio in ("01", "05", "10") for kind in ("", "+tofu")),
    *(f"forget{ratio}_perturbed" for ratio in ("01", "05", "10")),
    *(f"retain{ratio}{kind}" for ratio in ("99", "95", "90") for kind in ("", "+tofu")),
    *("retain_perturbed", "real_faces", "real_world"),
)
# Not a released config: questions about pictures of nobody, which the ORL faces teach as well.
WORLD = "world+tofu"


def clear_schema(config: str) -> pa.Schema:
    """Returns the columns of a config of CLEAR, of any forget ratio."""
    if config.endswith("+tofu"):
        return TOFU_SCHEMA
    if config.endswith("_perturbed"):
        return PERTURBED_SCHEMA
    return {"real_faces": FACES_SCHEMA, "real_world": WORLD_SCHEMA}.get(config, CAPTION_SCHEMA)


NAME_QUESTION = "What is the name of the person in the image?"
# CLEAR's own prompt for the likelihoods of names; the blank at the end is as published.
NAME_OPENING = "The name of the person on the image is "
CAPTION_QUESTIONS = (
    "What can you see in this picture?",
    "Tell me about the content of this image",
    "Can you give a description of the image?",
    "What is depicted in the image?",
    "Explain what you observe in the picture.",
    "Describe the image in detail.",
    "What is the main subject of this image?",
    "Can you describe the scene or objects in the image?",
    "What is happening in this image?",
)


class ClearBench(ParquetBench):
    """A reader of CLEAR.

    A person's ID is the name. TOFU's rows name nobody, so their `person` is "", and their config
    alone decides whether they are forgotten. Unusable records are treated as in `MLLMUBench`.

    Args:
        root: Folder that holds the config folders.
        seed: Seed of a photograph's caption question, of the right option's place among the
            options, and of the choice of photographs where not all are used.
        max_bad_fraction: Tolerated fraction of unusable records in each call.
        check: See `ParquetBench`.

    Raises:
        InputError: `root` is not a folder that holds configs.
    """

    taught = everyone = "full"
    person_column = "name"

    def split(self, ratio: int) -> tuple[str, str]:
        """Returns the names of the forget and the retain config of a ratio, after checks.

        Args:
            ratio: Percentage of the people to forget: 1, 5 or 10 as released.

        Raises:
            InputError: The benchmark has no such ratio, one of the configs is empty, a person or a
                question is in both configs, a person is never taught, `retain_perturbed` asks about
                a person to forget, or `forgetNN_perturbed` about somebody else.
        """
        forget, retain = f"forget{ratio:02d}", f"retain{100 - ratio:02d}"
        self._check_apart(forget, retain)
        self._check_apart(forget, "retain_perturbed")
        self._check_within(forget, f"{forget}_perturbed")
        forgotten = {(x.question, x.answer) for x in self.text_training(forget)}
        if both := [x for x in self.text_training(retain) if (x.question, x.answer) in forgotten]:
            raise InputError(
                f"{self.root / retain}+tofu: question {both[0].question!r} is in {forget}+tofu,"
                " too; remove it from one of the two"
            )
        return forget, retain

    def names(self) -> dict[str, str]:
        """Returns the names of all people, which are also their IDs."""
        return {name: name for name in self.people("full")}

    def training(self, config: str, *, photos_per_person: int | None = None) -> list[Sample]:
        """Returns the photographs of a config, each with one of the nine questions and its caption.

        If there is a config `world+tofu`, its pictures of nobody follow those of "full", each with
        its own question and answer.

        Args:
            config: Name of the config: "full", "forget05" ...
            photos_per_person: Most photographs of a person, drawn by the seed; None: all.

        Raises:
            InputError: A file, column or record is missing or unusable.
        """
        rows = self._rows(config, "image", "caption", "name")
        drawn = self._draw(((row["name"], row) for row in rows), photos_per_person)
        samples = self._sift(self._caption(row) for row in drawn)
        if config == self.taught and (self.root / WORLD).is_dir():
            world = self._rows(WORLD, "image", "question", "answer")
            samples += self._sift(self._of_nobody(row, number) for number, row in enumerate(world))
        return samples

    def text_training(self, config: str) -> list[Sample]:
        """Returns TOFU's questions of a config, with their answers.

        Args:
            config: Name of the config without "+tofu": "full", "forget05" ...

        Raises:
            InputError: A file, column or record is missing or unusable.
        """
        rows = self._rows(f"{config}+tofu", "image", "caption", "question", "answer")
        return self._sift(record for row in rows for record in _tofu(row))

    def scored(
        self, forget: str, retain: str, *, photos_per_person: int | None = None
    ) -> dict[str, list[Question]]:
        """Returns all scored questions, by split: forget, retain, real_faces, realworld.

        Questions ask for a person's name (multiple choice and open) or for a caption, or are
        TOFU's. The pictures of `retain` are those of `retain_perturbed`, because the
        `retainNN_perturbed` that the published evaluation opens was never released.

        Args:
            forget: Config of the people to forget.
            retain: Config of the other people.
            photos_per_person: Most photographs of each of the other people; None: all.

        Raises:
            InputError: A file, column or record is missing or unusable.
        """
        return {
            "forget": self._portraits(f"{forget}_perturbed", None) + self._in_words(forget),
            "retain": self._portraits("retain_perturbed", photos_per_person)
            + self._in_words(retain),
            "real_faces": self._real("real_faces", "image", "answer", "options"),
            "realworld": self._real("real_world", "image", "question", "answer", "options"),
        }

    def _in_words(self, config: str) -> list[Question]:
        return [
            Question(sample.person, "qa", "generation", None, sample.question, sample.answer)
            for sample in self.text_training(config)
        ]

    def _portraits(self, config: str, photos_per_person: int | None) -> list[Question]:
        rows = self._rows(config, *clear_schema(config).names)
        drawn = self._draw(((row["name"], row) for row in rows), photos_per_person)
        return self._sift(record for row in drawn for record in self._portrait(row))

    def _portrait(self, row: ParquetRow) -> Iterator[Question | Problem]:
        """Yields the questions for the name, then the question for the caption."""
        captioned = self._caption(row)
        if isinstance(captioned, Problem):
            yield captioned
            return
        name, image = captioned.person, captioned.image
        assert image is not None
        wordings = NAME_QUESTION, NAME_OPENING
        yield from self._choice(row, name, image, wordings, name, "perturbed_names")
        paraphrase = clean(row["paraphrased_caption"])
        perturbed = tuple(map(clean, row["perturbed_captions"] or [""]))
        if not paraphrase:
            yield row.problem("paraphrased_caption is empty")
        elif not all(perturbed):
            yield row.problem("perturbed_captions is empty, or holds an empty caption")
        else:
            yield Question(
                name,
                "vqa",
                "generation",
                image,
                captioned.question,
                captioned.answer,
                paraphrase=paraphrase,
                perturbed=perturbed,
            )

    def _caption(self, row: ParquetRow) -> Sample | Problem:
        image, problem = self.picture(row, row["image"])
        if problem:
            return problem
        assert image is not None
        caption = clean(row["caption"])
        if not caption:
            return row.problem("caption is empty")
        question = self._generator(image).choice(CAPTION_QUESTIONS)
        return Sample(row["name"], image, str(question), caption)

    def _of_nobody(self, row: ParquetRow, number: int) -> Sample | Problem:
        image, problem = self.picture(row, row["image"])
        if problem:
            return problem
        question, answer = clean(row["question"]), clean(row["answer"])
        if not (question and answer):
            return row.problem(f"question {question!r} with answer {answer!r}: one is empty")
        return Sample(f"world-{number}", image, question, answer)

    def _real(self, config: str, *columns: str) -> list[Question]:
        rows = self._rows(config, *columns)
        return self._sift(q for number, row in enumerate(rows) for q in self._known(row, number))

    def _known(self, row: ParquetRow, number: int) -> Iterator[Question | Problem]:
        """Yields the questions about a real face or thing, which is not taught like the authors."""
        image, problem = self.picture(row, row["image"])
        if problem:
            yield problem
            return
        assert image is not None
        answer = clean(row["answer"])
        if "question" not in row.cells:
            person, wordings = answer, (NAME_QUESTION, NAME_OPENING)
        else:
            question = clean(row["question"])
            person, wordings = f"real_world-{number}", (question, question)
        if wordings[0] and answer:
            yield from self._choice(row, person, image, wordings, answer, "options")
        else:
            yield row.problem(f"question {wordings[0]!r} with answer {answer!r}: one is empty")

    def _choice(
        self,
        row: ParquetRow,
        person: str,
        image: bytes,
        wordings: tuple[str, str],
        answer: str,
        column: str,
    ) -> Iterator[Question | Problem]:
        """Yields the multiple-choice question and the open question, in their wordings.

        The right answer is inserted among the wrong ones of `column`, in the spelling of the row
        (D-26: CLEAR compares names in different spellings).
        """
        wrong = tuple(map(clean, row[column] or [""]))
        if not all(wrong):
            yield row.problem(f"{column} is empty, or holds an empty option")
        elif len(wrong) >= len(ascii_uppercase):
            yield row.problem(f"{column}: {len(wrong)} options, more than there are letters")
        elif answer in wrong:
            yield row.problem(f"{column}: {answer!r} is the right answer; list only wrong ones")
        else:
            place = self._generator(image + wordings[0].encode()).integers(len(wrong) + 1)
            options = (*wrong[:place], answer, *wrong[place:])
            letter = ascii_uppercase[place]
            yield Question(
                person, "vqa", "classification", image, wordings[0], answer, options, letter
            )
            yield Question(person, "vqa", "naming", image, wordings[1], answer, perturbed=wrong)


def _tofu(row: ParquetRow) -> Iterator[Sample | Problem]:
    """Yields a row's question; nothing if the row is a captioned picture."""
    pictured = any((row["image"] or {}).values())  # the bytes, or at least their path
    question, answer = clean(row["question"]), clean(row["answer"])
    if pictured and (question or answer):
        yield row.problem(f"image and question {question!r}; a row has only one of the two")
    elif pictured and not clean(row["caption"]):
        yield row.problem("image without caption")
    elif not pictured and not (question and answer):
        yield row.problem(f"no image, and question {question!r} with answer {answer!r}")
    elif not pictured:
        yield Sample("", None, question, answer)


def turn(question: Question) -> str:
    """Returns the user's turn: a question and its options, one per line, without an instruction.

    Source: the template in `CLEAR_eval.py` of MMUnlearner's published code.
    """
    return listed(question, ". ")


CLEAR = BenchmarkRecord(
    name="clear",
    title="CLEAR",
    repository="therem/CLEAR",
    revision="2e1fcda05dc6d413db995ce4395be4cbfeeec124",
    dataset="clear",
    folder="full+tofu",
    configs=CLEAR_CONFIGS,
    schema=clear_schema,
    reader=ClearBench,
    by_person=False,
    kinds={
        ("forget", "vqa"): ScoredKind(
            "Forgotten people, training photographs", falls=True, headline=True
        ),
        ("forget", "qa"): ScoredKind("Forgotten people, in words", chosen_by=True, headline=True),
        ("retain", "vqa"): ScoredKind("Other people, training photographs", chosen_by=True),
        ("retain", "qa"): ScoredKind("Other people, in words", chosen_by=True),
        ("real_faces", "vqa"): ScoredKind("Other faces", headline=True),
        ("realworld", "vqa"): ScoredKind("Other things, pictures", chosen_by=True),
    },
    turn=turn,
)
ClearBench.record = CLEAR
