"""Rules of short answers by hand, and against public implementations."""

import importlib.metadata
import importlib.util

import pytest

from mmunlearner_jax.evaluation.short_answers import (
    collapsed,
    normalised,
    read_letter,
    read_yes_no,
    scored_short,
    vqa_credit,
)

COLORS = ("red", "green", "blue", "black")


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C)", "C"),
        (" D) black", "D"),
        ("A. a cat on the mat", "A"),
        ("The answer is B", "B"),
        ("Option C.", "C"),
        ("It is green.", "B"),
        ("A boat with a green sail", "B"),  # the article is no option
        ("A boat on the wide sea", None),
        ("B or C", None),
        ("red and green", None),
        ("E", None),
        ("b", None),
        ("greenish", None),
        ("", None),
    ],
)
def test_the_letter_of_an_answer(response, letter):
    assert read_letter(response, COLORS) == letter


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("Yes, no doubt.", "yes"),
        ("No, there is not. Yes!", "no"),
        ("There is not.", None),
        ("Nothing", None),
        ("", None),
    ],
)
def test_the_first_yes_or_no(response, said):
    assert read_yes_no(response) == said


def line(rule, response, answer="", **fields):
    empty = {"accepted": [answer], "options": [], "letters": ""}
    return {**empty, "rule": rule, "response": response, "answer": answer, **fields}


@pytest.mark.parametrize(
    ("line", "scores"),
    [
        (line("exact", "Red. ", "red"), {"correct": True}),
        (line("exact", "dark red", "red"), {"correct": False}),
        (line("yes_no", "yes", "Yes"), {"said": "yes", "correct": True}),
        (line("yes_no", "maybe", "No"), {"said": None, "correct": False}),
        (
            line("letter", "B", "green", options=COLORS, letters="B"),
            {"said": "B", "correct": True},
        ),
        (line("words", "It is Seven!", "7", accepted=["7", "seven"]), {"correct": True}),
        (line("words", "17", "7", accepted=["7", "seven"]), {"correct": False}),
    ],
)
def test_lines_are_scored_by_their_rule(line, scores):
    assert scored_short(line) == scores


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule 'x' is none of letter, yes_no"):
        scored_short(line("x", "y"))


@pytest.mark.parametrize(
    ("same", "others", "credit"),
    [
        # k of ten agree: leaving one of them out leaves k - 1, of the others leaves k
        (0, 10, 0.0),
        (1, 9, 0.9 * 1 / 3),
        (2, 8, 0.2 * 1 / 3 + 0.8 * 2 / 3),
        (3, 7, 0.3 * 2 / 3 + 0.7),
        (4, 6, 1.0),
        (10, 0, 1.0),
    ],
)
def test_vqa_credit_is_the_mean_over_nine_of_ten_people(same, others, credit):
    answers = ["a Cup."] * same + [f"mug {n}" for n in range(others)]
    assert vqa_credit("cup", answers) == pytest.approx(credit)
    found = scored_short(line("vqa", "cup", accepted=answers))
    assert found == {"credit": pytest.approx(credit, abs=1e-6), "correct": credit == 1}


# What lmms_eval 0.7.3 gives (MIT): lmms_eval.tasks._task_utils.vqa_eval_metric.
NORMALISED = {
    "A cat.": "cat",
    "the Two dogs": "2 dogs",
    "dont know": "don't know",
    "It's a bus-stop": "it 's bus stop",
    "$5.00, please": "$5.00 please",
    "1,000": "1000",
    "black / white": "black white",
    "black/white": "black white",
    "yes!": "yes",
    "Dr. Who": "dr who",
    "none": "0",
    "couldnt've": "couldn't've",
    "Don't": "don't",
    "hed've": "he'd've",
    "somebody'd": "somebodyd",
    "wouldn'tve": "wouldn't've",
    "y'alldve": "y'alldve",
    "red;green": "red green",
    "3.5 oz.": "3.5 oz",
    "what?\n": "what",
    "state-of-the art": "state of art",
    "rock & roll": "rock & roll",
    "it`s": "it s",
    '"quoted"': "quoted",
    "coca-cola zero": "coca cola 0",
    "a.m.": "am",
    "ten (10)": "10 10",
    "unanswerable": "unanswerable",
    "x - y": "x y",
    "w/ milk": "w milk",
    "he's": "he 's",
    "oclock": "o'clock",
    " o'clock ": "o'clock",
    "50%": "50%",
    "ma'am": "ma'am",
    "'ow's'at": "'ow 's'at",
    "ow's'at": "ow 's'at",
    "they'dve": "they'd've",
    "cant": "can't",
    "won't.": "won't",
    "The": "",
    "thats, it": "that's it",
}


@pytest.mark.parametrize("answer", NORMALISED)
def test_answers_are_normalised_as_by_the_server(answer):
    assert normalised(answer) == NORMALISED[answer]


def test_answers_are_normalised_as_by_lmms_eval():
    """Runs where the package is installed; its own dependencies are not needed."""
    try:
        files = importlib.metadata.distribution("lmms_eval")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pip install --no-deps lmms_eval")
    path = files.locate_file("lmms_eval/tasks/_task_utils/vqa_eval_metric.py")
    spec = importlib.util.spec_from_file_location("vqa_eval_metric", str(path))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.EvalAIAnswerProcessor()
    for answer in (*NORMALISED, *module.EvalAIAnswerProcessor.CONTRACTIONS):
        assert normalised(answer) == server(answer), answer


def test_a_question_with_rotations_is_right_if_all_of_them_are():
    def rotation(group, correct):
        line = {"split": "general_x", "task": "short", "group": group}
        return line | {"correct": correct}

    lines = [rotation("1", True), rotation("2", True), rotation("1", False), rotation("2", True)]
    lines += [rotation("", False), rotation("", True)]
    assert [x["correct"] for x in collapsed(lines)] == [False, True, False, True]
    assert [x["correct"] for x in lines] == [True, True, False, True, False, True]
