"""What a frozen model said of samples, in memory and from files, beside packed rows."""

import numpy as np
import pytest

from mmunlearner_jax.data import references
from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.pipeline import Batches
from mmunlearner_jax.data.references import References
from mmunlearner_jax.data.refusals import REFUSALS, refused
from mmunlearner_jax.data.rows import count_rows
from mmunlearner_jax.models.packing import IGNORE

VOCABULARY = 5


@pytest.fixture(scope="module")
def encoder(processor):
    return Encoder(processor)


@pytest.fixture(scope="module")
def pictures(bench):
    return bench.training("forget_5")[:20]


def supervised(encoder, sample):
    return int((encoder.labelled(sample).labels[1:] != IGNORE).sum())


def asked(samples, size, slots, seed=0):
    """Batches of answers of a model, the last one filled up."""
    rng = np.random.default_rng(seed)
    tail = (1,) if slots == "questions" else (40, VOCABULARY)
    for start in range(0, len(samples), size):
        yield samples[start : start + size], rng.normal(size=(size, *tail)).astype(np.float32)


@pytest.mark.parametrize("in_memory", [0, 2**30])
@pytest.mark.parametrize("slots", ["questions", "tokens"])
@pytest.mark.parametrize("pack", [1, 3])
def test_batches_hold_what_was_said_of_their_samples(
    tmp_path, monkeypatch, encoder, pictures, slots, pack, in_memory
):
    monkeypatch.setattr(references, "FILE", 2)
    kept = References(tmp_path, "said", slots, encoder, in_memory=in_memory)
    assert not any(sample in kept for sample in pictures)
    kept.add(asked(pictures, 4, slots))
    assert len(list(tmp_path.glob("*.array_record"))) == 3
    kept = References(tmp_path, "said", slots, encoder, in_memory=in_memory)
    assert all(sample in kept for sample in pictures)

    said = {}
    for samples, array in asked(pictures, 4, slots):
        for sample, row in zip(samples, array, strict=True):
            said[sample] = row[: 1 if slots == "questions" else supervised(encoder, sample)]
    options = {"batch_size": 3 * pack, "seed": 0, "pack": pack, "references": kept}
    batches = Batches(pictures, encoder, shuffle=False, repeat=False, **options)
    assert len(batches.rows) == count_rows(pictures, pack)
    shapes = set()
    for number, batch in enumerate(batches):
        array = batch.pop("said")
        shapes.add(array.shape)
        for place, row in enumerate(batches.rows[3 * number :][:3]):
            wanted = np.concatenate([said[pictures[n]] for n in row.samples])
            np.testing.assert_array_equal(array[place, : len(wanted)], wanted)
            assert not array[place, len(wanted) :].any()
            if slots == "tokens":  # in the order of the places whose logits are computed
                assert len(wanted) == (batch["labels"][place, 1:] != IGNORE).sum()
    ((rows, room, *rest),) = shapes
    assert rows == 3
    assert (room, rest) == (
        (pack, []) if slots == "questions" else (batch["answer_places"].shape[1], [VOCABULARY])
    )


def test_processes_share_the_references_of_one(tmp_path, encoder, pictures):
    kept = References(tmp_path, "said", "tokens", encoder)
    kept.add(asked(pictures, 4, "tokens"))

    def batches(rows=None):
        return iter(
            Batches(pictures, encoder, batch_size=8, seed=2, rows=rows, references=kept, pack=2)
        )

    alone, parts = batches(), [batches((0, 1)), batches((2, 3))]
    for _ in range(3):
        whole = next(alone)["said"]
        np.testing.assert_array_equal(np.concatenate([next(p)["said"] for p in parts]), whole)


def test_a_restored_iterator_goes_on_with_its_references(tmp_path, encoder, pictures):
    kept = References(tmp_path, "said", "questions", encoder)
    kept.add(asked(pictures, 4, "questions"))
    iterator = iter(Batches(pictures, encoder, batch_size=4, seed=1, references=kept))
    for _ in range(7):
        next(iterator)
    state = iterator.get_state()
    wanted = [next(iterator)["said"] for _ in range(4)]
    again = iter(Batches(pictures, encoder, batch_size=4, seed=1, references=kept))
    again.set_state(state)
    for array in wanted:
        np.testing.assert_array_equal(next(again)["said"], array)


def test_refusals_are_drawn_by_the_seed(pictures):
    first, same, other = (refused(pictures, [], seed) for seed in (0, 0, 1))
    assert first == same != other
    assert {sample.answer for sample in first} <= set(REFUSALS)
    assert len({sample.answer for sample in first}) > 3
    for sample, original in zip(first, pictures, strict=True):
        assert (sample.image, sample.question) == (original.image, original.question)
