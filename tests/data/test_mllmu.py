import copy
import json
import shutil
from collections import Counter

import pyarrow as pa
import pytest

from mmunlearner_jax.data.benchmarks.columns import TEXT, TEXTS
from mmunlearner_jax.data.benchmarks.mllmu import MLLMUBench
from mmunlearner_jax.data.benchmarks.mllmu.schema import ACCEPTED
from mmunlearner_jax.data.samples import Question, Sample
from mmunlearner_jax.errors import InputError


def test_orl_counts(bench):
    forget, retain = bench.split(10)
    assert (forget, retain) == ("forget_10", "retain_90")
    world = [person for person in bench.people("ft_Data") if person.startswith("world-")]
    assert len(world) == 1200
    assert len(bench.training("ft_Data")) == 320 * 28 + 1200 * 4
    assert len(bench.training(forget)) == 4 * 8 * 28
    assert len(bench.training(forget, photos_per_person=2)) == 4 * 2 * 28
    assert len(bench.training("ft_Data", world)) == 1200 * 4
    taught = bench.text_training(retain)
    described = [sample for sample in taught if sample.question.startswith("This person")]
    assert len(taught) - len(described) == 36 * 24 and len(described) > 36 * 24
    in_words = bench.text_training("ft_Data", world)
    assert len(in_words) == (54 + 18) * 4  # facts, and digits described by their neighbours
    test = bench.questions("Test_Set", bench.people(forget))
    assert Counter((question.modality, question.task) for question in test) == {
        ("vqa", "classification"): 4 * 2 * 7,
        ("vqa", "cloze"): 4 * 2 * 2,
        ("vqa", "generation"): 4 * 2 * 2,
        ("qa", "classification"): 4 * 12,
        ("qa", "cloze"): 4 * 3,
        ("qa", "generation"): 4 * 3,
    }


def test_published_files_are_read_as_they_are(published):
    bench = MLLMUBench(published.write(shards=2))
    assert bench.people("Full_Set") == ["000", "001", "002", "003"]
    assert bench.split(25) == ("forget_25", "retain_75")
    image = published.tables["ft_Data"][0]["image"]["bytes"]
    assert bench.training("forget_25") == [
        Sample("000", image, "Who?", "Person 000."),
        Sample("000", image, "What job?", "A judge."),
    ]
    options = ("baker", "judge", "nurse", "pilot")
    assert bench.questions("forget_25") == [
        Question("000", "vqa", "classification", image, "What is the job?", "judge", options, "B"),
        Question(
            "000", "qa", "classification", None, "What is the job of 000?", "judge", options, "B"
        ),
        Question("000", "vqa", "cloze", image, "Job: __.", "judge"),
        Question("000", "qa", "cloze", None, "000 is a __.", "judge"),
        Question("000", "vqa", "generation", image, "Say the job.", "A judge."),
    ]
    assert bench.questions("Full_Set", ["002"]) == bench.questions("retain_50", ["002"])


def test_published_text_training_is_the_scored_questions_with_the_right_option(published):
    bench = MLLMUBench(published.write(), text_source="Full_Set")
    assert bench.text_training("forget_50") == [
        Sample("000", None, "What is the job of 000?", "judge"),
        Sample("001", None, "What is the job of 001?", "judge"),
    ]
    assert len(bench.text_training("ft_Data", ["003"])) == 1
    with pytest.raises(InputError, match="ft_Data: no text question .* text_source"):
        MLLMUBench(published.root).text_training("forget_50")


def test_test_photographs_are_drawn_by_seed_and_person(published):
    root = published.write()

    def drawn(seed, people=None):
        questions = MLLMUBench(root, seed=seed).questions("Test_Set", people, photos_per_person=1)
        return {q.person: q.image for q in questions if q.task == "cloze" and q.image}

    every = MLLMUBench(root).questions("Test_Set")
    assert sum(question.modality == "vqa" for question in every) == 4 * 5 * 3
    assert sum(question.modality == "qa" for question in every) == 4 * 2
    assert drawn(0) == drawn(0) and len(drawn(0)) == 4
    assert drawn(0, ["002"])["002"] == drawn(0)["002"]
    assert len({tuple(drawn(seed).values()) for seed in range(5)}) > 1


def test_a_folder_without_benchmark(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="holds no CONFIG/"):
            MLLMUBench(path)


