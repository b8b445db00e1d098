"""The published prompts of MLLMU-Bench, letter for letter."""

import pytest

from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.parsing import option_letters
from mmunlearner_jax.evaluation.published import prompt

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


@pytest.mark.parametrize(("task", "pictured"), ASKED)
def test_mllmu_prompts(task, pictured):
    question = Question(
        person="s1",
        modality="vqa" if pictured else "qa",
        task=task,
        image=b"picture" if pictured else None,
        question="It is __." if task == "cloze" else "Who?",
        answer="Ann",
        options=("Ann", "Bea", "Cy", "Di") if task == "classification" else (),
    )
    assert prompt(question) == ASKED[task, pictured]
    assert option_letters(question.options) == ("ABCD" if task == "classification" else "")
