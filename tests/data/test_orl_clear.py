"""The ORL faces in CLEAR's schema; `test_orl.py` has what is the same in MLLMU-Bench's."""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmunlearner_jax.data.benchmarks.clear import CLEAR_CONFIGS, WORLD, ClearBench, clear_schema
from mmunlearner_jax.data.benchmarks.columns import FILE
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.facts import FACTS
from mmunlearner_jax.examples.orl_clear import write_orl_clear
from mmunlearner_jax.models.llava.tiny import build_processor

FORGOTTEN = {1: 1, 5: 2, 10: 4}
PHOTOS, QUESTIONS = 8, 18
COUNTS = {
    "retain_perturbed": 36 * PHOTOS,
    "real_faces": 36 * 2,
    "real_world": 200,
    WORLD: 400,
    "default": 40 * PHOTOS,
}
for config, people in (
    ("full", 40),
    *((f"forget{ratio:02d}", count) for ratio, count in FORGOTTEN.items()),
    *((f"retain{100 - ratio}", 40 - count) for ratio, count in FORGOTTEN.items()),
):
    COUNTS |= {config: people * PHOTOS, f"{config}+tofu": people * (PHOTOS + QUESTIONS)}
    if config.startswith("forget"):
        COUNTS[f"{config}_perturbed"] = people * PHOTOS