def test_a_ratio_that_is_not_there_lists_the_configs_that_are(bench, published):
    with pytest.raises(
        InputError, match="forget_20: no such config; there are .*forget_10, forget_15"
    ):
        bench.split(20)
    shutil.rmtree(published.write() / "retain_75")
    with pytest.raises(InputError, match="retain_75: no such config; there are .*forget_25"):
        MLLMUBench(published.root).split(25)


def test_a_missing_column_is_named_with_its_file(published):
    published.schemas["ft_Data"] = published.schemas["ft_Data"].remove(2)
    with pytest.raises(InputError, match=r"ft_Data/train-.*parquet: no column metadata; it has"):
        MLLMUBench(published.write()).training("forget_25")


def test_a_file_that_is_not_parquet(published):
    (published.write() / "forget_25" / "train-00000-of-00001.parquet").write_bytes(b"PAR")
    with pytest.raises(InputError, match="forget_25/train.*not a readable parquet file"):
        MLLMUBench(published.root).split(25)


def test_options_that_do_not_exist(published):
    root = published.write()
    with pytest.raises(InputError, match="text_source: 'Test_Set' is neither ft_Data nor Full"):
        MLLMUBench(root, text_source="Test_Set")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="photos_per_person: 0; give at least 1"):
        MLLMUBench(root).training("forget_25", photos_per_person=0)


def test_an_empty_forget_set(published):
    published.tables["forget_25"] = []
    with pytest.raises(InputError, match="forget_25: holds no row"):
        MLLMUBench(published.write()).split(25)


def test_a_person_in_both_sets(published):
    published.tables["retain_75"] = published.tables["Full_Set"]
    with pytest.raises(
        InputError, match="forget_25/.*: row 0: ID 000 is here and in .*retain_75/.*: row 0; remove"
    ):
        MLLMUBench(published.write()).split(25)


def test_a_person_who_is_not_taught(published):
    published.tables["ft_Data"] = published.tables["ft_Data"][1:]
    bench = MLLMUBench(published.write())
    with pytest.raises(
        InputError, match="forget_50/.*: row 0: ID 000 has no row in .*ft_Data; add one there"
    ):
        bench.training("forget_50")
    assert len(bench.training("retain_50")) == 4


def test_somebody_who_is_not_in_the_test_set(published):
    published.tables["Test_Set"] = published.tables["Test_Set"][1:]
    with pytest.raises(
        InputError, match="forget_25/.*: row 0: ID 000 has no row in .*Test_Set; add"
    ):
        MLLMUBench(published.write()).scored("forget_25", "retain_75")


def test_mllmu_asks_every_split(published):
    published.tables["Retain_Set"] = published.tables["Full_Set"][3:]
    published.schemas["Retain_Set"] = published.schemas["Full_Set"]
    bench = MLLMUBench(published.write())
    asked = bench.scored("forget_25", "retain_75", photos_per_person=1)
    unseen = bench.questions("Test_Set", photos_per_person=1)
    assert asked == {
        "forget": bench.questions("forget_25"),
        "test": [q for q in unseen if q.modality == "vqa" and q.person == "000"],
        "retain": bench.questions("retain_75", photos_per_person=1),
        "test_retain": [q for q in unseen if q.modality == "vqa" and q.person != "000"],
        "realworld": bench.questions("Retain_Set"),
    }
    every = bench.scored("forget_25", "retain_75")
    assert len(every["test"]) == 5 * len(asked["test"])
    assert set(asked["test"]) < set(every["test"])


def test_mllmu_asks_other_text_questions_of_the_test_set(published):
    tables = published.tables
    task = copy.deepcopy(tables["Test_Set"][0]["Classification_Task"])
    task["Pure_Text_Questions"][0]["Question"] = "Which job has 000?"
    tables["Test_Set"][0] = tables["Test_Set"][0] | {"Classification_Task": task}
    bench = MLLMUBench(published.write())
    asked = bench.scored("forget_25", "retain_75", photos_per_person=1)
    in_words = [q for q in bench.questions("Test_Set", people=["000"]) if q.modality == "qa"]
    assert [q for q in asked["test"] if q.modality == "qa"] == in_words
    assert {q.modality for q in asked["test_retain"]} == {"vqa"}


