"""Prompts in batches: every one once, behind its own beginning."""

import numpy as np
import pytest

from mmunlearner_jax.evaluation.batching import Prompt, batches, cut, kinds, padded, rounded

IMAGE = 9


def test_prompts_are_cut_behind_their_last_picture():
    ids = [1, IMAGE, IMAGE, 2, IMAGE, 3, 4]
    assert cut(ids, [b"a", b"b"], {IMAGE}) == Prompt(
        (1, IMAGE, IMAGE, 2, IMAGE), (3, 4), (b"a", b"b")
    )
    assert cut([1, 2], [], {IMAGE}) == Prompt((), (1, 2), ())


@pytest.mark.parametrize("room", [0, 16])
@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("counts", [[1], [3, 1, 9, 2], [8] * 4, [1] * 13])
def test_every_prompt_is_asked_once_behind_its_own_beginning(counts, parts, room):
    prompts = [
        Prompt((number, IMAGE), (question,), (bytes([number]),))
        for question in range(max(counts))
        for number, count in enumerate(counts)
        if question < count
    ]
    found = batches(prompts, 8, parts, room)
    assert sorted(b.rows[n] for b in found for n in b.distinct) == list(range(len(prompts)))
    assert len({(len(b.rows), len(b.beginnings)) for b in found}) == 1
    for batch in found:
        assert len(batch.rows) <= 8 and len(batch.beginnings) % parts == 0
        each, left = divmod(len(batch.rows), len(batch.beginnings))
        assert left == 0
        for place, number in enumerate(batch.rows):
            beginning = batch.beginnings[place // each]
            assert prompts[beginning].beginning == prompts[number].beginning


def test_a_picture_of_many_questions_is_computed_once_a_batch():
    prompts = [Prompt((IMAGE,), (n,), (b"a" if n < 8 else b"b",)) for n in range(16)]
    assert [len(batch.beginnings) for batch in batches(prompts, 8, 1, 4)] == [1, 1]
    assert [len(batch.beginnings) for batch in batches(prompts, 16, 1, 4)] == [2]
    assert [len(batch.beginnings) for batch in batches(prompts, 16, 2, 4)] == [2]


@pytest.mark.parametrize(("picture", "each"), [(1, 1), (1000, 7)])
def test_long_beginnings_are_shared_and_short_ones_repeated(picture, each):
    # One picture has seven prompts, ten have one: nine rows are for nothing if it is shared.
    prompts = [Prompt((IMAGE,) * picture, (n,), (bytes([max(0, n - 6)]),)) for n in range(17)]
    (batch,) = batches(prompts, 128, 1, 4)
    assert len(batch.rows) == each * len(batch.beginnings)


def test_padding_and_kinds():
    found = padded([[5, 6], [7], []], 3, 0)
    np.testing.assert_array_equal(found["input_ids"], [[0, 5, 6], [0, 0, 7], [0, 0, 0]])
    np.testing.assert_array_equal(found["attention_mask"], [[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    assert [rounded(n) for n in (0, 1, 8, 17)] == [0, 8, 8, 24]
    assert list(kinds(["b", "a", "b"])) == [[0, 2], [1]]
