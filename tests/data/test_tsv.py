"""Files of general ability: each family is read and asked as published; faults are one line."""

import dataclasses

import pytest

from mmunlearner_jax.config import Config
from mmunlearner_jax.data.abilities import ABILITIES, ability_kinds
from mmunlearner_jax.data.ability import BY_LETTER, IN_A_WORD, turn
from mmunlearner_jax.data.benchmarks.base import no_check
from mmunlearner_jax.data.tsv import read_set
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.questions import general_questions
from tests.helpers import abilities
from tests.helpers.benchmarks import png

LISTED = "Which color?\nA. red\nB. green\nC. blue"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return abilities.write(tmp_path_factory.mktemp("general"))


def read(name, folder):
    return read_set(ABILITIES[name], folder, no_check)


def test_every_set_is_asked_in_the_published_words(folder):
    turns = {name: turn(read(name, folder)[0]) for name in ABILITIES}
    four = f"{LISTED}\nD. black\n{BY_LETTER}"
    assert turns == {
        "pope": f"Is there a dog in the image?\n{IN_A_WORD}",
        "mmbench": f"Look.\n{four}",
        "mmbench_circular": f"Look.\n{four}",
        "mmstar": four,
        "mmmu": four,
        "scienceqa": f"Grass is green.\n{LISTED}\n{BY_LETTER}",
        "gqa": f"What is it?\n{IN_A_WORD}",
        "vizwiz": f"What is it?\n{IN_A_WORD}",
    }


def test_a_picture_may_be_that_of_another_row(folder):
    first, second, third = read("pope", folder)
    assert first.image == second.image == png(10) and third.image == png(20)
    assert first.person == second.person == "0"
    assert first.categories == ("random", "popular") and second.rule == "yes_no"


def test_mmbench_leaves_out_the_released_rotations(folder):
    assert [(q.letter, q.group) for q in read("mmbench", folder)] == [("B", ""), ("D", "")]
    assert [q.categories for q in read("mmbench", folder)] == [("color",)] * 2


def test_mmmu_has_questions_with_several_pictures_and_without_options(folder):
    pictured, opened = read("mmmu", folder)
    assert pictured.pictures == (png(80), png(90)) and pictured.rule == "letter"
    assert opened.accepted == ("7", "seven") and opened.rule == "words"


def test_vizwiz_has_the_answers_of_ten_people(folder):
    assert [len(q.accepted) for q in read("vizwiz", folder)] == [10, 10]


def test_rotations_keep_the_right_option_and_are_drawn_together(folder):
    config = Config().with_values(
        {
            "evaluate.general": ("mmbench_circular", "pope"),
            "evaluate.general_files": str(folder),
            "evaluate.most_questions": 1,
        }
    )
    questions = general_questions(config, no_check)
    rotated = questions["general_mmbench_circular"]
    assert len(rotated) == 4 and len({q.group for q in rotated}) == 1
    assert [q.options["ABCD".index(q.letter)] for q in rotated] == [rotated[0].answer] * 4
    assert len({q.options for q in rotated}) == len({q.letter for q in rotated}) == 4
    assert len(questions["general_pope"]) == 1


def test_pope_is_read_from_its_own_lines(tmp_path):
    questions = read("pope", abilities.write_lines(tmp_path / "pope"))
    assert [(q.categories, q.answer) for q in questions] == [
        (("adversarial",), "yes"),
        (("adversarial",), "no"),
        (("random",), "yes"),
        (("random",), "no"),
    ]
    assert questions[0].image == png(20) and questions[2].image == png(10)
    (tmp_path / "pope/val2014/COCO_20.png").unlink()
    with pytest.raises(InputError, match="adversarial.json: row 0: image COCO_20.png is no file"):
        read("pope", tmp_path / "pope")


def test_kinds_are_to_stay():
    kinds = ability_kinds(["pope"])
    assert kinds["general_pope", "vqa"].label == "General ability, POPE"
    assert not any(kind.falls or kind.chosen_by for kind in kinds.values())


