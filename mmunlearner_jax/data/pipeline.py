"""Batches of static shape from samples, by Grain."""

from collections.abc import Sequence

import grain
import numpy as np

from mmunlearner_jax.data.prompts import IGNORE, Encoder
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError

LENGTH_MULTIPLE = 8


class Jitter(grain.transforms.RandomMap):
    """Small random changes to a processed picture, for training from nothing on few photographs.

    All are the same in every channel, so a grey picture stays grey. No flip: faces are not
    symmetric.

    Args:
        shift: At most so many pixels up, down, left and right; the border is repeated.
        gain: Standard deviation of the factor around 1.
        offset: Standard deviation of the added constant.
        noise: Standard deviation of what is added to each pixel.
    """

    def __init__(self, shift: int = 6, gain: float = 0.1, offset: float = 0.1, noise: float = 0.1):
        self.shift, self.gain, self.offset, self.noise = shift, gain, offset, noise

    def random_map(self, element: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Changes one picture.

        Args:
            element: float32 [C, H, W], normalised.
            rng: The only source of chance.

        Returns:
            A new float32 array [C, H, W].
        """
        _, height, width = element.shape
        down, right = rng.integers(-self.shift, self.shift, 2, endpoint=True)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        gain, offset = rng.standard_normal(2, np.float32) * (self.gain, self.offset)
        added = rng.standard_normal((height, width), np.float32)
        added *= np.float32(self.noise)
        added += np.float32(offset)
        shifted = element.take(rows, 1).take(columns, 2)
        shifted *= np.float32(1 + gain)
        shifted += added
        return shifted


class Batches:
    """An iterable of batches in the transformers convention, all of the same shape.

    Iterating gives a Grain iterator: `get_state()` and `set_state()` resume it exactly where it
    was. The order and the random changes depend on the seed and the position alone, not on the
    number of processes; each process gets its own rows of the batch.

    A batch is a dict of int32 `input_ids`, `attention_mask`, `labels` [B, T] and, if the samples
    have pictures, the arrays of `encoder.pictures.pack`. B is the number of this process's rows.
    Padding is on the right, with label -100.

    Args:
        samples: All with a picture or all without.
        encoder: Decides tokens, labels and pixels.
        batch_size: Rows of a batch, over all processes.
        seed: Of order and augmentation.
        shuffle: Whether each pass has a new random order.
        repeat: Whether the passes go on for ever. If not, the last batch is filled up with rows
            that have no label.
        rows: Which of the batch are this process's (`sharding.process_rows`); by default all.
        buckets: Lengths T that a batch may have: the smallest that holds its rows. By default one,
            the longest sample's rounded up to a multiple of 8.
        augment: How every picture is changed each time it is taken.

    Raises:
        InputError: No samples, pictures on some only, a sample longer than the last bucket, or
            an empty batch.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        encoder: Encoder,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        repeat: bool = True,
        rows: slice = slice(None),  # noqa: B008
        buckets: Sequence[int] = (),
        augment: Jitter | None = None,
    ):
        if not samples:
            raise InputError("samples: none to make batches of; give at least one")
        if len({sample.image is None for sample in samples}) > 1:
            raise InputError("samples: some have a picture, some not; make batches of each kind")
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size} rows; give 1 or more")
        self.samples = samples
        self.encoder = encoder
        self.batch_size = batch_size
        self.augment = augment
        self._rows = range(batch_size)[rows]
        # Everything is encoded once beforehand, so a bad sample shows before the first step.
        ids = [encoder.encode(sample)["input_ids"] for sample in samples]
        image = encoder.processor.image_token_id
        self._lengths = np.array([len(tokens) for tokens in ids])
        self._image_tokens = np.array([np.sum(tokens == image) for tokens in ids])
        longest = int(self._lengths.max())
        self.buckets = sorted(buckets) or [-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE]
        if longest > self.buckets[-1]:
            raise InputError(
                f"buckets: the longest sample has {longest} tokens, the last bucket "
                f"{self.buckets[-1]}; add a larger one"
            )
        order = grain.MapDataset.range(len(samples)).seed(seed)
        if shuffle:
            order = order.shuffle()
        if repeat:
            order = order.repeat()
        self._batches = order.batch(batch_size).random_map(self._assemble)

    def __len__(self) -> int:
        """Returns the number of batches of one pass, the filled-up one included."""
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> grain.DatasetIterator:
        """Returns a new iterator from the beginning, that prepares batches ahead in threads."""
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        return iter(self._batches.to_iter_dataset(options))

    def _assemble(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns this process's rows of the batch of the samples `indices` [<= batch_size]."""
        # All processes see all indices: they agree on the length, and draw the same numbers.
        longest = self._lengths[indices].max()
        length = next(bucket for bucket in self.buckets if bucket >= longest)
        seeds = rng.integers(2**63, size=self.batch_size)
        shape = len(self._rows), length
        batch = {
            "input_ids": np.full(shape, self.encoder.tokenizer.pad_token_id, np.int32),
            "attention_mask": np.zeros(shape, np.int32),
            "labels": np.full(shape, IGNORE, np.int32),
        }
        pictures = []
        for row, position in enumerate(self._rows):
            filling = position >= len(indices)
            index = indices[0 if filling else position]
            example = self.encoder.encode(self.samples[index])
            size = len(example["input_ids"])
            batch["input_ids"][row, :size] = example["input_ids"]
            batch["attention_mask"][row, :size] = 1
            if not filling:
                batch["labels"][row, :size] = example["labels"]
            if "picture" in example:
                picture = example["picture"]
                if self.augment is not None:
                    own = np.random.default_rng(seeds[position])
                    picture = self.augment.random_map(picture, own)
                pictures.append([picture])
        if pictures:
            batch |= self.encoder.pictures.pack(pictures, int(self._image_tokens[indices].max()))
        return batch
