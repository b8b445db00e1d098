"""PPU-Bench: single facts are forgotten or kept; faults of its splits are one line."""

import json
import shutil

import pytest

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.data.benchmarks.ppu import PPUBench, ppu_schema
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.orl_ppu import FORGOTTEN, SENSITIVE, write_orl_ppu
from tests.helpers.benchmarks import Tables, png


@pytest.fixture(scope="module")
def orl(tmp_path_factory):
    out = tmp_path_factory.mktemp("orl") / "ppu"
    write_orl_ppu(out, seed=0, people=20)
    return out


def opened(folder, request):
    data = Config().with_values({"data.request": request}).data
    bench = open_benchmark(folder, data, 0)
    assert isinstance(bench, PPUBench)
    return bench, *bench.split(15)


def test_a_complete_request_forgets_people(orl):
    bench, forget, retain = opened(orl, "complete")
    assert (forget, retain) == ("forget_complete_15", "retain_complete_15")
    assert len(bench.people(forget)) == 3 and len(bench.people(retain)) == 17
    assert not {*bench.people(forget)} & {*bench.people(retain)}
    assert len(bench.training(forget)) == len(bench.text_training(forget)) == 3 * 6 * 4
    questions = bench.scored(forget, retain)
    assert len(questions["forget"]) == 3 * 6 * 3 * 2
    assert set(bench.names()) == {*bench.people(bench.everyone)}


def test_a_selective_request_forgets_sensitive_facts_of_everybody(orl):
    bench, forget, retain = opened(orl, "selective")
    assert bench.people(forget) == bench.people(retain) == bench.people(bench.everyone)
    assert len(bench.training(forget)) == 20 * len(SENSITIVE) * 4
    assert len(bench.training(retain)) == 20 * (6 - len(SENSITIVE)) * 4


def test_a_personal_request_forgets_some_facts_and_keeps_others_of_the_same_people(orl):
    bench, forget, retain = opened(orl, "persona")
    assert bench.people(forget) == bench.people(retain) and len(bench.people(forget)) == 6
    forgotten, kept = ({*bench.training(config)} for config in (forget, retain))
    assert not forgotten & kept and len(forgotten) == 6 * len(FORGOTTEN) * 4
    questions = bench.scored(forget, retain, photos_per_person=1)
    assert len(questions["forget"]) == 6 * len(FORGOTTEN) * 3 * 2
    assert len(questions["retain"]) == 6 * 3 * 2  # one of each person, task and modality
    assert {q.person for q in questions["forget"]} == {q.person for q in questions["retain"]}


SPLITS = {
    "no such ratio": ("complete", {"forget5": ["s1"]}, "complete_split.json: has no forget15"),
    "no list": ("complete", {"forget15": "s1"}, "complete_split.json: the list is no list of IDs"),
    "an unknown person": (
        "complete",
        {"forget15": ["s1", "s99"]},
        "complete_split.json: the list: entry 1, s99, is the ID of no taught row",
    ),
    "an entry without an ID": (
        "selective",
        [{"name": "x"}],
        "selective_split.json: the list: entry 0, None, is the ID of no",
    ),
    "an ID that is no fact": (
        "persona",
        {"delete_ids": ["s1-x"], "keep_ids": ["s1-city"]},
        "persona_split.json: delete_ids: entry 0, s1-x, is the ID of no taught row",
    ),
    "a fact in both": (
        "persona",
        {"delete_ids": ["s1-city"], "keep_ids": ["s1-city"]},
        "persona_split.json: s1-city is in delete_ids and keep_ids; remove one",
    ),
    "nothing to keep": (
        "persona",
        {"delete_ids": ["s1-city"], "keep_ids": []},
        "persona_split.json: leaves nothing to forget, or nothing to keep",
    ),
}


@pytest.mark.parametrize("fault", SPLITS)
def test_a_fault_of_a_split_is_named(orl, tmp_path, fault):
    request, split, said = SPLITS[fault]
    folder = shutil.copytree(orl, tmp_path / "ppu")
    (folder / f"split/{request}_split.json").write_text(json.dumps(split))
    with pytest.raises(InputError, match=said) as error:
        opened(folder, request)
    assert "\n" not in str(error.value) and ";" in str(error.value)


def test_a_split_that_is_missing_or_damaged_is_named(orl, tmp_path):
    folder = shutil.copytree(orl, tmp_path / "ppu")
    (folder / "split/persona_split.json").write_text("{")
    with pytest.raises(InputError, match="persona_split.json: cannot be read as JSON"):
        opened(folder, "persona")
    (folder / "split/persona_split.json").unlink()
    with pytest.raises(InputError, match="persona_split.json.*; fetch data/split"):
        opened(folder, "persona")
    shutil.copytree(folder / "train_pair_orl", folder / "train_pair_other")
    with pytest.raises(InputError, match="holds train_pair_orl, train_pair_other of train_pair_"):
        opened(folder, "complete")


def asked(**cells):
    row = {"sample_id": "1", "subject_id": "a", "subject": "A", "task_type": "classification"}
    row |= {"question": "Job?", "answer_text": "x", "answer_label": "B"}
    row |= {"option_a": "baker", "option_b": "judge"}
    return row | {"image": {"bytes": png(9), "path": None}} | cells


ROWS = {
    "a letter outside the options": ({"answer_label": "C"}, "answer_label 'C' is none of .* A, B;"),
    "a gap": ({"option_a": ""}, "option_a, option_b, option_c, option_d are .*; leave no gap"),
    "another task": ({"task_type": "cloze"}, "task_type 'cloze' is not 'classification';"),
    "no question": ({"question": ""}, "question '' with answer 'judge': one is empty"),
    "no picture": ({"image": {"bytes": b"x", "path": None}}, "image cannot be decoded"),
}


@pytest.mark.parametrize("fault", ROWS)
def test_a_fault_of_a_row_is_named(tmp_path, fault):
    cells, said = ROWS[fault]
    pair = {"sample_id": "1", "subject_id": "a", "question": "Who?", "generated_answer": "A."}
    pair |= {"image": {"bytes": png(9), "path": None}, "subject": "A"}
    others = {name: [asked(task_type=name)] for name in ("cloze", "generation")}
    tables = {f"ppu_eval_{name}": rows for name, rows in others.items()}
    tables |= {"train_pair_x": [pair, pair | {"subject_id": "b", "sample_id": "2"}]}
    tables["ppu_eval_classification"] = [asked(**cells)]
    folder = Tables(tmp_path, tables, ppu_schema).write()
    (folder / "split").mkdir()
    (folder / "split/complete_split.json").write_text(json.dumps({"forget15": ["a"]}))
    bench, forget, retain = opened(folder, "complete")
    with pytest.raises(InputError, match=f"parquet: row 0: {said}"):
        bench.scored(forget, retain)