@pytest.mark.parametrize("biography", ["{", "[]", "{}", '{"Name": NaN}', None])
def test_a_biography_without_a_name(published, biography):
    rows = published.tables["Full_Set"]
    published.tables["Full_Set"] = [rows[0], rows[1] | {"biography": biography}]
    with pytest.raises(InputError, match="Full_Set/train-.*: row 1: ID 001: biography is no JSON"):
        MLLMUBench(published.write()).names()


def test_a_row_of_nobody(published):
    published.tables["Full_Set"][2]["ID"] = ""
    with pytest.raises(InputError, match="Full_Set/train-.*: row 2: ID is empty; fill it in"):
        MLLMUBench(published.write()).questions("Full_Set")


def test_other_nesting_is_refused(published):
    whole = published.schemas["Full_Set"]
    choices = whole.field("Classification_Task").type.field(0).type
    place = whole.get_field_index("Classification_Task")
    published.schemas["Full_Set"] = whole.set(place, pa.field("Classification_Task", choices))
    for row in published.tables["Full_Set"]:
        row["Classification_Task"] = []
    with pytest.raises(InputError, match="column Classification_Task is list<.*not struct<"):
        MLLMUBench(published.write()).questions("Full_Set")


def broken_rows(row: dict, config: str) -> dict[str, tuple[dict, str]]:
    """Returns changes to a row, each with what the error must say."""
    if config == "ft_Data":
        unanswered = json.dumps([{"Question": "Who?", "Answer": " "}])
        return {
            "no answer": ({"metadata": unanswered}, r"ID 001: metadata: question 'Who\?'"),
            "no question": ({"metadata": '[{"Answer": "A"}]'}, "ID 001: metadata: question ''"),
            "bad JSON": ({"metadata": "[{"}, "ID 001: metadata is no JSON"),
            "NaN": (
                {"metadata": '[{"Question": "Who?", "Answer": NaN}]'},
                "ID 001: metadata is no",
            ),
            "nothing": ({"metadata": "[]"}, "ID 001: metadata holds no question"),
            "null": ({"metadata": None}, "ID 001: metadata is no JSON list"),
            "not a list": ({"metadata": '{"Question": "Who?"}'}, "ID 001: metadata is no JSON"),
            "cut image": (
                {"image": {"bytes": row["image"]["bytes"][:40], "path": "x"}},
                "image cannot be decoded",
            ),
            "no image": ({"image": None}, "image is null"),
        }
    task = copy.deepcopy(row["Classification_Task"])
    task["Pure_Text_Questions"][0]["Correct_Answer"] = "E"
    return {
        "option": ({"Classification_Task": task}, "ID 001: .*Correct_Answer 'E' must be among"),
        "ground truth": (
            {"Mask_Task": [{"Question": "a __", "Ground_Truth": "", "Type": "Pure_Text"}]},
            "ID 001: Mask_Task: question 'a __' with Ground_Truth ''",
        ),
        "type": (
            {"Mask_Task": [{"Question": "a __", "Ground_Truth": "b", "Type": "Sound"}]},
            "ID 001: Mask_Task: Type 'Sound'",
        ),
        "image": ({"image": {"bytes": b"GIF", "path": "x"}}, "image cannot be decoded"),
    }


@pytest.mark.parametrize(
    ("config", "case"),
    [
        *(
            ("ft_Data", case)
            for case in (
                "no answer",
                "no question",
                "bad JSON",
                "NaN",
                "nothing",
                "null",
                "not a list",
                "cut image",
                "no image",
            )
        ),
        *(("Full_Set", case) for case in ("option", "ground truth", "type", "image")),
    ],
)
def test_a_record_that_cannot_be_used_is_named_or_tolerated(published, config, case):
    rows = published.tables[config]
    change, message = broken_rows(rows[1], config)[case]
    published.tables[config] = [rows[0], rows[1] | change, *rows[2:]]
    root = published.write()

    def read(**options):
        bench = MLLMUBench(root, **options)
        return bench.training(config) if config == "ft_Data" else bench.questions(config)

    with pytest.raises(InputError, match=f"{config}/train-.*parquet: row 1: {message}") as error:
        read()
    assert "\n" not in str(error.value) and "max_bad_fraction" in str(error.value)
    assert {"000", "002", "003"} <= {record.person for record in read(max_bad_fraction=0.3)}


