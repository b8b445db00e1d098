import numpy as np
import pytest

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.pipeline import Batches, Jitter
from mmunlearner_jax.errors import InputError


@pytest.fixture(scope="module")
def encoder(processor):
    return Encoder(processor)


@pytest.fixture(scope="module")
def pictures(bench):
    return bench.training("forget_5")[::13]


@pytest.fixture(scope="module")
def texts(bench):
    """What is taught by name; descriptions in words are left out."""
    taught = bench.text_training("forget_10")
    return [sample for sample in taught if not sample.question.startswith("This person")]


def assert_equal(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def sequences(batch: dict) -> list[tuple[int, ...]]:
    """Returns the rows that have labels, without padding."""
    return [
        tuple(ids[mask == 1].tolist())
        for ids, mask, labels in zip(
            batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
        )
        if (labels != -100).any()
    ]


def encoded(encoder, samples) -> list[tuple[int, ...]]:
    return [tuple(encoder.encode(sample)["input_ids"].tolist()) for sample in samples]


def test_batches_are_the_encoded_samples_padded_to_one_shape(pictures, encoder):
    batches = Batches(pictures, encoder, batch_size=4, seed=0, shuffle=False, repeat=False)
    rows = 0
    for batch in batches:
        assert {key: (value.shape, str(value.dtype)) for key, value in batch.items()} == {
            "input_ids": ((4, 40), "int32"),
            "attention_mask": ((4, 40), "int32"),
            "labels": ((4, 40), "int32"),
            "answer_places": ((4, 8), "int32"),
            "pixel_values": ((4, 1, 3, 64, 64), "float32"),
        }
        for row, sample in enumerate(pictures[rows : rows + 4]):
            example = encoder.encode(sample)
            size = len(example["input_ids"])
            np.testing.assert_array_equal(batch["input_ids"][row, :size], example["input_ids"])
            np.testing.assert_array_equal(batch["labels"][row, :size], example["labels"])
            np.testing.assert_array_equal(batch["pixel_values"][row, 0], example["picture"])
            assert batch["attention_mask"][row].tolist() == [1] * size + [0] * (40 - size)
            assert (batch["labels"][row, size:] == -100).all()
            assert (batch["input_ids"][row, size:] == encoder.tokenizer.pad_token_id).all()
        rows += 4
    assert rows == 4 * len(batches)


def test_text_batches_have_no_pictures(texts, encoder):
    batch = next(iter(Batches(texts, encoder, batch_size=3, seed=0)))
    assert set(batch) == {"input_ids", "attention_mask", "labels", "answer_places"}
    assert batch["input_ids"].shape == (3, 24)


def test_the_last_batch_is_filled_with_rows_that_count_nothing(texts, encoder):
    assert len(texts) == 96
    batches = Batches(texts, encoder, batch_size=10, seed=0, repeat=False)
    given = list(batches)
    assert len(given) == len(batches) == 10
    assert all(batch["input_ids"].shape == given[0]["input_ids"].shape for batch in given)
    assert (given[-1]["labels"][6:] == -100).all()
    assert given[-1]["attention_mask"].any(axis=1).all()  # an empty row is nan in a softmax
    seen = [ids for batch in given for ids in sequences(batch)]
    assert sorted(seen) == sorted(encoded(encoder, texts))


def test_every_pass_has_another_order_and_all_samples(texts, encoder):
    iterator = iter(Batches(texts, encoder, batch_size=24, seed=5))
    passes = [[ids for _ in range(4) for ids in sequences(next(iterator))] for _ in range(2)]
    assert passes[0] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(encoded(encoder, texts))


def test_the_seed_decides(pictures, encoder):
    def third(seed):
        iterator = iter(Batches(pictures, encoder, batch_size=4, seed=seed, augment=Jitter()))
        return [next(iterator) for _ in range(3)][-1]

    assert_equal(third(1), third(1))
    assert not np.array_equal(third(1)["pixel_values"], third(2)["pixel_values"])


def test_a_restored_iterator_goes_on_exactly(pictures, encoder):
    batches = Batches(pictures, encoder, batch_size=5, seed=3, augment=Jitter())
    iterator = iter(batches)
    for _ in range(7):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(9)]
    again = Batches(pictures, encoder, batch_size=5, seed=3, augment=Jitter())
    restored = iter(again)
    restored.set_state(state)
    for batch in expected:
        assert_equal(next(restored), batch)
    iterator.set_state(state)
    assert_equal(next(iterator), expected[0])