# By fault: set, file, changes to its first row, and what is said.
FAULTS = {
    "no picture": ("mmstar", {"image": abilities.base64.b64encode(b"x" * 90).decode()}, "image "),
    "no base64": ("mmstar", {"image": "%" * 90}, "image is no base64"),
    "an index without a row": ("mmstar", {"image": "99"}, "image is the index 99, which no row"),
    "an index of an index": ("mmstar", {"image": "0"}, "image is the index 0, which no row"),
    "a broken list of pictures": ("mmstar", {"image": "['" + "A" * 90}, "image is no list"),
    "an answer that is no option": ("mmstar", {"answer": "E"}, "answer E is none of .* A, B, C, D"),
    "a gap": ("mmstar", {"B": ""}, "D is an option, but one before it is empty"),
    "no options": ("mmstar", dict.fromkeys("ABCD", ""), "A is empty; .* MMStar have options"),
    "no question": ("mmstar", {"question": " "}, "question is empty"),
    "neither yes nor no": ("pope", {"answer": "maybe"}, "answer maybe is neither yes nor no"),
    "a malformed list": ("vizwiz", {"answer": "['cup', 'mug"}, "answer .*is not a list of texts"),
    "a list of numbers": ("vizwiz", {"answer": "[1, 2]"}, "answer .*is not a list of texts"),
    "one answer": ("vizwiz", {"answer": "cup"}, "answer cup is not a list of texts"),
    "no answer": ("gqa", {"answer": ""}, "answer is empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_file_row_and_column(tmp_path, fault):
    name, cells, said = FAULTS[fault]
    file = ABILITIES[name].file
    rows = abilities.files()[file]
    rows[0] |= cells
    abilities.write(tmp_path, {file: rows})
    with pytest.raises(InputError, match=rf"{file}.tsv: row 0: {said}.*;") as error:
        read(name, tmp_path)
    assert "\n" not in str(error.value)


def test_what_is_no_such_file_is_named(tmp_path):
    with pytest.raises(InputError, match="MMStar.tsv: no such file; fetch MMStar.tsv"):
        read("mmstar", tmp_path)
    with pytest.raises(InputError, match="POPE.tsv: no such file, and no .*pope_.*; fetch"):
        read("pope", tmp_path)
    (tmp_path / "MMStar.tsv").write_text("index\tquestion\tA\n0\tWhich?\tred\n")
    with pytest.raises(InputError, match="MMStar.tsv: no column image, answer; it has index"):
        read("mmstar", tmp_path)
    (tmp_path / "MMStar.tsv").write_text("index\timage\tquestion\tanswer\n0\tx\n")
    with pytest.raises(InputError, match="MMStar.tsv: row 0: 2 cells for 4 columns"):
        read("mmstar", tmp_path)
    (tmp_path / "MMStar.tsv").write_text("index\timage\tquestion\tanswer\n")
    with pytest.raises(InputError, match="MMStar has no row that is asked"):
        read("mmstar", tmp_path)
    (tmp_path / "MMStar.tsv").write_bytes(b"index\timage\xff")
    with pytest.raises(InputError, match="MMStar.tsv: UnicodeDecodeError.*; fetch"):
        read("mmstar", tmp_path)
    (tmp_path / "coco_pope_random.json").write_text('{"question_id": 1, "text": "A dog?"}\n')
    with pytest.raises(InputError, match="random.json: row 0: has no image, label"):
        read("pope", tmp_path)


def test_a_few_unusable_rows_may_be_left_out(tmp_path):
    rows = abilities.files()["MMStar"]
    rows[0]["answer"] = "E"
    abilities.write(tmp_path, {"MMStar": rows})
    left = read_set(ABILITIES["mmstar"], tmp_path, no_check, max_bad_fraction=0.5)
    assert [q.letter for q in left] == ["C"]


def test_a_picture_that_the_model_cannot_take_is_named(folder):
    def check(size):
        raise InputError("is too small; enlarge it")

    with pytest.raises(InputError, match="row 0: image is too small; enlarge it"):
        read_set(ABILITIES["mmstar"], folder, check)


def test_options_are_checked():
    with pytest.raises(InputError, match="general_files is '': give the folder"):
        Config().with_values({"evaluate.general": ("pope",)})
    with pytest.raises(InputError, match="general is .*: give each set once"):
        Config().with_values({"evaluate.general": ("pope", "pope"), "evaluate.general_files": "x"})


def test_a_set_is_a_record(tmp_path):
    own = dataclasses.replace(ABILITIES["mmstar"], name="own", title="Own", file="Own")
    abilities.write(tmp_path, {"Own": abilities.files()["MMStar"]})
    assert own.split == "general_own" and len(read_set(own, tmp_path, no_check)) == 2