@pytest.fixture(scope="module")
def orl_clear(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("orl_clear") / "benchmark"
    write_orl_clear(out, seed=0)
    return out


@pytest.fixture(scope="module")
def bench(orl_clear) -> ClearBench:
    return ClearBench(orl_clear)


def rows(root: Path, config: str) -> list[dict]:
    return pq.read_table(root / config / FILE).to_pylist()


def pictures(table: list[dict]) -> set[bytes]:
    return {row["image"]["bytes"] for row in table}


def test_clear_has_all_released_configs_with_their_columns(orl_clear):
    assert {path.name for path in orl_clear.iterdir()} == {*CLEAR_CONFIGS, WORLD} == set(COUNTS)
    for config, count in COUNTS.items():
        table = pq.read_table(orl_clear / config / FILE)
        assert table.schema.equals(clear_schema(config)), config
        assert table.num_rows == count, config
    assert rows(orl_clear, "default") == rows(orl_clear, "full")


def test_clear_has_nulls_where_the_release_has(orl_clear):
    for config in COUNTS:
        kinds = Counter(
            tuple(name for name, cell in row.items() if cell is None)
            for row in rows(orl_clear, config)
        )
        if config == WORLD:
            assert kinds == {("caption",): COUNTS[config]}
        elif config.endswith("+tofu"):
            captions = COUNTS[config.removesuffix("+tofu")]
            assert kinds == {
                ("question", "answer"): captions,
                ("image", "caption"): COUNTS[config] - captions,
            }
        else:
            assert kinds == {(): COUNTS[config]}, config


def test_clear_ratios_are_nested_complements_of_the_same_people_as_mllmu(bench, orl):
    everyone = bench.people("full")
    known = [row["biography"] for row in rows(orl, "Full_Set")[::PHOTOS]]
    assert all(name in biography for name, biography in zip(everyone, known, strict=True))
    smaller: set[str] = set()
    for ratio, count in FORGOTTEN.items():
        forget, retain = map(set, map(bench.people, bench.split(ratio)))
        assert len(forget) == count and smaller < forget
        assert forget | retain == set(everyone) and not forget & retain
        assert set(bench.people(f"forget{ratio:02d}_perturbed")) == forget
        smaller = forget
    assert set(bench.people("retain_perturbed")) == retain
    forgotten = {row["biography"] for row in rows(orl, "forget_10")}
    assert all(any(name in biography for biography in forgotten) for name in smaller)


def test_clear_asks_about_pictures_that_were_taught_where_the_release_does_and_else_not(orl_clear):
    taught = pictures(rows(orl_clear, "full"))
    assert len(taught) == 320
    for config in ("forget10_perturbed", "retain_perturbed"):
        assert pictures(rows(orl_clear, config)) < taught
    unseen = pictures(rows(orl_clear, "real_faces")) | pictures(rows(orl_clear, "real_world"))
    assert len(unseen) == 72 + 200
    assert not unseen & (taught | pictures(rows(orl_clear, WORLD)))


def test_clear_captions_name_the_person_and_perturbed_ones_are_wrong(orl_clear):
    names = {row["name"] for row in rows(orl_clear, "full")}
    values = {value for fact in FACTS.values() for value in fact.values}

    def told(caption: str) -> set[str]:
        return {value for value in values if value in caption.rstrip(".").replace(",", "").split()}

    facts: dict[str, set[str]] = {}
    for row in rows(orl_clear, "forget10_perturbed") + rows(orl_clear, "retain_perturbed"):
        name, caption, paraphrase = row["name"], row["caption"], row["paraphrased_caption"]
        assert caption != paraphrase and caption.startswith(name) and paraphrase.startswith(name)
        assert len(told(caption)) == 2
        assert told(caption) == told(paraphrase) == facts.setdefault(name, told(caption))
        assert len(set(row["perturbed_captions"])) == 4
        for wrong in row["perturbed_captions"]:
            assert wrong.startswith(name) != (told(wrong) == told(caption))
        assert len(set(row["perturbed_names"]) - {name}) == 3
        assert set(row["perturbed_names"]) < names
    assert set(facts) == names


def test_clear_is_read_whole(bench):
    forget, retain = bench.split(10)
    taught, text = bench.training(bench.taught), bench.text_training(bench.taught)
    assert (len(taught), len(text)) == (320 + 400, 40 * QUESTIONS)
    people = set(bench.names())
    assert len(people) == 40
    assert Counter(sample.person in people for sample in taught) == {True: 320, False: 400}
    for config, count in ((forget, 4), (retain, 36)):
        assert {sample.person for sample in bench.training(config)} == set(bench.people(config))
        assert len(bench.text_training(config)) == count * QUESTIONS
    asked = bench.scored(forget, retain, photos_per_person=2)
    kinds = {split: Counter((q.modality, q.task) for q in asked[split]) for split in asked}
    pictured, words = (("classification", "naming", "generation"), ("qa", "generation"))
    assert kinds == {
        "forget": {**{("vqa", task): 32 for task in pictured}, words: 4 * QUESTIONS},
        "retain": {**{("vqa", task): 72 for task in pictured}, words: 36 * QUESTIONS},
        "real_faces": {("vqa", task): 72 for task in pictured[:2]},
        "realworld": {("vqa", task): 200 for task in pictured[:2]},
    }


def test_clear_is_asked_in_words_that_training_uses(bench):
    """A model trained from nothing can't understand a word that it never met."""
    taught, text = bench.training(bench.taught), bench.text_training(bench.taught)
    processor = build_processor(taught + text)
    encoder = Encoder(processor)
    words: set[int] = set()
    for sample in taught + text:
        words.update(encoder.encode(sample)["input_ids"].tolist())
    # CLEAR's opening for names ends with a blank, before the template's own.
    words.update(processor.tokenizer(" ", add_special_tokens=False).input_ids)
    for questions in bench.scored(*bench.split(10), photos_per_person=1).values():
        for question in questions:
            prompt = encoder.prompt(question.question, question.image is not None)
            used = set(encoder.prompt_ids(prompt, [question.image] if question.image else []))
            said = (question.answer, question.paraphrase, *question.perturbed, *question.options)
            for answer in filter(None, said):
                used.update(processor.tokenizer(f" {answer}", add_special_tokens=False).input_ids)
            assert used <= words, question


def test_clear_of_one_seed_has_the_same_bytes_and_of_another_others(orl_clear, tmp_path):
    command = [sys.executable, "-m", "mmunlearner_jax.examples.orl", "--benchmark=clear"]
    subprocess.run([*command, f"--out={tmp_path / 'again'}", "--seed=0"], check=True)
    write_orl_clear(tmp_path / "other", seed=1)
    for config in COUNTS:
        first = (orl_clear / config / FILE).read_bytes()
        assert (tmp_path / "again" / config / FILE).read_bytes() == first
        assert (tmp_path / "other" / config / FILE).read_bytes() != first


def test_clear_is_not_written_over_something(orl_clear):
    with pytest.raises(InputError, match="exists already"):
        write_orl_clear(orl_clear, seed=0)


def test_clear_names_a_taught_picture_of_nobody_without_answer(orl_clear, tmp_path):
    shutil.copytree(orl_clear / "full", tmp_path / "full")
    (tmp_path / WORLD).mkdir()
    table = [row | {"answer": " "} for row in rows(orl_clear, WORLD)[:1]]
    pq.write_table(pa.Table.from_pylist(table, clear_schema(WORLD)), tmp_path / WORLD / FILE)
    with pytest.raises(InputError, match=r"world.tofu/train-.*: row 0: question .* with answer ''"):
        ClearBench(tmp_path).training("full")
