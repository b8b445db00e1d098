"""FIUBench's files: read as released and as written from the ORL faces; faults are one line."""

import json

import pytest

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.data.benchmarks.fiubench import FIUBench, turn
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.scores import scored, summarise
from mmunlearner_jax.examples.orl_fiubench import write_orl_fiubench
from tests.helpers.benchmarks import png


@pytest.fixture(scope="module")
def orl(tmp_path_factory):
    out = tmp_path_factory.mktemp("orl") / "fiubench"
    write_orl_fiubench(out, seed=0, people=40)
    return out


def record(number):
    """A record as released: texts and lists of texts."""
    return {
        "unique_id": number,
        "image_path": f"./dataset/faces/{number}.png",
        "qa_list": [
            {
                "question": "what disease does she have?",
                "answer": "She has asthma.",
                "paraphrased_question": ["Which illness?", "Is she ill?", "What ails her?"],
                "paraphrased_answer": "It is asthma.",
                "perturbed_answer": ["She has flu.", "She has gout."],
                "keywords": ["asthma"],
            }
        ],
    }


def write(folder, records=None, splits=None):
    (folder / "faces").mkdir(parents=True, exist_ok=True)
    for number in range(4):
        (folder / f"faces/{number}.png").write_bytes(png(40 * number))
    records = [record(n) for n in range(4)] if records is None else records
    (folder / "full.json").write_text(json.dumps(records))
    (folder / "split.json").write_text(json.dumps(splits or {"forget1": [0], "forget5": [0, 1]}))
    return folder


def test_orl_has_the_people_of_every_ratio_once(orl):
    bench = open_benchmark(orl, Config().data, 0)
    assert isinstance(bench, FIUBench)
    assert [len(bench.people(f"forget{ratio}")) for ratio in (1, 5, 10)] == [1, 2, 4]
    assert bench.split(10) == ("forget10", "retain") and len(bench.people("retain")) == 36
    assert len(bench.training("full")) == 40 * 7 and bench.text_training("full") == []
    questions = bench.scored(*bench.split(10))
    assert {k: len(v) for k, v in questions.items()} == {
        **{"forget": 28, "paraphrased": 56, "retain": 252}
    }
    first = questions["forget"][0]
    assert len(first.perturbed) == 3 and first.keywords[0] in first.answer
    assert turn(first) == first.question


def test_the_released_form_is_read(tmp_path):
    bench = FIUBench(write(tmp_path))
    assert bench.split(5) == ("forget5", "retain") and bench.people("retain") == ["2", "3"]
    questions = bench.scored("forget5", "retain")
    assert [q.question for q in questions["paraphrased"][:3]] == [
        *("Which illness?", "Is she ill?", "What ails her?")
    ]
    first = questions["forget"][0]
    assert first.image == png(0) and first.paraphrase == "It is asthma."
    assert first.perturbed == ("She has flu.", "She has gout.")


def test_json_lines_are_read_and_records_behind_400_left_out(tmp_path):
    records = [record(number) for number in range(402)]
    (write(tmp_path) / "full.json").write_text("\n".join(map(json.dumps, records)))
    assert len(FIUBench(tmp_path).people("full")) == 400


def test_the_share_of_keywords_is_scored():
    line = {"split": "forget", "modality": "vqa", "task": "generation", "answer": "She has asthma."}
    line |= {"response": "Asthma, I think", "keywords": ["asthma", "gout"], "options": []}
    assert scored(line)["keyword_share"] == 0.5
    assert summarise([scored(line)])["forget"]["vqa"]["keywords"]["value"] == 0.5


def without(field):
    return [{k: v for k, v in record(0).items() if k != field}, *map(record, range(1, 4))]


def with_question(**fields):
    changed = record(0)
    changed["qa_list"][0] |= fields
    return [changed, *map(record, range(1, 4))]


FAULTS = {
    "no id": ({"records": without("unique_id")}, "full.json: row 0: unique_id is missing"),
    "no questions": ({"records": without("qa_list")}, "full.json: row 0: qa_list is missing"),
    "one id twice": (
        {"records": [record(0), record(0)]},
        "full.json: row 1: unique_id 0 is there twice",
    ),
    "no object": (
        {"records": [record(0) | {"qa_list": ["x"]}]},
        "full.json: row 0: qa_list is no list of objects",
    ),
    "an id in no record": (
        {"splits": {"forget5": [0, 77]}},
        "split.json: forget5: unique_id 77 is not among",
    ),
    "a split that is no list": ({"splits": {"forget5": "0"}}, "split.json: forget5 is no list"),
    "everybody is forgotten": (
        {"splits": {"forget5": [0, 1, 2, 3]}},
        "split.json: nobody is in no split",
    ),
    "no such ratio": ({"splits": {"forget1": [0]}}, "split.json: has no forget5; set .* one of 1"),
    "no picture": (
        {"records": [record(0) | {"image_path": "9.png"}, *map(record, range(1, 4))]},
        "full.json: row 0: image_path 9.png is no file of",
    ),
    "no answer": (
        {"records": with_question(answer="")},
        r"full.json: row 0: qa_list\[0\]: answer is empty",
    ),
    "no keywords": (
        {"records": with_question(keywords=[])},
        r"full.json: row 0: qa_list\[0\]: keywords is empty",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_file_row_and_field(tmp_path, fault):
    given, said = FAULTS[fault]
    write(tmp_path, **given)
    with pytest.raises(InputError, match=said) as error:
        bench = FIUBench(tmp_path)
        bench.scored(*bench.split(5))
    assert "\n" not in str(error.value) and ";" in str(error.value)


def test_what_is_no_json_is_named(tmp_path):
    (write(tmp_path) / "full.json").write_text("[{")
    with pytest.raises(InputError, match="full.json: cannot be read as JSON"):
        FIUBench(tmp_path)
    (tmp_path / "split.json").unlink()
    (tmp_path / "full.json").write_text(json.dumps([record(0)]))
    with pytest.raises(InputError, match="split.json.*fetch"):
        FIUBench(tmp_path)
