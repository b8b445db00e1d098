"""The released letter parsers, by hand."""

import pytest

from mmunlearner_jax.evaluation.parsing import first_letter, offered_letter


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"),
        ("c", "C"),
        ("(d) a pilot", "D"),
        ("  **B**: baker\n", "B"),
        (" - .,\n", None),
        ("", None),
        ("A person who bakes", "A"),  # the defect: an article
        ("Answer: B", "A"),  # the defect: the first letter of a word
        ("É, B", "B"),  # only ASCII is kept
    ],
)
def test_mllmu_and_clear_letters(response, letter):
    assert offered_letter(response, "ABCD") == letter
    assert first_letter(response) == letter


@pytest.mark.parametrize(
    ("response", "first"), [("The answer is B", "T"), ("E", "E"), ("2. B", "2")]
)
def test_a_letter_of_no_option_is_none_for_mllmu_pictures_only(response, first):
    assert offered_letter(response, "ABCD") is None
    assert first_letter(response) == first


def test_clear_has_as_many_letters_as_options():
    assert offered_letter("f. Alba Birch", "ABCDEF") == "F"
    assert offered_letter("f. Alba Birch", ["A", "B"]) is None
