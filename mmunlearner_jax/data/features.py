"""What a frozen vision tower says of pictures: computed once for each, and kept.

Axes: B rows of a batch, one picture each.
"""

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from mmunlearner_jax.data.encoder import Encoder
from mmunlearner_jax.data.store import IN_MEMORY, Records
from mmunlearner_jax.models.vision_language import VisionLanguageModel
from mmunlearner_jax.processes import is_first, to_host
from mmunlearner_jax.sharding import batch_parts, process_rows, put_batch
from mmunlearner_jax.weights.io import in_groups

BATCH = 16  # pictures of a batch, rounded up to what the mesh can split
FILE = 1024  # pictures of a file: so many are computed again after an interruption, at most


class Features:
    """The vision tower's features of pictures, in place of their pixels.

    They are kept under the hash of the picture's bytes, its processing, the tower's weights and how
    it computes, so that whoever comes with the same finds them. A picture's do not depend on the
    others that it was computed with.

    Args:
        folder: where they are kept.
        model: whose tower it is.
        encoder: reads pictures.
        mesh: whose devices share a batch; all processes must ask for the same.
        in_memory: see `Records`.
    """

    def __init__(
        self,
        folder: Path,
        model: VisionLanguageModel,
        encoder: Encoder,
        mesh: jax.sharding.Mesh,
        *,
        in_memory: int = IN_MEMORY,
    ):
        graphdef, params = nnx.split(model)
        in_tower = in_groups(model.config.model_type, ("vision",))
        self._tower, others = nnx.split_state(params, in_tower, ...)
        # No arrays: a step may have been given them by the time that the tower runs.
        others = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), others)
        self._encoder, self._mesh = encoder, mesh
        self._records = Records(folder, in_memory=in_memory)
        self._names: dict[bytes, str] = {}
        self._salt = hashlib.sha256(repr(model.config).encode())
        self._salt.update(encoder.processor.image_processor.to_json_string().encode())
        for path, leaf in nnx.to_flat_state(self._tower):
            array = to_host(leaf.get_value())
            self._salt.update(f"{path} {array.dtype} {array.shape}".encode())
            self._salt.update(array.tobytes())
        parts = batch_parts(mesh.axis_sizes)
        self._rows = -(-BATCH // parts) * parts

        @jax.jit
        def see(tower: nnx.State, pictures: dict[str, jax.Array]) -> jax.Array:
            return nnx.merge(graphdef, tower, others).vision_features(**pictures)

        self._see = see

    def __getitem__(self, image: bytes) -> np.ndarray:
        """The features [..., D] of an encoded picture that was added."""
        return self._records[self._names[image]]

    def pack(self, rows: Sequence[Sequence[bytes]], tokens: int) -> dict[str, np.ndarray]:
        """The model's arrays of encoded pictures that were added; see `Pictures.pack`."""
        found = [[self[image] for image in row] for row in rows]
        return self._encoder.pictures.pack_features(found, tokens)

    def add(self, images: Iterable[bytes]) -> None:
        """Computes the features of encoded pictures, where they are not known yet.

        Raises:
            InputError: a picture is too small or too large for the model.
        """
        new = [image for image in dict.fromkeys(images) if image not in self._names]
        for image in new:
            own = self._salt.copy()
            own.update(image)
            self._names[image] = own.hexdigest()
        missing = [image for image in new if self._names[image] not in self._records]
        if not missing:
            return
        with tqdm(
            total=len(missing),
            desc="vision features",
            unit="picture",
            disable=not is_first(),
            file=sys.stderr,
        ) as bar:
            for start in range(0, len(missing), FILE):
                self._records.write(self._computed(missing[start:][:FILE], bar))

    def _computed(self, images: list[bytes], bar: tqdm) -> Iterator[tuple[str, np.ndarray]]:
        # Rows of one shape each: a picture is padded as it would be alone.
        waiting: dict[Any, list[tuple[bytes, dict[str, np.ndarray]]]] = defaultdict(list)
        for image in images:
            pixels, tokens = self._encoder.image(image)
            row = self._encoder.pictures.pack([[pixels]], tokens)
            shape = row["pixel_values"].shape
            waiting[shape].append((image, row))
            if len(waiting[shape]) == self._rows:
                yield from self._seen(waiting.pop(shape), bar)
        for rest in waiting.values():
            yield from self._seen(rest, bar)

    def _seen(
        self, together: list[tuple[bytes, dict[str, np.ndarray]]], bar: tqdm
    ) -> Iterator[tuple[str, np.ndarray]]:
        images = [image for image, _ in together]
        rows = [row for _, row in together]
        rows += rows[:1] * (self._rows - len(rows))
        own_rows = [rows[n] for n in process_rows(self._mesh, self._rows)]
        batch = {name: np.concatenate([row[name] for row in own_rows]) for name in rows[0]}
        features = to_host(self._see(self._tower, put_batch(batch, self._mesh)))
        found = self._encoder.pictures.unpack_features(features, self._encoder.pixels(images))
        bar.update(len(images))
        for image, array in zip(images, found, strict=True):
            yield self._names[image], array
