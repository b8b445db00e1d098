"""Batches of static shape from samples, by Grain."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import grain
import jax
import numpy as np
from absl import logging

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.references import References
from mmunlearner_jax.data.rows import PackedRow, share
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.packing import IGNORE, Sizes, answer_places
from mmunlearner_jax.processes import is_first
from mmunlearner_jax.processing.pictures import Picture

LENGTH_MULTIPLE = 4
_FOREVER = 2**32  # passes; Grain can still make batches of one row of this many passes


class Jitter(grain.transforms.RandomMap):
    """Small random changes to processed pictures, for training from scratch on few photographs.

    A change is the same in every channel, so a grey picture stays grey, and in all frames of a
    clip. Pictures are not flipped,
    as faces are not symmetric.

    Args:
        shift: Largest shift up, down, left and right, in pixels; the border is repeated.
        gain: Standard deviation of the factor, whose mean is 1.
        offset: Standard deviation of the constant that is added to all pixels.
        noise: Standard deviation of the noise that is added to each pixel.
    """

    def __init__(self, shift: int = 6, gain: float = 0.1, offset: float = 0.1, noise: float = 0.1):
        self.shift, self.gain, self.offset, self.noise = shift, gain, offset, noise

    def random_map(self, element: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Changes one picture.

        Args:
            element: Normalised pixels, float32 [C, H, W].
            rng: Source of all random numbers.

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

    def of_picture(self, picture: Picture, seed: int) -> Picture:
        """Changes a picture; where it has several sizes, or frames, alike in all of them."""
        return jax.tree.map(
            lambda pixels: self.random_map(pixels, np.random.default_rng(seed)), picture
        )


class Batches:
    """An iterable of batches in the transformers convention, all of the same shape.

    The iterator is Grain's: `get_state()` and `set_state()` resume it at its exact position. The
    order and the random changes depend on the seed and the position alone, not on the number of
    processes; each process gets its own rows of a batch.

    A batch is a dict of int32 `input_ids`, `attention_mask`, `labels` [B, T], `answer_places`
    [B, S] (positions of the logits that predict a label) and, if the samples have pictures, the
    arrays of `encoder.pictures.pack`. B is the number of this process's rows. Padding is on the
    right, with label -100. Packed batches also have `segments` int32 [B, T], see `models.packing`.

    Args:
        samples: All of them have a picture, or none has one.
        encoder: Turns samples into tokens, labels and pixels.
        batch_size: Samples of a batch, over all processes.
        seed: Seed of the order and of the augmentation.
        shuffle: Whether each pass has a new random order.
        repeat: Whether passes repeat without end. If not, rows without a label fill the last batch.
        pack: Samples of a row: those with the same picture, or any without pictures. A batch has
            `batch_size / pack` rows; it has fewer samples where pictures have fewer. 1: no packing.
        rows: Indices of this process's rows in the batch, ascending (`sharding.process_rows`); by
            default all rows.
        augment: Random changes, drawn anew each time that a picture is used.
        features: Features of the pictures; the batches hold them in place of pixels. All pictures
            must have been added before the first batch is taken.
        references: A frozen model's values for the samples; the batches hold them, too. All samples
            must have been added before the first batch is taken.

    Attributes:
        sizes: Sizes of packed rows, over all samples; None with `pack=1`.
        length: T, the length of the longest row rounded up to a multiple of 4.
        filled: Fraction of the rows' tokens that are not padding, over one pass.
        saved: Tokens of all samples in rows of their own, without padding, divided by the tokens of
            the rows with padding. Packing pays where this is above its value with `pack=1`.

    Raises:
        InputError: There are no samples, only some have pictures, `batch_size` is below 1, or the
            rows cannot be packed.
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
        pack: int = 1,
        rows: Sequence[int] | np.ndarray | None = None,
        augment: Jitter | None = None,
        features: Features | None = None,
        references: References | None = None,
    ):
        _check(samples, encoder, batch_size, pack)
        if augment is not None and features is not None:
            raise InputError("features: augment changes each picture; give one of the two")
        self.samples, self.encoder, self.pack = samples, encoder, pack
        self.batch_rows = batch_size // pack
        self.augment, self.features, self.references = augment, features, references
        self._own = np.arange(self.batch_rows) if rows is None else np.asarray(rows)
        # All samples are encoded once here, so an unusable one raises before the first step.
        with ThreadPoolExecutor() as pool:  # decoding and resizing release the interpreter's lock
            first: dict[bytes | None, Sample] = {}
            for sample in samples:
                first.setdefault(sample.image, sample)
            list(pool.map(encoder.labelled, first.values()))
        examples = [encoder.labelled(sample) for sample in samples]
        lengths = np.array([len(example.input_ids) for example in examples])
        answers = np.array([np.sum(example.labels[1:] != IGNORE) for example in examples])
        self._prefixes = np.array([self._prefix(example.input_ids) for example in examples])
        self._image_tokens = np.array([encoder.image_tokens(sample.image) for sample in samples])
        self.rows = share(samples, lengths, self._prefixes, pack=pack, seed=seed)
        if len(samples) < len(self.rows) * pack / 2:
            mean = len(samples) / len(self.rows)
            raise InputError(
                f"pack: pictures have only {mean:.1f} samples for a row of {pack}, which would"
                f" make batches smaller by the same factor; give pack={round(mean)}"
            )
        segment = rounded((lengths - self._prefixes).max())
        self.sizes = Sizes(pack, int(self._prefixes.max()), segment) if pack > 1 else None
        self.length = rounded(max(row.length for row in self.rows))
        self._answers = rounded(max(answers[list(row.samples)].sum() for row in self.rows))
        taken = sum(row.length for row in self.rows)
        room = self.length * len(self.rows)
        self.filled, self.saved = taken / room, float(lengths.sum()) / room
        alone = rounded(lengths.max()) * len(samples)
        if room > 1.01 * alone and is_first():
            logging.warning(
                "pack=%d: padding included, a pass takes %.0f %% more tokens than with pack=1;"
                " give a smaller pack",
                *(pack, 100 * (room / alone - 1)),
            )
        order = grain.MapDataset.range(len(self.rows)).seed(seed)
        if shuffle:
            order = order.shuffle()
        if repeat:
            order = order.repeat(_FOREVER)
        self._batches = order.batch(self.batch_rows).random_map(self._assemble)

    def __len__(self) -> int:
        """Returns the number of batches of one pass; the last one may be partly filled."""
        return -(-len(self.rows) // self.batch_rows)

    def __iter__(self) -> grain.DatasetIterator:
        """Returns a new iterator that starts at the beginning and prefetches batches in threads."""
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        return iter(self._batches.to_iter_dataset(options))

    def example(self) -> dict[str, np.ndarray]:
        """Returns a batch with the shapes of all batches, e.g. to compile a step."""
        return self._assemble(
            np.arange(min(self.batch_rows, len(self.rows))), np.random.default_rng(0)
        )

    def _prefix(self, ids: np.ndarray) -> int:
        """Returns the number of tokens up to the end of the picture; 0 without one."""
        places = (n for n, token in enumerate(ids.tolist(), 1) if token in self.encoder.picture_ids)
        return max(places, default=0)

    def _assemble(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns this process's rows of the batch of the rows `indices` [<= batch_rows]."""
        # All processes get all indices, so they agree on lengths and draw the same random numbers.
        chosen = [self.rows[index] for index in indices]
        shape = len(self._own), self.length
        seeds = rng.integers(2**63, size=self.batch_rows)
        batch = {
            "input_ids": np.full(shape, self.encoder.tokenizer.pad_token_id, np.int32),
            "attention_mask": np.zeros(shape, np.int32),
            "labels": np.full(shape, IGNORE, np.int32),
        }
        if self.pack > 1:
            batch["segments"] = np.zeros(shape, np.int32)
        images, held = [], []
        for place, position in enumerate(self._own):
            filling = position >= len(chosen)
            row = chosen[0 if filling else position]
            self._fill({name: array[place] for name, array in batch.items()}, row)
            if filling:
                batch["labels"][place] = IGNORE
            images.append(self.samples[row.samples[0]].image)
            held.append([self.samples[number] for number in row.samples])
        batch["answer_places"] = answer_places(batch["labels"], self._answers)
        if self.references is not None:
            batch |= self.references.pack(held, questions=self.pack, tokens=self._answers)
        if images[0] is not None:
            most = int(max(self._image_tokens[list(row.samples)].max() for row in chosen))
            batch |= self._pictures(images, most, seeds[self._own])
        return batch

    def _pictures(
        self, images: list[bytes], tokens: int, seeds: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Returns the model's inputs for the encoded pictures of this process's rows, one each."""
        if self.features is not None:
            return self.features.pack([[image] for image in images], tokens)
        pictures = self.encoder.pixels(images)
        if self.augment is not None:
            pictures = [
                self.augment.of_picture(picture, seed)
                for picture, seed in zip(pictures, seeds, strict=True)
            ]
        return self.encoder.pictures.pack([[picture] for picture in pictures], tokens)

    def _fill(self, arrays: dict[str, np.ndarray], row: PackedRow) -> None:
        """Writes a row's samples one after the other into `arrays`, their shared prefix once."""
        end = 0
        for number, index in enumerate(row.samples, 1):
            tokens = self.encoder.labelled(self.samples[index])
            skipped = self._prefixes[index] if end else 0
            begin, end = end, end + len(tokens.input_ids) - skipped
            for name, ids in tokens._asdict().items():
                arrays[name][begin:end] = ids[skipped:]
            if "segments" in arrays:
                arrays["segments"][begin + (self._prefixes[index] - skipped) : end] = number
        arrays["attention_mask"][:end] = 1


def _check(samples: Sequence[Sample], encoder: Encoder, batch_size: int, pack: int) -> None:
    """Refuses samples of which `Batches` cannot make batches."""
    if not samples:
        raise InputError("samples: none to make batches of; give at least one")
    if len({sample.image is None for sample in samples}) > 1:
        raise InputError("samples: some have a picture, some not; batch them separately")
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} samples; give 1 or more")
    if pack < 1 or batch_size % pack:
        raise InputError(f"pack: {pack} samples a row; give a divisor of {batch_size}")
    if pack > 1 and encoder.labels != "answer":
        raise InputError(
            "pack: the samples of a row share the prompt, which labels='full' supervises;"
            " give pack=1"
        )


def packing(named: Mapping[str, Batches]) -> dict[str, float]:
    """Returns `filled` and `saved` of batches, keyed `NAME/filled` and `NAME/saved`."""
    return {
        f"{name}/{figure}": getattr(batches, figure)
        for name, batches in named.items()
        for figure in ("filled", "saved")
    }


def rounded(length: int, multiple: int = LENGTH_MULTIPLE) -> int:
    """Returns a length rounded up to a multiple, so that batches have few shapes."""
    return -(-int(length) // multiple) * multiple