def test_processes_share_the_batch_of_one(pictures, encoder):
    def batches(**rows):
        options = {"batch_size": 8, "seed": 2, "repeat": False}
        return list(Batches(pictures, encoder, augment=Jitter(), **options, **rows))

    alone, halves = batches(), [[0, 1, 6, 7], [2, 3, 4, 5]]
    parts = [batches(rows=half) for half in halves]
    assert [len(part) for part in parts] == [len(alone)] * 2
    for whole, *shares in zip(alone, *parts, strict=True):
        for half, share in zip(halves, shares, strict=True):
            assert_equal(share, {key: value[half] for key, value in whole.items()})


def test_mistakes_are_named(pictures, texts, encoder):
    with pytest.raises(InputError, match="samples: none"):
        Batches([], encoder, batch_size=4, seed=0)
    with pytest.raises(InputError, match="some have a picture, some not"):
        Batches([*texts, *pictures], encoder, batch_size=4, seed=0)
    with pytest.raises(InputError, match="batch_size: 0 samples"):
        Batches(texts, encoder, batch_size=0, seed=0)


def test_jitter_moves_at_most_shift_and_repeats_the_border():
    picture = np.arange(3 * 20 * 24, dtype=np.float32).reshape(3, 20, 24)
    jitter = Jitter(shift=2, gain=0, offset=0, noise=0)
    moves = set()
    for seed in range(100):
        moved = jitter.random_map(picture, np.random.default_rng(seed))
        # The picture counts up by 1 to the right and by 24 downwards.
        down, right = divmod(int(moved[0, 10, 12] - picture[0, 10, 12]) + 2, 24)
        right -= 2
        padded = np.pad(picture, ((0, 0), (2, 2), (2, 2)), "edge")
        np.testing.assert_array_equal(
            moved, padded[:, 2 + down : 22 + down, 2 + right : 26 + right]
        )
        moves.add((down, right))
    assert moves == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_jitter_has_the_spread_it_is_given_and_keeps_grey_grey():
    picture = np.full((3, 16, 16), 2, np.float32)
    jitter = Jitter(shift=3, gain=0.2, offset=0.3, noise=0.1)
    changed = np.stack(
        [jitter.random_map(picture, np.random.default_rng(seed)) for seed in range(2000)]
    )
    assert changed.dtype == np.float32 and (picture == 2).all()
    np.testing.assert_array_equal(changed[:, 0], changed[:, 1])
    np.testing.assert_array_equal(changed[:, 0], changed[:, 2])
    means = changed[:, 0].mean(axis=(1, 2))
    assert means.mean() == pytest.approx(2, abs=0.05)
    assert means.std() == pytest.approx(np.hypot(2 * 0.2, 0.3), rel=0.1)
    assert changed[:, 0].std(axis=(1, 2)).mean() == pytest.approx(0.1, rel=0.05)


def test_a_picture_is_read_once_however_many_are_kept(pictures, processor, monkeypatch):
    encoder, read = Encoder(processor, cached_images=1), []
    monkeypatch.setattr(encoder, "pictures", Counted(encoder.pictures, read))
    for _ in range(2):
        Batches(pictures, encoder, batch_size=4, seed=0)
    assert len(read) == len({sample.image for sample in pictures})


class Counted:
    def __init__(self, pictures, read):
        self._pictures, self._read = pictures, read
        self.most_tokens = pictures.most_tokens

    def read(self, picture):
        self._read.append(picture)
        return self._pictures.read(picture)
