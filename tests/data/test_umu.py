"""UMU-Bench's files: read as released and as written from the ORL faces; faults are one line."""

import pytest

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.data.benchmarks.umu import SCHEMA, UMUBench
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.both_modalities import both_modalities
from mmunlearner_jax.examples.orl_umu import write_orl_umu
from tests.helpers.benchmarks import Tables, png

OPTIONS = {"A": "baker", "B": "judge", "C": "nurse", "D": "pilot"}


@pytest.fixture(scope="module")
def orl(tmp_path_factory):
    out = tmp_path_factory.mktemp("orl") / "umu"
    write_orl_umu(out, seed=0, people=12)
    return out


def asked(who):
    """Questions of the three tasks in one modality, as released."""
    return {
        "Classify": {"job": {"question": f"Job of {who}?", "options": OPTIONS, "answer": "B. x"}},
        "Cloze": {"job": {"question": f"{who} is a __.", "answer": "judge."}},
        "Generation": {"job": {"question": f"Say what {who} does.", "answer": "A judge."}},
    }


def row(person, grey, **columns):
    tasks = {
        task: repr({"unimodal": asked(person)[task], "muitimodal": asked("this person")[task]})
        for task in asked("")
    }
    taught = {"question": {"1": "Who?"}, "answer": {"1": f"{person}."}}
    made = {"ID": person, "image": {"bytes": png(grey), "path": None}, "Biography": "A life."}
    return made | tasks | {"MM_QA": repr(taught), "UM_QA": repr(taught)} | columns


def write(folder, **columns):
    rows = [row("a", 10, **columns), row("b", 20), row("c", 30)]
    tables = {"Full_Set": rows, "forget_5": rows[:1], "retain_95": rows[1:]}
    return Tables(folder, tables | {"Real_Person_Set": rows[2:]}, lambda config: SCHEMA).write()


def test_orl_asks_every_fact_both_ways(orl):
    bench = open_benchmark(orl, Config().data, 0)
    assert isinstance(bench, UMUBench)
    questions = bench.scored(*bench.split(10), photos_per_person=1)
    facts = {q.group for q in questions["forget"]}
    assert len(facts) == 3 * 6 and len(questions["retain"]) == 11 * 3 * 6 * 2
    pictured, in_words = questions["retain"][:2]
    assert (pictured.modality, in_words.modality) == ("vqa", "qa")
    assert pictured.group == in_words.group and pictured.options == in_words.options
    assert pictured.answer == in_words.answer == pictured.options["ABCD".index(pictured.letter)]
    assert len(bench.text_training("Full_Set")) == 12 * 6 * 4
    assert len(bench.training("forget_10")) == 8 * 6 * 4


@pytest.mark.parametrize("key", ["muitimodal", "multimodal"])
def test_the_released_spelling_and_the_right_one_are_read(tmp_path, key):
    text = repr({"unimodal": asked("a")["Cloze"], key: asked("this person")["Cloze"]})
    bench = UMUBench(write(tmp_path, Cloze=text))
    cloze = [q for q in bench.scored("forget_5", "retain_95")["forget"] if q.task == "cloze"]
    assert [(q.modality, q.answer) for q in cloze] == [("vqa", "judge"), ("qa", "judge")]


FAULTS = {
    "no literal": ({"Cloze": "{'unimodal': "}, "ID a: Cloze is no Python literal of the form"),
    "code": ({"Cloze": "__import__('os').getcwd()"}, "ID a: Cloze is no Python literal"),
    "no modality": ({"Cloze": "{'unimodal': {'job': {}}}"}, "ID a: Cloze is no Python literal"),
    "one modality alone": (
        {"Cloze": "{'unimodal': {'job': {}}, 'muitimodal': {'pet': {}}}"},
        "ID a: Cloze: 'job' is asked in one modality alone",
    ),
    "no answer": (
        {"Cloze": repr(dict.fromkeys(("unimodal", "muitimodal"), {"job": {"question": "__?"}}))},
        "ID a: Cloze: question '__[?]' with answer '': one is empty",
    ),
    "a letter outside the options": (
        {"Classify": repr(asked("a")["Classify"]).replace("B. x", "E. x")},
        "ID a: Classify: question .* must begin with an option's letter, A, B, C, D",
    ),
    "a gap": (
        {"Classify": repr(asked("a")["Classify"]).replace("'B': 'judge', ", "")},
        "ID a: Classify: question .* must be A, B, ... without a gap",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_file_row_and_column(tmp_path, fault):
    columns, said = FAULTS[fault]
    if "Classify" in columns:
        columns = {
            "Classify": f"{{'unimodal': {columns['Classify']}, 'muitimodal': "
            f"{columns['Classify']}}}"
        }
    bench = UMUBench(write(tmp_path, **columns))
    with pytest.raises(InputError, match=f"parquet: row 0: {said}") as error:
        bench.scored("forget_5", "retain_95")
    assert "\n" not in str(error.value)


def test_lessons_that_are_no_literal_are_named(tmp_path):
    bench = UMUBench(write(tmp_path, UM_QA="[]", MM_QA="{'question': {'1': 'Who?'}}"))
    for read, column in ((bench.text_training, "UM_QA"), (bench.training, "MM_QA")):
        with pytest.raises(InputError, match=f"row 0: ID a: {column} is no Python literal"):
            read("Full_Set")


def line(fact, modality, right, split="forget", task="cloze", **fields):
    made = {"split": split, "task": task, "group": fact, "modality": modality, "correct": right}
    return made | fields


def test_a_fact_counts_where_both_answers_are_right():
    """By hand: of four facts one is right both ways, one in neither, one has two pictures."""
    lines = [
        *(line("1", "vqa", True), line("1", "qa", True)),
        *(line("2", "vqa", False), line("2", "qa", False)),
        *(line("3", "vqa", True), line("3", "qa", False)),
        *(line("4", "vqa", True), line("4", "vqa", False), line("4", "qa", True)),
        line("5", "qa", True),  # asked one way
        {"split": "forget", "task": "cloze", "modality": "qa", "correct": True},
    ]
    found = both_modalities(lines)["forget"]["cloze"]
    assert found["both"]["value"] == 0.25 and found["both"]["n"] == 4
    assert found["neither"]["value"] == 0.25


@pytest.mark.parametrize(("split", "value"), [("forget", 0.68 / 1), ("retain", 0.32 / 1)])
def test_open_answers_are_joined_as_published(split, value):
    pair = [
        line("1", way, False, split, "generation", rougeL=x)
        for way, x in (("vqa", 0.2), ("qa", 0.8))
    ]
    zero = [line("2", way, False, split, "generation", rougeL=0.0) for way in ("vqa", "qa")]
    assert both_modalities(pair)[split]["generation"]["rougeL"]["value"] == pytest.approx(value)
    both = both_modalities(pair + zero)[split]["generation"]["rougeL"]
    assert both["value"] == pytest.approx(value / 2) and both["n"] == 2
    assert both_modalities([]) == {}
