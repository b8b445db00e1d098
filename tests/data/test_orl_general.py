"""The fixtures of general ability: each set is read, and its answers are those of the pictures."""

import pytest

from mmunlearner_jax.data.abilities import ABILITIES
from mmunlearner_jax.data.benchmarks.base import no_check
from mmunlearner_jax.data.tsv import read_set
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.examples.orl_general import write_orl_general

PEOPLE = 12


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    out = tmp_path_factory.mktemp("orl") / "general"
    write_orl_general(out, seed=0, people=PEOPLE)
    return {name: read_set(about, out, no_check) for name, about in ABILITIES.items()}


def test_every_set_is_there_and_whole(read):
    both = 2 * PEOPLE  # faces and digits
    assert {name: len(questions) for name, questions in read.items()} == {
        **{"pope": 2 * both, "mmbench": both, "mmbench_circular": both, "mmstar": both},
        **{"mmmu": PEOPLE, "scienceqa": both, "gqa": PEOPLE, "vizwiz": PEOPLE},
    }


def test_answers_are_those_of_the_pictures(read):
    faces = {q.image for q in read["pope"] if ("face" in q.question) == (q.answer == "Yes")}
    assert len(faces) == PEOPLE
    for name in ("mmbench", "mmstar", "scienceqa"):
        for question in read[name]:
            assert question.answer == ("face" if question.image in faces else "digit")
            assert question.options["ABCD".index(question.letter)] == question.answer
    digits = {q.image: q.answer for q in read["gqa"]}
    assert not faces & {*digits}
    for question in read["mmmu"]:
        if question.options:
            assert question.answer == " and ".join(digits[x] for x in question.pictures)
        else:
            assert question.accepted == ("2", "two")
    for question in read["vizwiz"]:
        assert question.accepted.count(digits[question.image]) >= 7
        assert len(question.accepted) == 10


def test_an_unused_folder_is_asked_for(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists already; name a new folder"):
        write_orl_general(tmp_path, seed=0)
