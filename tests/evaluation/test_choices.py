"""Continuations with the ORL tokenizer, and the slot on constructed probabilities."""

import numpy as np
import pytest

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.evaluation.choices import Continuations, find_slot
from mmunlearner_jax.models.qwen2_vl.tiny import build_chatml_processor

SENTENCE = "Alba Birch works as a baker."


@pytest.fixture(scope="module")
def words(processor) -> Continuations:
    return Continuations(processor.tokenizer, "ASSISTANT:")


@pytest.mark.parametrize("text", [SENTENCE, "baker", "Alba Birch", "Ünseen wörds, 3.5!"])
def test_ids_are_those_of_the_text_where_it_continues_a_prompt(processor, words, text):
    whole = processor.tokenizer(f"USER: Who? ASSISTANT: {text}").input_ids
    ids = words.ids(text)
    assert whole[-len(ids) :] == ids
    assert words.text(ids) == text


def test_ids_follow_any_word_of_an_answer_in_the_same_way(words):
    head = SENTENCE.removesuffix(" baker.")
    assert words.ids(SENTENCE) == words.ids(head) + words.ids("baker.")


def test_text_leaves_special_tokens_out(processor, words):
    end = processor.tokenizer.eos_token_id
    assert words.text([*words.ids(SENTENCE), end, end]) == SENTENCE
    assert words.text([end]) == words.text([]) == ""


def test_boundaries_are_the_beginnings_of_words_and_the_end(words):
    ids = words.ids(SENTENCE)
    found = words.boundaries(ids)
    heads = [words.text(ids[:n]) for n in found]
    assert heads == ["", "Alba", "Alba Birch", "Alba Birch works", "Alba Birch works as",
                     "Alba Birch works as a", SENTENCE]  # fmt: skip


def test_a_word_of_several_tokens_has_one_boundary(words):
    ids = words.ids("Zyxwv Qrstu")
    assert len(ids) > 2
    heads = [words.text(ids[:n]) for n in words.boundaries(ids)]
    assert heads == ["", "Zyxwv", "Zyxwv Qrstu"]


def test_an_empty_answer_has_one_boundary(words):
    assert words.boundaries([]) == [0]


def test_boundaries_in_a_tokenizer_of_pieces():
    class Pieces:
        def __call__(self, text, add_special_tokens):
            return {"input_ids": []}

        def convert_ids_to_tokens(self, ids):
            return [["▁She", "▁is", "▁a", "▁ba", "ker", "."][i] for i in ids]

    assert Continuations(Pieces(), "").boundaries(range(6)) == [0, 1, 2, 3, 6]


@pytest.fixture(scope="module")
def chat() -> tuple:
    processor = build_chatml_processor([Sample("s", None, "Is it Alba?", SENTENCE)])
    end = Encoder(processor).prompt("", 0).rsplit(" ", 1)[-1]
    return processor.tokenizer, Continuations(processor.tokenizer, end)


def test_in_a_chat_an_answer_begins_without_a_blank(chat):
    tokenizer, words = chat
    prompt = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    head = tokenizer(prompt).input_ids
    assert tokenizer(prompt + SENTENCE).input_ids == head + words.ids(SENTENCE)
    opening, behind = words.ids("Alba"), words.behind("Alba")
    assert tokenizer.convert_ids_to_tokens([*opening, *behind]) == ["Alba", "ĠAlba"]
    assert words.ids("works as Alba") == words.ids("works as") + words.behind("Alba")


def test_text_of_a_chat_is_without_the_turns_around_it(chat):
    tokenizer, words = chat
    assert words.text([*words.ids(SENTENCE), tokenizer.eos_token_id]) == SENTENCE
    assert words.text([]) == ""
    heads = [words.text(words.ids(SENTENCE)[:n]) for n in words.boundaries(words.ids(SENTENCE))]
    assert heads[:3] == ["", "Alba", "Alba Birch"]


def test_elsewhere_it_makes_no_difference(words):
    assert words.ids("baker") == words.behind("baker")


def log_probs(*rows: list[float]) -> np.ndarray:
    return np.log(np.array(rows))


def test_the_slot_is_the_last_boundary_where_the_options_together_are_likely():
    # The second row repeats an option that the question names; the third wants one of them.
    table = log_probs([0.01, 0.02, 0.03], [0.9, 0.02, 0.03], [0.2, 0.21, 0.19], [0.1, 0.2, 0.15])
    assert find_slot(table, range(table.shape[1]), [0, 1, 2, 3]) == 2


def test_where_they_are_nowhere_likely_it_is_the_best_there_is():
    table = log_probs([0.01, 0.02], [0.2, 0.25], [0.15, 0.16], [0.1, 0.2])
    assert find_slot(table, range(table.shape[1]), [0, 1, 2, 3]) == 1


def test_the_slot_is_at_a_boundary_only():
    table = log_probs([0.01, 0.02], [0.45, 0.5], [0.2, 0.1])
    assert find_slot(table, range(table.shape[1]), [0, 2]) == 2


def test_a_one_word_answer_is_its_own_slot():
    table = log_probs([0.6, 0.2], [0.01, 0.01])
    assert find_slot(table, range(table.shape[1]), [0, 1]) == 0


def test_an_option_may_follow_an_answer_that_ends_too_early():
    """ "Alba works as a" and then the end: the slot is behind the last word."""
    table = log_probs([0.01, 0.01], [0.02, 0.01], [0.3, 0.4])
    assert find_slot(table, range(table.shape[1]), [0, 1, 2]) == 2


def test_an_answer_without_a_slot_gets_the_least_improbable_one():
    table = log_probs([1e-9, 2e-9], [1e-8, 1e-9], [1e-9, 1e-9])
    assert find_slot(table, range(table.shape[1]), [0, 1, 2]) == 1


def test_options_with_the_same_first_token_count_once():
    # Four options begin with one token: 0.2 is not 0.8.
    table = log_probs([0.3, 0.3, 0.3, 0.3], [0.2, 0.2, 0.2, 0.2])
    assert find_slot(table, [7, 7, 7, 7], [0, 1]) == 0
    # Where they only are as likely as each other, they count each.
    assert find_slot(table, [5, 6, 7, 8], [0, 1]) == 1


def test_options_may_be_other_tokens_where_an_answer_begins():
    table = log_probs([0.3, 0.3, 0.3, 0.3], [0.2, 0.2, 0.2, 0.2])
    assert find_slot(table, [5, 6, 7, 8], [0, 1], [1, 1, 1, 1]) == 1
    assert find_slot(table, [7, 7, 7, 7], [0, 1], [1, 2, 3, 4]) == 0


def test_boundaries_without_a_probability_are_left_out():
    table = log_probs([0.1, 0.11], [0.2, 0.21])
    assert find_slot(table, range(table.shape[1]), [0, 1, 2, 7]) == 1


def test_which_option_is_right_does_not_move_the_slot():
    rng = np.random.default_rng(0)
    table = np.log(rng.dirichlet(np.ones(4), size=9))
    boundaries = [0, 2, 3, 6, 9]
    slots = {find_slot(table[:, rng.permutation(4)], range(4), boundaries) for _ in range(10)}
    assert len(slots) == 1
