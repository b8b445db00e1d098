"""The published prompts of MLLMU-Bench and CLEAR, letter for letter."""

import dataclasses

import pytest

from mmunlearner_jax.data.benchmarks.clear import CLEAR
from mmunlearner_jax.data.benchmarks.mllmu.prompts import turn, whole_prompt
from mmunlearner_jax.data.samples import Question, Task, option_letters

ASKED = {
    ("classification", True): "USER: <image>\nWho?\nA: Ann\nB: Bea\nC: Cy\nD: Di\n"
    "Just give ONE letter representing the answer directly.\nASSISTANT:",
    ("classification", False): "USER:\nWho?\nA: Ann\nB: Bea\nC: Cy\nD: Di\n"
    "Just give ONE letter representing the answer directly.\nASSISTANT:",
    ("cloze", True): "USER: <image>\nIt is [Blank].\n"
    "Please **ONLY** provide the correct answer that should replace the [Blank].\nASSISTANT:",
    ("cloze", False): "USER:\nIt is [Blank].\n"
    "Please **ONLY** provide the correct answer that should replace the [Blank].\nASSISTANT:",
    ("generation", True): "USER: <image>\nWho?\nAnswer the question based on your trained"
    " knowledge in one sentence accurately in ENGLISH.\nASSISTANT: ",
    ("generation", False): "USER: Who?\nAnswer the question based on your trained knowledge"
    " in one sentence in ENGLISH.\nASSISTANT:",
}


def question(task: Task, pictured: bool) -> Question:
    return Question(
        person="s1",
        modality="vqa" if pictured else "qa",
        task=task,
        image=b"picture" if pictured else None,
        question="It is __." if task == "cloze" else "Who?",
        answer="Ann",
        options=("Ann", "Bea", "Cy", "Di") if task == "classification" else (),
        letter="A" if task == "classification" else "",
    )


@pytest.mark.parametrize(("task", "pictured"), ASKED)
def test_mllmu_prompts(task, pictured):
    asked = question(task, pictured)
    assert whole_prompt(asked) == ASKED[task, pictured]
    assert option_letters(asked.options) == ("ABCD" if task == "classification" else "")


SHOWN = {
    ("classification", True): "USER: <image>\nQuestion: Who?\nA: Ann\nB: Bea\nC: Cy\nD: Di\n"
    "Correct Answer: A\n",
    ("classification", False): "USER:\nQuestion: Who?\nA: Ann\nB: Bea\nC: Cy\nD: Di\n"
    "Correct Answer: A\n",
    ("cloze", True): "USER:<image>\nIt is [Blank].\n"
    "Please **ONLY** provide the correct answer that should replace the [Blank].\n"
    "Correct Answer: Ann\n",
    ("cloze", False): "USER:\nIt is [Blank].\n"
    "Please **ONLY** provide the correct answer that should replace the [Blank].\n"
    "Correct Answer: Ann\n",
}


@pytest.mark.parametrize(("task", "pictured"), SHOWN)
def test_mllmu_demonstrations(task, pictured):
    asked = question(task, pictured)
    few = dataclasses.replace(
        asked, shots=(asked, dataclasses.replace(asked, answer="Bea", letter="B"))
    )
    other = SHOWN[task, pictured].replace("Answer: Ann", "Answer: Bea")
    other = other.replace("Answer: A\n", "Answer: B\n")
    assert whole_prompt(few) == SHOWN[task, pictured] + other + ASKED[task, pictured]


# What Qwen2-VL's user says: no marks of pictures, which come first, and no "USER:".
TURNS = {
    ("classification", True): "\nWho?\nA: Ann\nB: Bea\nC: Cy\nD: Di\n"
    "Just give ONE letter representing the answer directly.",
    ("cloze", True): "\nIt is [Blank].\n"
    "Please **ONLY** provide the correct answer that should replace the [Blank].",
    (
        "generation",
        True,
    ): "Who?\nAnswer the question based on your trained knowledge in one sentence"
    " accurately in ENGLISH.",
    ("generation", False): "Who?\nAnswer the question based on your trained knowledge in one"
    " sentence in ENGLISH.",
}
TURNS["classification", False] = TURNS["classification", True]
TURNS["cloze", False] = TURNS["cloze", True]


@pytest.mark.parametrize(("task", "pictured"), TURNS)
def test_mllmu_turns_of_a_chat(task, pictured):
    assert turn(question(task, pictured)) == TURNS[task, pictured]


@pytest.mark.parametrize(("task", "pictured"), SHOWN)
def test_demonstrations_in_a_turn(task, pictured):
    asked = question(task, pictured)
    few = dataclasses.replace(asked, shots=(asked, asked))
    assert turn(few) == 2 * SHOWN[task, False] + TURNS[task, pictured]


def test_clear_prompts():
    asked = question("classification", True)
    assert CLEAR.turn(asked) == "Who?\nA. Ann\nB. Bea\nC. Cy\nD. Di"
    assert CLEAR.turn(question("naming", True)) == "Who?"
