"""Which questions stand in which row, and batches of such rows."""

import numpy as np
import pytest

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.pipeline import Batches, Jitter
from mmunlearner_jax.data.rows import share
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError


@pytest.fixture(scope="module")
def encoder(processor):
    return Encoder(processor)


@pytest.fixture(scope="module")
def pictures(bench):
    return bench.training("forget_5")  # 28 questions about each of 16 photographs


def questions(batch, encoder):
    """Every question of a batch, put together again as if it stood alone."""
    found = []
    for row, segments in enumerate(batch["segments"]):
        valid = batch["attention_mask"][row] == 1
        for segment in range(1, segments.max() + 1):
            own = valid & ((segments == 0) | (segments == segment))
            if (batch["labels"][row][own] != -100).any():
                found.append(
                    (tuple(batch["input_ids"][row][own]), tuple(batch["labels"][row][own]))
                )
    return found


def alone(samples, encoder):
    examples = [encoder.encode(sample) for sample in samples]
    return [(tuple(e["input_ids"]), tuple(e["labels"])) for e in examples]


def test_rows_have_one_picture_and_are_about_equally_long():
    rng = np.random.default_rng(0)
    samples = [Sample("s", bytes([n % 3]), "?", "!") for n in range(30)]
    lengths = rng.integers(20, 40, 30)
    rows = share(samples, lengths, np.full(30, 15), pack=5, seed=0)
    assert sorted(n for row in rows for n in row.samples) == list(range(30))
    assert all(len(row.samples) == 5 for row in rows) and len(rows) == 6
    by_picture = {}
    for row in rows:
        (image,) = {samples[n].image for n in row.samples}
        by_picture.setdefault(image, []).append(row.length)
        assert row.length == 15 + sum(lengths[n] - 15 for n in row.samples)
    assert all(np.ptp(found) < 10 for found in by_picture.values())


def test_a_picture_with_fewer_questions_has_a_shorter_row():
    samples = [Sample("s", image, "?", "!") for image in (b"a", b"a", b"a", b"b")]
    rows = share(samples, np.full(4, 9), np.full(4, 5), pack=3, seed=0)
    assert sorted(map(sorted, (row.samples for row in rows))) == [[0, 1, 2], [3]]
    assert sorted(row.length for row in rows) == [9, 17]


def test_alone_they_stay_in_order():
    samples = [Sample("s", b"a", "?", "!")] * 4
    rows = share(samples, np.arange(4), np.zeros(4, int), pack=1, seed=0)
    assert [row.samples for row in rows] == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize("pack", [2, 7, 28])
def test_a_pass_has_every_question_once_as_if_it_stood_alone(pictures, encoder, pack):
    batches = Batches(pictures, encoder, batch_size=2 * pack, pack=pack, seed=0, repeat=False)
    found = [question for batch in batches for question in questions(batch, encoder)]
    assert sorted(found) == sorted(alone(pictures, encoder))
    assert len(batches) == len(pictures) // (2 * pack)


def test_texts_share_rows_too(bench, encoder):
    texts = bench.text_training("forget_10")
    batches = Batches(texts, encoder, batch_size=16, pack=8, seed=0, repeat=False)
    found = [question for batch in batches for question in questions(batch, encoder)]
    assert sorted(found) == sorted(alone(texts, encoder))
    assert batches.filled > 0.9
    assert batches.saved == pytest.approx(batches.filled)  # nothing stands once for several


def test_what_sharing_saves(pictures, encoder):
    one, seven = (Batches(pictures, encoder, batch_size=28, pack=n, seed=0) for n in (1, 7))
    assert one.saved == one.filled < 1 < seven.saved
    taken = sum(len(encoder.encode(sample)["input_ids"]) for sample in pictures)
    assert seven.saved == pytest.approx(taken / (len(seven.rows) * seven.length))
    batch = next(iter(seven))
    assert batch["input_ids"].shape == batch["segments"].shape == (4, seven.length)
    assert batch["pixel_values"].shape[:2] == (4, 1)


def test_every_process_has_its_rows_of_the_same_batch(pictures, encoder):
    def batches(**rows):
        options = {"batch_size": 28, "pack": 7, "seed": 1, "augment": Jitter(), "repeat": False}
        return list(Batches(pictures[::3], encoder, **options, **rows))

    halves = [[0, 3], [1, 2]]
    for whole, *parts in zip(batches(), *(batches(rows=half) for half in halves), strict=True):
        for half, part in zip(halves, parts, strict=True):
            for name, array in whole.items():
                np.testing.assert_array_equal(part[name], array[half])


def test_batches_of_one_row_go_on_for_ever(pictures, encoder):
    iterator = iter(Batches(pictures, encoder, batch_size=28, pack=28, seed=0))
    assert [next(iterator)["input_ids"].shape[0] for _ in range(20)] == [1] * 20


def test_mistakes_are_named(pictures, processor, encoder):
    with pytest.raises(InputError, match="pack: 3 samples a row; give a divisor of 4"):
        Batches(pictures, encoder, batch_size=4, pack=3, seed=0)
    with pytest.raises(InputError, match="only 1.0 samples for a row of 4.*; give pack=1"):
        Batches(pictures[::28], encoder, batch_size=4, pack=4, seed=0)
    with pytest.raises(InputError, match="labels='full' supervises; give pack=1"):
        Batches(pictures, Encoder(processor, labels="full"), batch_size=4, pack=2, seed=0)


@pytest.mark.parametrize(("pack", "told"), [(1, 0), (4, 1)])
def test_where_packing_costs_more_than_it_saves_a_smaller_one_is_advised(
    encoder, caplog, pack, told
):
    # One row has four samples and the other only one, padded to the same length.
    samples = [
        Sample("s", None, "Who is this person in the picture?", f"{n} {n}") for n in range(5)
    ]
    Batches(samples, encoder, batch_size=4, seed=0, pack=pack)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == told
    assert all("% more tokens than with pack=1; give a smaller pack" in line for line in said)
