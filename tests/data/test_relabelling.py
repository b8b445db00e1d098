"""Answers of other people, one stranger for each person."""

from mmunlearner_jax.data.relabelling import of_strangers
from mmunlearner_jax.data.samples import Sample


def asked(person, **answers):
    return [
        Sample(person, person.encode(), question, answer) for question, answer in answers.items()
    ]


OTHERS = [
    sample
    for person in ("Ada", "Ben", "Cleo")
    for sample in asked(person, name=person, city=f"{person}ville", pet=f"{person}'s cat")
]


def test_everybody_has_one_stranger_who_answers_the_same_questions():
    samples = asked("Kim", name="Kim", city="Oslo") + asked("Lea", name="Lea", pet="a dog")
    samples += asked("Kim", name="Kim")  # of another picture
    seen = set()
    for seed in range(20):
        made = of_strangers(samples, OTHERS, seed)
        assert made == of_strangers(samples, OTHERS, seed)
        assert [(s.person, s.image, s.question) for s in made] == [
            (s.person, s.image, s.question) for s in samples
        ]
        kim, lea = made[0].answer, made[2].answer
        assert [s.answer for s in made] == [kim, f"{kim}ville", lea, f"{lea}'s cat", kim]
        seen.add((kim, lea))
    assert {kim for kim, _ in seen} == {lea for _, lea in seen} == {"Ada", "Ben", "Cleo"}
    assert any(kim != lea for kim, lea in seen)


def test_a_question_that_nobody_else_was_asked_has_the_strangers_answer_at_its_place():
    samples = asked("Kim", name="Kim", **{"Who plays chess?": "Kim does"}, shoe="41", hat="L")
    answers = [s.answer for s in of_strangers(samples, asked("Ada", name="Ada", city="Rome"), 0)]
    assert answers == ["Ada", "Rome", "Ada", "Rome"]
