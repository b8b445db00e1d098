"""What guessing gives, against an enumeration of all that the guesser can draw."""

import dataclasses
from itertools import product

import pytest

from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.chance import Prior, chances, short_chance

NAMES = {"a": "Ann", "b": "Bob", "c": "Cy", "d": "Dee", "x": "Xi"}
JOBS = {"a": "baker", "b": "baker", "c": "pilot", "d": "judge"}


def asked(person, answer, options, *, words="What is the job of {}?", image=None):
    return Question(
        *(person, "vqa" if image else "qa", "classification", image),
        *(words.format(NAMES[person]), answer, options, "A"),
    )


def retained():
    options = ("baker", "pilot", "judge", "nurse")
    return [asked(person, job, options) for person, job in JOBS.items()]


def enumerated(answer, options):
    """A retained person is drawn until the fact is among the options."""
    drawn = [job for job in JOBS.values() if job in options]
    return sum(job == answer for job in drawn) / len(drawn)


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        *product(("baker", "pilot", "nurse"), [("baker", "pilot", "nurse", "driver")]),
        ("judge", ("nurse", "judge")),
    ],
)
def test_the_prior_is_what_enumeration_gives(answer, options):
    prior = Prior(retained(), NAMES)
    assert prior.accuracy(asked("x", answer, options)) == enumerated(answer, options)


def test_photographs_of_one_person_count_once():
    photos = [asked("a", "baker", ("baker", "pilot"), image=bytes([n])) for n in range(9)]
    once = asked("c", "pilot", ("baker", "pilot"), image=b"c")
    prior = Prior([*photos, once], dict.fromkeys(NAMES, ""))
    # With a picture the wording names nobody; here it names Ann and Cy, who are two wordings.
    assert prior.accuracy(photos[0]) == 1.0
    same = [Question(**{**q.__dict__, "question": "Which job?"}) for q in (*photos, once)]
    assert Prior(same, NAMES).accuracy(same[0]) == 0.5


def test_a_name_of_nobody_retained_is_never_guessed_and_unknown_wordings_are_drawn_evenly():
    prior = Prior(retained(), NAMES)
    assert prior.accuracy(asked("x", "Xi", ("Xi", "baker"))) == 0.0
    assert prior.accuracy(asked("x", "Xi", ("Xi", "Yo", "Zed"))) == pytest.approx(1 / 3)
    other = asked("x", "baker", ("baker", "pilot"), words="Does {} bake?")
    assert prior.accuracy(other) == 0.5


def test_both_are_given_by_kind():
    questions = {
        "retain": retained(),
        "forget": [asked("x", "baker", ("baker", "pilot", "nurse", "driver"))],
    }
    given = chances(questions, NAMES)
    assert given["forget/qa"] == {"uniform": 0.25, "prior": pytest.approx(2 / 3)}
    assert given["retain/qa"]["uniform"] == 0.25


def test_short_answers_are_guessed_by_what_they_offer():
    def short(**fields):
        return dataclasses.replace(asked("x", "red", ()), task="short", **fields)

    assert short_chance(short(rule="yes_no")) == 0.5
    assert short_chance(short(rule="vqa")) == 0
    letters = short(rule="letter", options=("red", "blue"))
    assert short_chance(letters) == 0.5
    rotated = dataclasses.replace(letters, group="7")
    assert short_chance(rotated) == 0.25  # right in both rotations
    given = chances({"general_x": [rotated, rotated, short(rule="yes_no")]}, NAMES)
    assert given["general_x/qa"] == {"uniform": 0.375, "prior": 0.375}
