"""From questions to records, with a model that says one sentence whatever it is asked."""

import io

import numpy as np
import pytest
from PIL import Image

from mmunlearner_jax.data.benchmarks.mllmu.prompts import whole_prompt
from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.evaluation.protocols import Protocol
from tests.helpers.parrot import JOBS, STEPS, answers


@pytest.fixture
def answer(monkeypatch, processor):
    return answers(monkeypatch, processor)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (9, 11), 80).save(buffer, "png")
    return buffer.getvalue()


def choice(answer="baker", options=JOBS, image=None) -> Question:
    modality = "qa" if image is None else "vqa"
    letter = "ABCD"[options.index(answer)]
    asked = "What is the job?"
    return Question("s1", modality, "classification", image, asked, answer, options, letter)


def test_the_option_in_the_slot_of_its_own_words_is_chosen(answer):
    (record,) = answer("Kim Stone works as a pilot.", [choice()])
    assert record["slot"] == "Kim Stone works as a"
    assert record["choice"] == "pilot"
    assert record["correct"] is False
    assert record["response"] == "Kim Stone works as a pilot."


@pytest.mark.parametrize("sentence", ["pilot.", "pilot", "A pilot works.", "It is pilot, pilot."])
def test_short_and_odd_answers(answer, sentence):
    (record,) = answer(sentence, [choice("pilot")])
    assert (record["choice"], record["correct"]) == ("pilot", True)


def test_an_answer_without_any_option_still_gets_one(answer):
    (record,) = answer("Oslo lives in Oslo.", [choice()])
    assert record["choice"] in JOBS
    assert "Oslo lives in Oslo.".startswith(record["slot"])


def test_the_right_option_is_not_needed(answer):
    said = "Kim Stone works as a pilot."
    records = answer(said, [choice("baker"), choice("pilot"), choice("barber", JOBS[::-1])])
    assert [r["choice"] for r in records] == ["pilot"] * 3
    assert len({r["slot"] for r in records}) == 1
    assert records[0]["scores"] == records[1]["scores"] == records[2]["scores"][::-1]
    assert [r["correct"] for r in records] == [False, True, False]


def test_other_questions_of_a_batch_change_nothing(answer):
    said = "Kim Stone works as a pilot."
    alone = answer(said, [choice()])
    long = choice("baker", ("baker", " ".join(JOBS * 2)))
    assert answer(said, [choice(), long])[:1] == alone
    assert answer(said, [long, choice()], batch_size=3)[1:] == alone


def test_an_option_longer_than_any_answer_is_named(answer):
    with pytest.raises(InputError, match="max_new_tokens"):
        answer("pilot.", [choice("pilot", (*JOBS, " ".join(JOBS * STEPS)))])


def test_records_are_in_the_order_of_the_questions(answer):
    image = picture()
    questions = [
        choice(),
        choice("pilot", image=image),
        Question("s2", "qa", "cloze", None, "The job is __.", "Pilot"),
        Question("s2", "vqa", "generation", image, "Say the job.", "Kim works as a baker."),
        Question("s3", "qa", "cloze", None, "The job is __.", "baker"),
    ]
    records = answer("Kim Stone works as a pilot.", questions)
    keys = ("person", "modality", "task", "question", "answer")
    assert [[r[k] for k in keys] for r in records] == [
        [getattr(q, k) for k in keys] for q in questions
    ]
    assert [r["correct"] for r in records] == [False, True, True, False, False]
    assert [len(r["scores"]) for r in records] == [4, 4, 0, 0, 0]
    assert records[3]["rougeL"] == pytest.approx(2 * (4 / 6 * 4 / 5) / (4 / 6 + 4 / 5), abs=1e-4)
    assert all(r["split"] == "forget" for r in records)


def test_accepted_answers_are_recorded_and_decide(answer):
    said = "Kim Stone works as a pilot."
    questions = [
        Question("s1", "qa", "generation", None, "Which job?", "The pilot.", accepted=accepted)
        for accepted in ((), ("aviator", "Pilot"), ("baker",))
    ]
    plain, right, wrong = answer(said, questions)
    assert "accepted" not in plain and "right" not in plain and not plain["correct"]
    assert right["accepted"] == ["aviator", "Pilot"] and right["right"] and right["correct"]
    assert not wrong["right"] and not wrong["correct"]


def test_mllmu_letters_are_scored_at_the_start_and_parsed(answer):
    strict = Protocol(whole_prompt, letters=True, likelihood=True)
    right, wrong = answer("A", [choice(), choice(answer="barber")], letters=strict)
    assert right["letters"] == "A" and right["slot"] == "" and len(right["scores"]) == 4
    assert right["choice"] == "baker" and right["correct"] and right["letter_correct"]
    assert wrong["letter"] == "A" and not wrong["letter_correct"] and not wrong["correct"]


def test_mllmu_released_letters_are_parsed_alone(answer):
    released = Protocol(whole_prompt, letters=True, likelihood=False)
    right, lost = (answer(said, [choice()], letters=released)[0] for said in ("A", "Kim"))
    assert right["scores"] == [] and right["choice"] == "baker" and right["correct"]
    assert lost["scores"] == [] and lost["choice"] is None and not lost["correct"]


def test_clear_likelihoods_are_means_over_tokens(answer):
    said = "Kim Stone works as a pilot."
    wrong = ("Kim Stone works as a baker.", "Kim Stone lives in Oslo.")
    asked = Question(
        "s1", "vqa", "generation", picture(), "Who?", said, paraphrase="Kim Stone.", perturbed=wrong
    )
    open_name = Question(
        "s1", "vqa", "naming", picture(), "Who?", "Kim", perturbed=("Dana", "Alba")
    )
    record, name, plain = answer(said, [asked, open_name, choice()])
    found = record["likelihoods"]
    assert found["answer"] == pytest.approx(np.log(0.9), abs=1e-5)
    assert len(found["perturbed"]) == 2 and max(found["perturbed"]) < found["answer"]
    # Six of seven tokens are those it says; the other's probability is known.
    other = answer.ids("baker")[0]
    by_hand = (6 * np.log(0.9) + np.log(1e-3 / (1 + other))) / 7
    assert found["perturbed"][0] == pytest.approx(by_hand, abs=1e-5)
    assert found["paraphrase"] is not None and name["likelihoods"]["paraphrase"] is None
    assert name["likelihoods"]["answer"] == pytest.approx(np.log(0.9), abs=1e-5)
    assert name["correct"] and "likelihoods" not in plain