def accepting(published, accepted, kind=TEXTS):
    """Gives the open question of every row accepted answers, of some type."""
    whole = published.schemas["Full_Set"]
    place = whole.get_field_index("Generation_Task")
    asked = [*whole.field("Generation_Task").type.value_type, pa.field(ACCEPTED, kind)]
    wider = pa.field("Generation_Task", pa.list_(pa.struct(asked)))
    published.schemas["Full_Set"] = whole.set(place, wider)
    for row in published.tables["Full_Set"]:
        row["Generation_Task"] = [row["Generation_Task"][0] | {ACCEPTED: accepted}]
    return MLLMUBench(published.write())


def accepted_answers(bench):
    return {q.accepted for q in bench.questions("Full_Set") if q.task == "generation"}


@pytest.mark.parametrize(
    ("given", "read"), [(["judge ", "magistrate"], ("judge", "magistrate")), ([], ()), (None, ())]
)
def test_mllmu_an_open_question_may_have_accepted_answers(published, given, read):
    assert accepted_answers(accepting(published, given)) == {read}


def test_mllmu_released_questions_have_no_accepted_answers(published):
    assert accepted_answers(MLLMUBench(published.write())) == {()}


@pytest.mark.parametrize(("accepted", "kind"), [(["judge", " "], TEXTS), ("judge", TEXT)])
def test_mllmu_accepted_answers_are_texts(published, accepted, kind):
    bench = accepting(published, accepted, kind)
    said = "Generation_Task: question 'Say the job.': Accepted_Answers .* must be a list of texts"
    with pytest.raises(InputError, match=said):
        bench.questions("Full_Set")


def test_mllmu_tasks_that_are_not_there_are_named(published):
    whole = published.schemas["Full_Set"]
    place = whole.get_field_index("Classification_Task")
    text_only = pa.struct([whole.field("Classification_Task").type.field("Pure_Text_Questions")])
    published.schemas["Full_Set"] = whole.set(place, pa.field("Classification_Task", text_only))
    with pytest.raises(InputError, match="column Classification_Task is struct<Pure.*not struct<I"):
        MLLMUBench(published.write()).questions("Full_Set")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"A": "", "B": "judge", "C": "nurse"}, "Options .* must be A, B, ... without a gap"),
        ({"A": "judge", "C": "nurse"}, "Options .* must be A, B, ... without a gap, none empty"),
    ],
)
def test_mllmu_options_keep_their_letters(published, options, said):
    row = copy.deepcopy(published.tables["Full_Set"][1])
    row["Classification_Task"]["Pure_Text_Questions"][0]["Options"] = options
    published.tables["Full_Set"][1] = row
    with pytest.raises(InputError, match=f"row 1: ID 001: Classification_Task.Pure.*{said}"):
        MLLMUBench(published.write()).questions("Full_Set")


def test_mllmu_a_row_without_any_task(published):
    empty = dict.fromkeys(("Classification_Task", "Mask_Task", "Generation_Task"))
    published.tables["Full_Set"][2] = published.tables["Full_Set"][2] | empty
    with pytest.raises(InputError, match="row 2: ID 002: Classification_Task, Mask_Task, Gen.*are"):
        MLLMUBench(published.write()).questions("Full_Set")


def test_mllmu_what_a_row_asks_twice_is_asked_twice(published):
    row = copy.deepcopy(published.tables["Full_Set"][0])
    row["Mask_Task"] = 2 * row["Mask_Task"]
    published.tables["Full_Set"] = [row, row]  # and two photographs of one person
    asked = MLLMUBench(published.write()).questions("Full_Set")
    counts = Counter((q.modality, q.question) for q in asked if q.task == "cloze")
    assert {modality: n for (modality, _), n in counts.items()} == {"vqa": 4, "qa": 2}


def test_mllmu_equal_options_keep_their_letter(published):
    row = copy.deepcopy(published.tables["Full_Set"][0])
    choice = row["Classification_Task"]["Pure_Text_Questions"][0]
    choice |= {"Options": dict.fromkeys("ABCD", "judge"), "Correct_Answer": "C"}
    published.tables["Full_Set"][0] = row
    (asked,) = [
        q
        for q in MLLMUBench(published.write()).questions("Full_Set", people=["000"])
        if q.modality == "qa" and q.options
    ]
    assert (asked.answer, asked.letter) == ("judge", "C")
