"""Batches of static shape from samples, by Grain."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.features import Features
from mmunlearner_jax.data.references import References
from mmunlearner_jax.data.rows import PackedRow, share
from mmunlearner_jax.data.samples import Sample
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.packing import IGNORE, answer_places

LENGTH_MULTIPLE = 4
_FOREVER = 2**32  # passes: a length that Grain can still divide into batches of one row


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

    A batch is a dict of int32 `input_ids`, `attention_mask`, `labels` [B, T], `answer_places`
    [B, S] (where the logits are that predict a label) and, if the samples have pictures, the arrays
    of `encoder.pictures.pack`. B is the number of this process's rows. Padding is on the right,
    with label -100. Packed batches also have `segments` int32 [B, T], see `models.packing`.

    Args:
        samples: All with a picture or all without.
        encoder: Decides tokens, labels and pixels.
        batch_size: Samples of a batch, over all processes.
        seed: Of order and augmentation.
        shuffle: Whether each pass has a new random order.
        repeat: Whether the passes go on for ever. If not, the last batch is filled up with rows
            that have no label.
        pack: How many samples share a row, those with the same picture, or any without; a batch has
            `batch_size / pack` rows, and fewer samples where pictures have fewer. 1: none.
        rows: Which rows of the batch are this process's, ascending (`sharding.process_rows`); by
            default all.
        augment: How every picture is changed each time it is taken.
        features: Of the pictures, which the batches then hold in place of the pixels; they must
            have been added before the first batch is taken.
        references: What a frozen model said of the samples, which the batches then hold beside
            them; all must have been added before the first batch is taken.

    Attributes:
        length: T, the length of the longest row rounded up to a multiple of 4.
        filled: The fraction of the rows' tokens that is no padding, over one pass.
        saved: How many tokens the samples would take alone, without padding, for each that the rows
            take with it: above 1 where sharing pays.

    Raises:
        InputError: No samples, pictures on some only, an empty batch, or rows that cannot be
            shared.
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
            raise InputError("features: of pictures that augment changes each time; give one")
        self.samples = samples
        self.encoder = encoder
        self.pack = pack
        self.batch_rows = batch_size // pack
        self.augment, self.features, self.references = augment, features, references
        self._own = np.arange(self.batch_rows) if rows is None else np.asarray(rows)
        # Everything is encoded once beforehand, so a bad sample shows before the first step.
        with ThreadPoolExecutor() as pool:  # decoding and resizing let go of the interpreter
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
                f"pack: pictures have only {mean:.1f} samples for a row of {pack}: batches would be"
                f" as much smaller; give pack={round(mean)}"
            )
        self.length = rounded(max(row.length for row in self.rows))
        self._answers = rounded(max(answers[list(row.samples)].sum() for row in self.rows))
        taken = sum(row.length for row in self.rows)
        room = self.length * len(self.rows)
        self.filled, self.saved = taken / room, float(lengths.sum()) / room
        order = grain.MapDataset.range(len(self.rows)).seed(seed)
        if shuffle:
            order = order.shuffle()
        if repeat:
            order = order.repeat(_FOREVER)
        self._batches = order.batch(self.batch_rows).random_map(self._assemble)

    def __len__(self) -> int:
        """Returns the number of batches of one pass, the filled-up one included."""
        return -(-len(self.rows) // self.batch_rows)

    def __iter__(self) -> grain.DatasetIterator:
        """Returns a new iterator from the beginning, that prepares batches ahead in threads."""
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        return iter(self._batches.to_iter_dataset(options))

    def example(self) -> dict[str, np.ndarray]:
        """Returns a batch like those to come, for instance to compile for."""
        return self._assemble(
            np.arange(min(self.batch_rows, len(self.rows))), np.random.default_rng(0)
        )

    def _prefix(self, ids: np.ndarray) -> int:
        """How many of the tokens are those up to the picture."""
        image = np.flatnonzero(ids == self.encoder.processor.image_token_id)
        return int(image[-1]) + 1 if image.size else 0

    def _assemble(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns this process's rows of the batch of the rows `indices` [<= batch_rows]."""
        # All processes see all indices: they agree on the length, and draw the same numbers.
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
        """The model's arrays of the encoded pictures of this process's rows, one each."""
        if self.features is not None:
            return self.features.pack([[image] for image in images], tokens)
        pictures = self.encoder.pixels(images)
        if self.augment is not None:
            pictures = [
                self.augment.random_map(picture, np.random.default_rng(seed))
                for picture, seed in zip(pictures, seeds, strict=True)
            ]
        return self.encoder.pictures.pack([[picture] for picture in pictures], tokens)

    def _fill(self, arrays: dict[str, np.ndarray], row: PackedRow) -> None:
        """Writes a row's samples one behind the other, what they share once."""
        end = 0
        for number, sample in enumerate(row.samples, 1):
            asked, image_tokens = self.samples[sample], int(self._image_tokens[sample])
            tokens = self.encoder.tokens(asked.question, asked.answer, image_tokens)
            skipped = self._prefixes[sample] if end else 0
            begin, end = end, end + len(tokens.input_ids) - skipped
            for name, ids in tokens._asdict().items():
                arrays[name][begin:end] = ids[skipped:]
            if "segments" in arrays:
                arrays["segments"][begin + (self._prefixes[sample] - skipped) : end] = number
        arrays["attention_mask"][:end] = 1


def _check(samples: Sequence[Sample], encoder: Encoder, batch_size: int, pack: int) -> None:
    """Refuses samples that make no batches; see `Batches`."""
    if not samples:
        raise InputError("samples: none to make batches of; give at least one")
    if len({sample.image is None for sample in samples}) > 1:
        raise InputError("samples: some have a picture, some not; make batches of each kind")
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} samples; give 1 or more")
    if pack < 1 or batch_size % pack:
        raise InputError(f"pack: {pack} samples a row; give a divisor of {batch_size}")
    if pack > 1 and encoder.labels != "answer":
        raise InputError("pack: rows share what labels='full' supervises; give pack=1")


def packing(given: Mapping[str, Batches]) -> dict[str, float]:
    """How well the rows of batches are used: their `filled` and `saved`, by the batches' names."""
    return {
        f"{name}/{figure}": getattr(batches, figure)
        for name, batches in given.items()
        for figure in ("filled", "saved")
    }


def rounded(length: int, multiple: int = LENGTH_MULTIPLE) -> int:
    """A length, rounded up, so that batches have few shapes."""
    return -(-int(length) // multiple) * multiple
