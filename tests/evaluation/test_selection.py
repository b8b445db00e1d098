"""Questions to choose by and questions to score have nothing in common."""

import pytest

from mmunlearner_jax.data.samples import Question
from mmunlearner_jax.evaluation.questions import limited
from mmunlearner_jax.evaluation.selection import set_apart


def question(person: str, number: int, image: bytes | None) -> Question:
    modality = "vqa" if image else "qa"
    return Question(person, modality, "classification", image, f"What is fact {number}?", "x")


def splits(photos: int = 8) -> dict[str, list[Question]]:
    def asked(people: str, unseen: str) -> list[Question]:
        pictures = [f"{person}{unseen}{n}".encode() for person in people for n in range(photos)]
        return [question(chr(p[0]), n, p) for p in pictures for n in range(7)]

    words = [question(person, n, None) for person in "ab" for n in range(6)]
    return {
        "forget": asked("ab", "-") + words,
        "test": asked("ab", "+") + words,  # the same questions in words, as MLLMU-Bench may have
        "realworld": [question(f"w{n}", 0, b"%d" % n) for n in range(400)],
    }


def pictures(questions: list[Question]) -> set[bytes]:
    return {q.image for q in questions if q.image}


def test_neither_picture_nor_wording_is_on_both_sides():
    choosing, scored = set_apart(splits(), 0.25, seed=3)
    sides = [[q for asked in side.values() for q in asked] for side in (choosing, scored)]
    assert not pictures(sides[0]) & pictures(sides[1])
    words = [{(q.person, q.question) for q in side if not q.image} for side in sides]
    assert words[0] and words[1] and not words[0] & words[1]


def test_all_questions_are_on_a_side_in_their_order():
    given = splits()
    choosing, scored = set_apart(given, 0.25, seed=3)
    for split, asked in given.items():
        apart = set(choosing[split])
        assert scored[split] == [q for q in asked if q not in apart]
        assert choosing[split] == [q for q in asked if q in apart]


def test_everybody_gives_the_fraction():
    choosing, _ = set_apart(splits(), 0.25, seed=3)
    for person in "ab":
        assert len(pictures([q for q in choosing["forget"] if q.person == person])) == 2
        in_words = [q for q in choosing["forget"] if q.person == person and not q.image]
        assert len(in_words) in (1, 2)  # of six
    # With one picture each, a quarter of the people.
    assert len(choosing["realworld"]) == pytest.approx(100, abs=30)


def test_the_seed_decides():
    given = splits()
    assert set_apart(given, 0.25, seed=3) == set_apart(given, 0.25, seed=3)
    assert set_apart(given, 0.25, seed=3) != set_apart(given, 0.25, seed=4)


def test_at_most_so_many_of_a_kind_in_their_order():
    questions = [*dict.fromkeys(q for asked in splits().values() for q in asked)]
    kept = limited(questions, 5)
    assert [q.modality for q in kept].count("vqa") == [q.modality for q in kept].count("qa") == 5
    places = [questions.index(q) for q in kept]
    assert places == sorted(places) and limited(questions, 5) == kept
    assert limited(questions, 0) == questions
